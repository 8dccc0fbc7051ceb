"""PP-LCNet with ML-Decoder.

  configs/lcnet.py         the demo: boards of handwritten digits, no download. Validation
                           MultiLabelMAP 0.965 after 100 s of training on two CPU cores.
  configs/lcnet.py:mlcls   your own images in MLClsDataset form, by the originals' recipe
                           (PaddleClas, MultiLabelCOCO/MLDecoder); give --config.data.dir=FOLDER.

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
    """A half-width network and a narrow head, on images of 64 x 64."""
    config = default()
    config.model.name = "PP-LCNet_x0_5_ML"
    config.model.image_size = (64, 64)
    config.model.embed_dim = 128
    config.model.hidden_dim = 256
    config.model.num_heads = 4
    config.model.head_dropout = 0.0
    config.model.backbone_dropout = 0.0
    config.data.source = "digits"
    config.data.epoch_size = 10_000
    config.data.val_size = 1_000
    config.train.epochs = 5
    config.train.batch_size = 32
    config.train.ema_decay = 0.99
    # Drawn at random, the convolutions want a large rate and the decoder a small one.
    config.optimizer.learning_rate = 1e-2
    config.optimizer.lr_multipliers = ("^head/=0.1",)
    config.optimizer.weight_decay = 1e-2
    config.optimizer.schedule = "onecycle"
    config.optimizer.peak_fraction = 0.3
    # Ten balanced labels learn faster from plain cross-entropy; the asymmetric loss pays off where
    # negatives are many.
    config.loss.name = "multilabel"
    config.evaluate.batch_size = 100
    return config


def mlcls() -> ConfigDict:
    """The schema's defaults are this recipe: 448 x 448, AdamW 1e-4, asymmetric loss, EMA."""
    config = default()
    config.data.source = "mlcls"
    return config
