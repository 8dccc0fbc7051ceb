"""PP-LCNet with ML-Decoder.

  configs/lcnet.py         the demo: boards of handwritten digits, no download. Validation
                           MultiLabelMAP 0.97 to 0.99 after about two minutes on two CPU cores.
  configs/lcnet.py:mlcls   your own images in MLClsDataset form, by the originals' recipe
                           (PaddleClas, MultiLabelCOCO/MLDecoder); give --config.data.dir=FOLDER.
                           One GPU.
  configs/lcnet.py:coco    the same on COCO-2017 in MLClsDataset form. PP-LCNet_x1_0_ML, published
                           with 77.96 % mAP: four GPUs, from ImageNet weights. One GPU of 80 GB, or
                           several. Not run here.
  configs/lcnet.py:single  your own images with exactly one label each, under mean pooling, by the
                           original's ImageNet recipe. One GPU. Not run here.
  configs/lcnet.py:small   hundreds of your own images: the head alone is trained, at 224 x 224, on
                           features that are computed once. Two CPU cores.

python -m mlcls_jax.main --config=configs/lcnet.py --workdir=runs/demo

Stage-wise rates:  --config.optimizer.lr_multipliers="('^backbone/conv1=0.1', '^backbone/=0.5')"
Frozen stages:     --config.optimizer.lr_multipliers='^backbone/(conv1|blocks[23])=0'
Initial weights:   --config.model.weights=backbone (ImageNet), none (random), or a file
"""

from ml_collections import ConfigDict

from mlcls_jax import recipes


def get_config(recipe: str = "demo") -> ConfigDict:
    """Return the configuration of one of the recipes above."""
    return recipes.one_of(globals(), recipe)


def demo() -> ConfigDict:
    """A half-width network and a narrow head, on images of 64 x 64."""
    config = recipes.digits_demo(name="PP-LCNet_x0_5_ML")
    config.model.backbone_dropout = 0.0
    return config


def mlcls() -> ConfigDict:
    """448 x 448, AdamW 1e-4, asymmetric loss, EMA; these are the schema's defaults, too."""
    return recipes.ml_decoder_recipe(name="PP-LCNet_x1_0_ML", batch_size=64)


def coco() -> ConfigDict:
    """On 80 labels; 64 images on each of four GPUs."""
    return recipes.coco_recipe(name="PP-LCNet_x1_0_ML", batch_size=64)


def single() -> ConfigDict:
    """224 x 224, SGD 0.8 at a batch of 2048, cross-entropy."""
    return recipes.single_label_recipe(
        name="PP-LCNet_x1_0",
        epochs=360,
        batch_size=512,
        learning_rate=0.8,
        weight_decay=3e-5,
    )


def small() -> ConfigDict:
    """Return the recipe for hundreds of images: the head alone is trained, on kept features."""
    return recipes.small_recipe(name="PP-LCNet_x1_0_ML")
