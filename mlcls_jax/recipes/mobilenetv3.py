"""MobileNetV3 with ML-Decoder.

  configs/mobilenetv3.py         the demo: boards of handwritten digits, no download. Validation
                                 MultiLabelMAP 0.992 after three minutes on one CPU core.
  configs/mobilenetv3.py:mlcls   your own images in MLClsDataset form, by the originals' recipe for
                                 ML-Decoders, which they have not for this backbone; give
                                 --config.data.dir=FOLDER. One GPU. Not run here.
  configs/mobilenetv3.py:small   the same for hundreds of images: see `recipes/lcnet.py`.
  configs/mobilenetv3.py:single  your own images with exactly one label each: the large network
                                 under mean pooling, by the original's ImageNet recipe. One GPU. Not
                                 run here.

python -m mlcls_jax.main --config=configs/mobilenetv3.py --workdir=runs/mobilenetv3

Stage-wise rates:  --config.optimizer.lr_multipliers="('^backbone/conv/=0.1', '^backbone/=0.5')"
Initial weights:   --config.model.weights=backbone (ImageNet), none (random), or a file
"""

from ml_collections import ConfigDict

from mlcls_jax import recipes


def get_config(recipe: str = "demo") -> ConfigDict:
    """Return the configuration of one of the recipes above."""
    return recipes.one_of(globals(), recipe)


def demo() -> ConfigDict:
    """The small network at half width and a narrow head, on images of 64 x 64."""
    config = recipes.digits_demo(name="MobileNetV3_small_x0_5_ML")
    config.model.backbone_dropout = 0.0
    return config


def mlcls() -> ConfigDict:
    """The large network: 448 x 448, AdamW 1e-4, asymmetric loss, EMA."""
    return recipes.ml_decoder_recipe(name="MobileNetV3_large_x1_0_ML", batch_size=64)


def single() -> ConfigDict:
    """The large network: 224 x 224, SGD 1.3 at a batch of 1024, cross-entropy."""
    return recipes.single_label_recipe(
        name="MobileNetV3_large_x1_0",
        epochs=360,
        batch_size=256,
        learning_rate=1.3,
        weight_decay=2e-5,
    )


def small() -> ConfigDict:
    """Return the recipe for hundreds of images: the head alone is trained, on kept features."""
    return recipes.small_recipe(name="MobileNetV3_large_x1_0_ML")
