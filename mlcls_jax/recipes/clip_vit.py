"""CLIP's vision transformer with ML-Decoder.

  configs/clip_vit.py        the demo: boards of handwritten digits, no download, ViT-B/32 on images
                             of 64 x 64. For a GPU: 88 million parameters from random weights. Only
                             its first steps were run here, on a CPU; no number.
  configs/clip_vit.py:mlcls  your own images in MLClsDataset form, by the originals' recipe
                             (PaddleClas, MultiLabelCOCO/MLDecoder); give --config.data.dir=FOLDER.
                             ViT-B/16 at 448. One GPU.
  configs/clip_vit.py:coco   the same on COCO-2017 in MLClsDataset form, published with 89.15 % mAP:
                             four GPUs, from CLIP weights. One GPU of 80 GB, or several. Not run
                             here.
  configs/clip_vit.py:single your own images with exactly one label each: ViT-B/16 at 224, by
                             PaddleX's recipe, from CLIP weights. One GPU. Not run here.
  configs/clip_vit.py:small  hundreds of your own images: the head alone is trained, at 224 x 224, on
                             features that are computed once. Not run here.

python -m mlcls_jax.main --config=configs/clip_vit.py:mlcls --workdir=runs/clip --config.data.dir=FOLDER

The head sees all patches; the original's sees the first alone: --config.model.memory=first_patch.
The original's ML-Decoder weights choose that by themselves, as OpenAI's choose QuickGELU.

Stage-wise rates:  --config.optimizer.lr_multipliers="('^backbone/block[0-5]/=0.1', '^backbone/=0.5')"
Frozen stages:     --config.optimizer.lr_multipliers='^backbone/(patch|cls|pos|ln_pre|block[0-5]/)=0'
Initial weights:   --config.model.weights=backbone (CLIP), none (random), or a file
"""  # noqa: E501 (commands stay whole)

from ml_collections import ConfigDict

from mlcls_jax import recipes


def get_config(recipe: str = "demo") -> ConfigDict:
    """Return the configuration of one of the recipes above."""
    return recipes.one_of(globals(), recipe)


def demo() -> ConfigDict:
    """One patch covers a cell of the board; a transformer wants a small learning rate."""
    config = recipes.digits_demo(name="CLIP_vit_base_patch32_224_ML")
    config.optimizer.learning_rate = 3e-4
    config.optimizer.lr_multipliers = ()
    return config


def mlcls() -> ConfigDict:
    """448 x 448, AdamW 5e-5, asymmetric loss, EMA."""
    name = "CLIP_vit_base_patch16_448_ML"
    return recipes.ml_decoder_recipe(name=name, batch_size=16, learning_rate=5e-5)


def coco() -> ConfigDict:
    """On 80 labels; 16 images on each of four GPUs, in float32 as the original."""
    name = "CLIP_vit_base_patch16_448_ML"
    return recipes.coco_recipe(name=name, batch_size=16, learning_rate=5e-5, dtype="float32")


def single() -> ConfigDict:
    """224 x 224, AdamW 3e-4 that falls by 0.6 a block, cross-entropy; nearest to timm's rand-m9."""
    config = recipes.single_label_recipe(
        name="CLIP_vit_base_patch16_224",
        epochs=100,
        batch_size=64,
        learning_rate=3e-4,
        weight_decay=0.05,
    )
    config.data.augment = (*config.data.augment, "randaugment", "random_erasing")
    config.optimizer.name = "adamw"
    config.optimizer.layer_decay = 0.6
    config.optimizer.warmup_start = 1e-6
    config.optimizer.end_learning_rate = 1e-6
    return config


def small() -> ConfigDict:
    """Return the recipe for hundreds of images: the head alone is trained, on kept features."""
    return recipes.small_recipe(name="CLIP_vit_base_patch16_448_ML")
