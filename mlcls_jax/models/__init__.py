"""Models by name: `create("PP-LCNet_x1_0_ML", num_classes=80)(images)` gives logits."""

import jax

from mlcls_jax.config import Model as ModelConfig
from mlcls_jax.config import model_from_dict
from mlcls_jax.models.network import Model, Network
from mlcls_jax.models.registry import list_models

__all__ = ["Model", "Network", "create", "list_models"]

DEFAULT_SIZE = ModelConfig().image_size


def create(
    name: str,
    *,
    num_classes: int,
    query_num: int = 80,
    image_size: int | tuple[int, int] | None = None,
    seed: int = 0,
) -> Model:
    """A model with random weights, to be called as `model(images, train=False)`.

    Args:
      name: one of `list_models()`; `*_ML` has the ML-Decoder head, else mean pooling.
      num_classes: number of labels K.
      query_num: queries of the ML-Decoder; at most one a label is used.
      image_size: side, or (height, width), for which the model is meant; None is 448.
      seed: of the initial weights.

    Raises:
      ConfigError: unknown name, with the nearest right one, or an impossible number.
    """
    size = DEFAULT_SIZE if image_size is None else image_size
    size = (size, size) if isinstance(size, int) else tuple(size)
    values = {"name": name, "num_classes": num_classes, "query_num": query_num, "image_size": size}
    return from_config(model_from_dict(values), seed=seed)


def from_config(config: ModelConfig, *, seed: int = 0) -> Model:
    """The model that a `model` section describes, with random weights."""
    network = Network.of(config)
    return Model(network, jax.device_put(network.init(seed)))
