"""The recipes `coco` against PaddleClas' configurations of MultiLabelCOCO/MLDecoder."""

import pytest

from configs import clip_vit, hgnetv2, lcnet, resnet

GPUS = 4
# Of all seven; see docs/models.md for what differs on purpose.
COMMON = {
    "model.num_classes": 80,
    "model.image_size": (448, 448),
    "model.weights": "backbone",  # Arch.pretrained: True
    "model.initial": "paddle",
    "model.query_num": 80,
    "model.trainable_queries": False,
    "model.embed_dim": 768,
    "model.hidden_dim": 2048,
    "model.num_heads": 8,
    "model.decoder_depth": 1,
    "model.head_dropout": 0.1,
    "data.augment": ("cutout", "randaugment_v4"),
    "data.train_resize": "exact",  # Pillow's, antialiased
    "check_dataset.convert.crowd": True,
    "train.epochs": 40,
    "train.ema_decay": 0.9997,
    "train.ema_warmup": False,
    "optimizer.name": "adamw",
    "optimizer.weight_decay": 1e-4,
    "optimizer.end_learning_rate": 1e-10,
    "loss.name": "asymmetric",
    "loss.gamma_pos": 0.0,
    "loss.gamma_neg": 4.0,
    "loss.clip": 0.05,
    "loss.reduction": "sum",
}
COSINE = {
    "optimizer.schedule": "cosine",
    "optimizer.warmup_epochs": 5.0,
    "optimizer.warmup_start": 1e-6,
}
ONE_CYCLE = {
    "optimizer.schedule": "onecycle",
    "optimizer.peak_fraction": 0.2,
    "optimizer.divide_factor": 25.0,
}


@pytest.mark.parametrize(
    ("file", "recipe", "batch", "rate", "dtype", "schedule"),
    [
        (lcnet, "coco", 64, 1e-4, "bfloat16", COSINE),
        (hgnetv2, "coco", 64, 1e-4, "bfloat16", COSINE),
        (hgnetv2, "coco_b4", 64, 1e-4, "bfloat16", COSINE),
        (hgnetv2, "coco_b6", 32, 1e-4, "bfloat16", COSINE),
        (resnet, "coco", 64, 1e-4, "bfloat16", COSINE),
        (resnet, "coco_101", 56, 1e-4, "bfloat16", ONE_CYCLE),
        (clip_vit, "coco", 16, 5e-5, "float32", COSINE),
    ],
)
def test_a_recipe_for_coco_has_the_originals_values(file, recipe, batch, rate, dtype, schedule):
    wanted = COMMON | schedule
    wanted |= {"train.batch_size": GPUS * batch, "optimizer.learning_rate": rate}
    wanted |= {"model.dtype": dtype}
    config = file.get_config(recipe)
    found = {}
    for key in wanted:
        value = config
        for part in key.split("."):
            value = value[part]
        found[key] = value
    assert found == wanted
