"""PP-HGNetV2 with ML-Decoder.

  configs/hgnetv2.py         the demo: boards of handwritten digits, no download.
                             Validation MultiLabelMAP 0.998 after 140 s of training on two CPU
                             cores.
  configs/hgnetv2.py:mlcls   your own images in MLClsDataset form, by the originals' recipe
                             (PaddleClas, MultiLabelCOCO/MLDecoder); give --config.data.dir=FOLDER.
                             B0; mlcls_b4 and mlcls_b6 likewise. One GPU.
  configs/hgnetv2.py:coco    the same on COCO-2017 in MLClsDataset form. Published mAP: B0 80.98 %,
                             coco_b4 87.96 %, coco_b6 91.25 %: four GPUs, from SSLD weights. One GPU
                             of 80 GB or more, or several. Not run here.
  configs/hgnetv2.py:single  your own images with exactly one label each: B0 under mean pooling, by
                             the original's ImageNet recipe. One GPU. Not run here.
  configs/hgnetv2.py:small   hundreds of your own images: the head alone is trained, at 224 x 224,
                             on features that are computed once. Two CPU cores. Not run here.

python -m mlcls_jax.main --config=configs/hgnetv2.py --workdir=runs/hgnetv2

B0 to B3 have learnable affines, which the originals train at a hundredth of the rate; B4 to B6 have
none, and no '/lab/' below. B1 to B3 go with mlcls, B5 with mlcls_b4, and --config.model.name.

Stage-wise rates:  --config.optimizer.lr_multipliers="('/lab/=0.01', '^backbone/(stem|stage0)=0.1')"
Frozen stages:     --config.optimizer.lr_multipliers="('^backbone/(stem|stage0)=0', '/lab/=0.01')"
Initial weights:   --config.model.weights=backbone (ImageNet), none (random), or a file
"""

from ml_collections import ConfigDict

from mlcls_jax import recipes

AFFINES = (r"/lab/=0.01",)  # the rate of the learnable affines, relative to the others


def get_config(recipe: str = "demo") -> ConfigDict:
    """Return the configuration of one of the recipes above."""
    return recipes.one_of(globals(), recipe)


def demo() -> ConfigDict:
    """The smallest network and a narrow head, on images of 64 x 64."""
    config = recipes.digits_demo(name="PP-HGNetV2-B0_ML")
    config.optimizer.lr_multipliers = (*AFFINES, "^head/=0.1")
    config.optimizer.learning_rate = 3e-3  # 1e-2 is too large for it
    config.data.epoch_size = 4_000
    return config


def mlcls() -> ConfigDict:
    """B0: 448 x 448, AdamW 1e-4, asymmetric loss, EMA."""
    config = recipes.ml_decoder_recipe(name="PP-HGNetV2-B0_ML", batch_size=64)
    config.optimizer.lr_multipliers = AFFINES
    return config


def mlcls_b4() -> ConfigDict:
    """B4: the same without affines."""
    return recipes.ml_decoder_recipe(name="PP-HGNetV2-B4_ML", batch_size=64)


def mlcls_b6() -> ConfigDict:
    """B6: half the batch."""
    return recipes.ml_decoder_recipe(name="PP-HGNetV2-B6_ML", batch_size=32)


def coco() -> ConfigDict:
    """B0 on 80 labels; 64 images on each of four GPUs."""
    config = recipes.coco_recipe(name="PP-HGNetV2-B0_ML", batch_size=64)
    config.optimizer.lr_multipliers = AFFINES
    return config


def coco_b4() -> ConfigDict:
    """B4 on 80 labels; 64 images on each of four GPUs."""
    return recipes.coco_recipe(name="PP-HGNetV2-B4_ML", batch_size=64)


def coco_b6() -> ConfigDict:
    """B6 on 80 labels; 32 images on each of four GPUs."""
    return recipes.coco_recipe(name="PP-HGNetV2-B6_ML", batch_size=32)


def single() -> ConfigDict:
    """224 x 224, SGD 0.5 at a batch of 512, cross-entropy; the nearest to timm's rand-m7."""
    config = recipes.single_label_recipe(
        name="PP-HGNetV2-B0",
        epochs=200,
        batch_size=128,
        learning_rate=0.5,
        weight_decay=2e-5,
    )
    config.data.resize_short = 232  # the original's; its filter is bicubic
    config.data.augment = (*config.data.augment, "randaugment", "random_erasing")
    config.optimizer.lr_multipliers = AFFINES
    return config


def small() -> ConfigDict:
    """Return the recipe for hundreds of images: the head alone is trained, on kept features."""
    config = recipes.small_recipe(name="PP-HGNetV2-B0_ML")
    config.optimizer.lr_multipliers = AFFINES
    return config
