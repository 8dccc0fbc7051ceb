"""Recipes, a file per family, and here the parts that they share.

`configs/lcnet.py:mlcls` is `get_config("mlcls")` of `recipes/lcnet.py`: the files in `configs/`
hand it on, and `lcnet:mlcls` means the same where there are none, as beside an installed wheel.

Each returns a `ConfigDict` of `mlcls_jax.config.default()`, whose keys no type checker knows.
"""

from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from types import FunctionType
from typing import Any, Literal

from ml_collections import ConfigDict

from mlcls_jax import errors
from mlcls_jax.config import default
from mlcls_jax.errors import ConfigError

# `lcnet` and its path, for each family.
FILES = {path.stem: str(path) for path in sorted(Path(__path__[0]).glob("[!_]*.py"))}

# The originals were trained on four GPUs; their batch sizes are per GPU, ours are totals.
ORIGINAL_GPUS = 4


@cache
def names() -> tuple[str, ...]:
    """Return the names of all recipes, `lcnet:coco` for instance."""
    modules = {file: import_module(f"{__name__}.{file}") for file in FILES}
    return tuple(f"{file}:{name}" for file, module in modules.items() for name in _of(vars(module)))


def _of(namespace: Mapping[str, Any]) -> dict[str, Callable[[], ConfigDict]]:
    """Return the recipes of a file: its own functions but `get_config` and private ones."""
    functions = (f for f in namespace.values() if isinstance(f, FunctionType))
    own = {f.__name__: f for f in functions if f.__module__ == namespace["__name__"]}
    return {name: f for name, f in own.items() if name != "get_config" and name[0] != "_"}


def load(name: str) -> ConfigDict:
    """Return the recipe of this name, `lcnet:coco` for instance; the demo without a second part.

    Raises:
      ConfigError: there is none; names the nearest.
    """
    file, colon, recipe = name.partition(":")
    if f"{file}:{recipe}" in names() or (file in FILES and not colon):
        return import_module(f"{__name__}.{file}").get_config(*[recipe] * bool(recipe))
    there = [known for known in names() if known.startswith(f"{file}:")] or names()
    close = errors.nearest(name, there)
    hint = f"did you mean {close}?" if close else f"there are {', '.join(there)}"
    raise ConfigError(f"{name}: there is no such recipe; {hint}")


def one_of(namespace: Mapping[str, Any], name: str) -> ConfigDict:
    """Return the recipe of this name among the functions of a configuration file, its `globals()`.

    Raises:
      ValueError: there is none; names those that there are.
    """
    recipes = _of(namespace)
    if name not in recipes:
        file = f"configs/{Path(namespace['__file__']).name}"
        raise ValueError(f"{file}:{name}: there are {', '.join(recipes)}")
    return recipes[name]()


def ml_decoder_recipe(
    *,
    name: str,
    batch_size: int,
    learning_rate: float = 1e-4,
    schedule: Literal["cosine", "onecycle"] = "cosine",
) -> Any:
    """Return the originals' recipe (PaddleClas, MultiLabelCOCO/MLDecoder) for own data.

    448 x 448, Cutout and RandAugmentV4, AdamW, asymmetric loss, EMA.
    """
    config: Any = default()
    config.model.name = name
    config.model.weights = "auto"
    config.model.image_size = (448, 448)
    config.data.source = "mlcls"
    config.data.augment = ("cutout", "randaugment_v4")
    config.train.epochs = 40
    config.train.batch_size = batch_size
    config.train.ema_decay = 0.9997
    config.optimizer.learning_rate = learning_rate
    config.optimizer.weight_decay = 1e-4
    config.optimizer.schedule = schedule
    config.optimizer.end_learning_rate = 1e-10
    config.optimizer.warmup_epochs = 5.0  # cosine
    config.optimizer.warmup_start = 1e-6
    config.optimizer.peak_fraction = 0.2  # onecycle
    config.optimizer.divide_factor = 25.0
    config.loss.name = "asymmetric"
    config.loss.gamma_pos, config.loss.gamma_neg, config.loss.clip = 0.0, 4.0, 0.05
    return config


def coco_recipe(
    *, batch_size: int, dtype: Literal["float32", "bfloat16"] = "bfloat16", **recipe: Any
) -> Any:
    """Return the recipe for COCO-2017; `batch_size` is per GPU.

    80 labels, one query per label. docs/models.md compares it with PaddleClas' value by value.
    `recipe` is as in `ml_decoder_recipe`.

    bfloat16 stands for the originals' float16; it needs no loss scaling.
    """
    config = ml_decoder_recipe(batch_size=ORIGINAL_GPUS * batch_size, **recipe)
    config.model.weights = "backbone"  # the official ones have been trained on COCO already
    config.model.initial = "paddle"
    config.data.train_resize = "exact"
    config.train.ema_warmup = False
    config.check_dataset.convert.crowd = True
    config.model.num_classes = 80
    config.model.query_num = 80
    config.model.dtype = dtype
    return config


def paper_recipe(*, protocol: str, name: str, num_classes: int) -> Any:
    """Return the ML-Decoder paper's recipe on a public data set (Ridnik et al., 2021).

    448 x 448, 56 images, OneCycle up to 1e-4. Its pixels are between 0 and 1; here they have
    ImageNet's mean and deviation, as the backbone's weights expect.
    """
    config = coco_recipe(name=name, batch_size=64, schedule="onecycle")
    config.model.num_classes = num_classes
    config.model.query_num = min(num_classes, 200)
    config.check_dataset.protocol = protocol
    config.train.batch_size = 56
    return config


def single_label_recipe(
    *, name: str, epochs: int, batch_size: int, learning_rate: float, weight_decay: float
) -> Any:
    """Return the originals' ImageNet recipe for own single-label images.

    224 x 224, crops and flips, SGD with momentum, smoothed cross-entropy. `learning_rate` is meant
    for the original's `batch_size` on each of four GPUs, and follows train.batch_size. Crops keep
    half the area or more, the original's 8 %. Evaluation scales the short side to 256 and cuts out
    the middle, as the original, but averages when it shrinks.
    """
    config: Any = default()
    config.model.name = name
    config.model.task = "single"
    config.model.initial = "paddle"
    config.model.image_size = (224, 224)
    config.data.source = "mlcls"
    config.data.fit, config.data.resize_short = "crop", 256
    config.data.augment = ("random_resized_crop", "flip")
    config.train.epochs = epochs
    config.train.batch_size = 256
    config.train.ema_decay = 0.0
    config.optimizer.name = "momentum"
    config.optimizer.momentum = 0.9
    config.optimizer.learning_rate = learning_rate
    config.optimizer.rate_scaling = "linear"
    config.optimizer.base_batch_size = ORIGINAL_GPUS * batch_size
    config.optimizer.weight_decay = weight_decay
    config.optimizer.schedule = "cosine"
    config.optimizer.end_learning_rate = 0.0
    config.optimizer.warmup_epochs = 5.0
    config.optimizer.warmup_start = 0.0
    config.loss.name = "cross_entropy"
    config.loss.label_smoothing = 0.1
    return config


# What becomes of the backbone on few images, by keys of the configuration.
BACKBONES: dict[str, dict[str, Any]] = {
    "frozen": {
        "train.frozen_backbone": True,
        "data.feature_views": 4,
        "optimizer.learning_rate": 1e-3,
        "optimizer.layer_decay": 1.0,
    },
    "decayed": {  # the head has the full rate
        "train.frozen_backbone": False,
        "data.feature_views": 0,
        "optimizer.learning_rate": 3e-4,
        "optimizer.layer_decay": 0.8,
    },
    "whole": {  # from random weights
        "train.frozen_backbone": False,
        "data.feature_views": 0,
        "optimizer.learning_rate": 1e-3,
        "optimizer.layer_decay": 1.0,
    },
}


def small_recipe(*, name: str) -> Any:
    """Return a recipe for hundreds of own images, of our own.

    224 x 224, a narrow head, crops and flips, early stopping on the metric, thresholds that are
    chosen at the end. The backbone is frozen; `recipe_choice` picks what else becomes of it.
    """
    config = ml_decoder_recipe(name=name, batch_size=32)
    config.model.image_size = (224, 224)
    # A head for few labels of few images, a tenth as dear as the originals'.
    config.model.embed_dim = 256
    config.model.hidden_dim = 512
    config.model.query_num = 20
    config.data.augment = ("random_resized_crop", "flip")
    config.train.epochs = 60
    config.train.patience = 12
    config.train.ema_decay = 0.99
    config.train.fit_thresholds = "always"
    config.optimizer.weight_decay = 1e-2
    config.optimizer.warmup_epochs = 2.0
    config.update_from_flattened_dict(BACKBONES["frozen"])
    return config


def digits_demo(*, name: str) -> Any:
    """Return the demo: boards of digits, 64 x 64, a narrow head: minutes to train."""
    config: Any = default()
    config.model.name = name
    config.model.weights = "none"
    config.model.image_size = (64, 64)
    config.model.embed_dim = 128
    config.model.hidden_dim = 256
    config.model.num_heads = 4
    config.model.head_dropout = 0.0
    config.data.source = "digits"
    config.data.epoch_size = 10_000
    config.data.val_size = 1_000
    config.train.epochs = 5
    config.train.batch_size = 32
    config.train.ema_decay = 0.99
    # Drawn at random, the convolutions want a large rate and the decoder a small one. Both were
    # chosen for these initial values.
    config.model.initial = "paddle"
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
