"""ResNet with ML-Decoder.

  configs/resnet.py         the demo: boards of handwritten digits, no download.
                            Validation MultiLabelMAP 0.996 after 150 s of training on two CPU cores.
  configs/resnet.py:mlcls   your own images in MLClsDataset form, by the originals' recipe
                            (PaddleClas, MultiLabelCOCO/MLDecoder); give --config.data.dir=FOLDER.
                            ResNet50; mlcls_101 and mlcls_152 with OneCycle. One GPU.
  configs/resnet.py:coco    the same on COCO-2017 in MLClsDataset form. ResNet50, published with
                            83.50 % mAP: four GPUs, from ImageNet weights. coco_101 has no usable
                            number of the original's (the ML-Decoder paper reports 87.1 %), and
                            coco_152 no original: it is ResNet101's. One GPU of 80 GB or more, or
                            several. Not run here.
  configs/resnet.py:coco_224  ResNet50 on COCO-2017 at 224 x 224, published with 79.5 % mAP;
                            coco_640: ResNet101 at 640 x 640, which has no original. Not run here.
  configs/resnet.py:coco2014  ResNet101 by the ML-Decoder paper's recipe; voc2007, nuswide and
                            openimages likewise. docs/models.md has numbers to compare with, and
                            mode=check_dataset tells whether yours is that set. Not run here.
  configs/resnet.py:single  your own images with exactly one label each: ResNet50 under mean
                            pooling, by the original's ImageNet recipe. One GPU. Not run here.
  configs/resnet.py:small   hundreds of your own images: the head alone is trained, at 224 x 224, on
                            features that are computed once. Two CPU cores. Not run here.

python -m mlcls_jax.main --config=configs/resnet.py --workdir=runs/resnet

Stage-wise rates:  --config.optimizer.lr_multipliers="('^backbone/stem=0.1', '^backbone/=0.5')"
Frozen stages:     --config.optimizer.lr_multipliers='^backbone/(stem|block[0-2]/)=0'
Initial weights:   --config.model.weights=backbone (ImageNet), none (random), or a file
"""

from ml_collections import ConfigDict

from mlcls_jax import recipes


def get_config(recipe: str = "demo") -> ConfigDict:
    """Return the configuration of one of the recipes above."""
    return recipes.one_of(globals(), recipe)


def demo() -> ConfigDict:
    """ResNet18 and a narrow head, on images of 64 x 64."""
    config = recipes.digits_demo(name="ResNet18_ML")
    # A last map of 4 x 4: XLA's CPU convolution is a hundred times slower on one of 2 x 2.
    config.model.strides = (2, 1, 2, 2, 1)
    config.data.epoch_size = 3_000
    config.train.epochs = 3
    return config


def mlcls() -> ConfigDict:
    """ResNet50: 448 x 448, AdamW 1e-4, asymmetric loss, EMA."""
    return recipes.ml_decoder_recipe(name="ResNet50_ML", batch_size=64)


def mlcls_101() -> ConfigDict:
    """ResNet101: OneCycle instead of warm-up and cosine."""
    return recipes.ml_decoder_recipe(name="ResNet101_ML", batch_size=56, schedule="onecycle")


def mlcls_152() -> ConfigDict:
    """ResNet152: as ResNet101."""
    return recipes.ml_decoder_recipe(name="ResNet152_ML", batch_size=56, schedule="onecycle")


def coco() -> ConfigDict:
    """ResNet50 on 80 labels; 64 images on each of four GPUs."""
    return recipes.coco_recipe(name="ResNet50_ML", batch_size=64)


def coco_101() -> ConfigDict:
    """ResNet101 on 80 labels; 56 images on each of four GPUs, OneCycle."""
    return recipes.coco_recipe(name="ResNet101_ML", batch_size=56, schedule="onecycle")


def coco_152() -> ConfigDict:
    """ResNet152 on 80 labels, as ResNet101."""
    return recipes.coco_recipe(name="ResNet152_ML", batch_size=56, schedule="onecycle")


def coco_224() -> ConfigDict:
    """ResNet50 at 224 x 224."""
    config = recipes.coco_recipe(name="ResNet50_ML", batch_size=64)
    config.model.image_size = (224, 224)
    return config


def coco_640() -> ConfigDict:
    """ResNet101 at 640 x 640; 28 images on each of four GPUs, blocks computed anew."""
    config = recipes.coco_recipe(name="ResNet101_ML", batch_size=28, schedule="onecycle")
    config.model.image_size = (640, 640)
    config.train.remat = True
    return config


def coco2014() -> ConfigDict:
    """ResNet101 on COCO-2014."""
    return recipes.paper_recipe(protocol="coco2014", name="ResNet101_ML", num_classes=80)


def voc2007() -> ConfigDict:
    """ResNet101 on VOC-2007; 5e-5 and 128 images, as users of the paper's code report."""
    config = recipes.paper_recipe(protocol="voc2007", name="ResNet101_ML", num_classes=20)
    config.optimizer.learning_rate = 5e-5
    config.train.batch_size = 128
    config.check_dataset.convert.crowd = False
    return config


def nuswide() -> ConfigDict:
    """ResNet101 on NUS-WIDE."""
    return recipes.paper_recipe(protocol="nuswide", name="ResNet101_ML", num_classes=81)


def openimages() -> ConfigDict:
    """ResNet101 on OpenImages V6 at 224 x 224: 200 queries, each for 49 labels."""
    config = recipes.paper_recipe(protocol="openimages", name="ResNet101_ML", num_classes=9_605)
    config.model.image_size = (224, 224)
    return config


def single() -> ConfigDict:
    """ResNet50: 224 x 224, SGD 0.1 in steps, cross-entropy without smoothing."""
    config = recipes.single_label_recipe(
        name="ResNet50",
        epochs=120,
        batch_size=64,
        learning_rate=0.1,
        weight_decay=1e-4,
    )
    config.optimizer.schedule = "step"
    config.optimizer.decay_epochs = (30, 60, 90)
    config.optimizer.warmup_epochs = 0.0
    config.loss.label_smoothing = None
    return config


def small() -> ConfigDict:
    """Return the recipe for hundreds of images: the head alone is trained, on kept features."""
    return recipes.small_recipe(name="ResNet50_ML")
