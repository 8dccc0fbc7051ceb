"""PP-LCNet with ML-Decoder.

  configs/lcnet.py         the demo: embedded digits, minutes on two CPU cores, no download
  configs/lcnet.py:mlcls   your own images in MLClsDataset form (--config.data.dir=FOLDER)

python -m mlcls_jax.main --config=configs/lcnet.py --workdir=runs/demo
"""

from ml_collections import ConfigDict

from mlcls_jax.config import default


def get_config(recipe: str = "demo") -> ConfigDict:
    """The configuration of one of the recipes above."""
    recipes = {"demo": demo, "mlcls": mlcls}
    if recipe not in recipes:
        raise ValueError(f"configs/lcnet.py:{recipe}: there are {', '.join(recipes)}")
    return recipes[recipe]()


def demo() -> ConfigDict:
    """Boards of handwritten digits, 64 x 64, with a half-width network and a narrow head."""
    config = default()
    config.model.name = "PP-LCNet_x0_5_ML"
    config.model.image_size = (64, 64)
    config.model.strides = (2, 2, 2, 2, 1)  # keeps a 4 x 4 map
    config.model.embed_dim = 128
    config.model.hidden_dim = 256
    config.model.num_heads = 4
    config.model.head_dropout = 0.0
    config.model.backbone_dropout = 0.0
    config.data.source = "digits"
    config.data.epoch_size = 10_000
    config.data.val_size = 1_000
    config.train.epochs = 6
    config.train.batch_size = 50
    config.train.ema_decay = 0.99
    config.optimizer.learning_rate = 4e-3
    config.optimizer.weight_decay = 1e-2
    config.optimizer.schedule = "onecycle"
    config.optimizer.peak_fraction = 0.3
    config.evaluate.batch_size = 100
    return config


def mlcls() -> ConfigDict:
    """The originals' recipe (PaddleClas, MultiLabelCOCO/MLDecoder), on your own images."""
    config = default()
    config.data.source = "mlcls"
    return config
