"""Models by name: `create("PP-LCNet_x1_0_ML", num_classes=80)(images)` gives logits."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import jax
import numpy as np

from mlcls_jax.config import Model as ModelConfig
from mlcls_jax.config import model_from_dict
from mlcls_jax.models.network import Model, Network
from mlcls_jax.models.registry import default_size, list_models
from mlcls_jax.models.relabel import with_labels
from mlcls_jax.models.weights import load

__all__ = ["Model", "Network", "create", "from_config", "list_models", "with_labels"]


def create(
    name: str,
    *,
    num_classes: int,
    query_num: int = 80,
    image_size: int | tuple[int, int] | None = None,
    seed: int = 0,
    initial: Literal["default", "paddle"] = "default",
    quick_gelu: bool | None = None,
    memory: Literal["patches", "first_patch"] | None = None,
    drop_path: float | None = None,
    strides: Sequence[int] | None = None,
    weights: str | Path | Mapping[str, np.ndarray] | None = None,
) -> Model:
    """Create a model, which is called as `model(images, train=False)`.

    Args:
      name: one of `list_models()`; `*_ML` has the ML-Decoder head, the others mean pooling.
      num_classes: number of labels K.
      query_num: queries of the ML-Decoder; at most one per label is used.
      image_size: side, or (height, width), of the images; None: 448 for `*_ML`, else 224.
      seed: seed of the initial weights.
      initial: their distributions: ours, or those of the originals in Paddle.
      quick_gelu: CLIP: use OpenAI's activation; None: exact GELU, or what imported weights need.
      memory: CLIP: tokens that the ML-Decoder attends to; None: all, or what imported weights need.
      drop_path: how often training leaves out the backbone's last block, for each image anew;
        earlier ones less often (stochastic depth).
      strides: 1 or 2 for the stem and each stage; None: those of the architecture.
      weights: anything that `mlcls_jax.models.weights.load` takes; None: random weights.

    Raises:
      ConfigError: unknown name, with the nearest known one, or an impossible number.
      WeightsError: the weights cannot be read, or do not fit.

    Example:
      >>> import numpy as np
      >>> model = create("PP-LCNet_x1_0", num_classes=3, image_size=64)
      >>> model(np.zeros((2, 64, 64, 3), np.uint8)).shape
      (2, 3)
    """
    size = default_size(name) if image_size is None else image_size
    values = {"name": name, "num_classes": num_classes, "query_num": query_num, "image_size": size}
    values |= {"initial": initial, "quick_gelu": quick_gelu, "memory": memory}
    values |= {"drop_path": drop_path}
    values |= {"strides": None if strides is None else tuple(strides)}
    model = from_config(model_from_dict(values), seed=seed)
    if weights is not None:
        load(model, weights)
    return model


def from_config(config: ModelConfig, *, seed: int = 0) -> Model:
    """Create the model that a `model` section describes, with random weights."""
    network = Network.of(config)
    return Model(network, jax.device_put(network.init(seed)))
