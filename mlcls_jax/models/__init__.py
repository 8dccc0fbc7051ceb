"""Models by name: `create("PP-LCNet_x1_0_ML", num_classes=80)(images)` gives logits."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from mlcls_jax.config import Model as ModelConfig
from mlcls_jax.config import model_from_dict
from mlcls_jax.models.network import Model, Network, flatten, unflatten
from mlcls_jax.models.registry import default_size, list_models
from mlcls_jax.models.weights import load

__all__ = ["Model", "Network", "create", "from_config", "list_models", "with_labels"]


def create(
    name: str,
    *,
    num_classes: int,
    query_num: int = 80,
    image_size: int | tuple[int, int] | None = None,
    seed: int = 0,
    quick_gelu: bool | None = None,
    memory: Literal["patches", "first_patch"] | None = None,
    strides: Sequence[int] | None = None,
    weights: str | Path | Mapping[str, np.ndarray] | None = None,
) -> Model:
    """A model, to be called as `model(images, train=False)`.

    Args:
      name: one of `list_models()`; `*_ML` has the ML-Decoder head, else mean pooling.
      num_classes: number of labels K.
      query_num: queries of the ML-Decoder; at most one a label is used.
      image_size: side, or (height, width), that it is meant for; None: 448 for `*_ML`, else 224.
      seed: of the initial weights.
      quick_gelu: CLIP: OpenAI's activation; None: exact GELU, or as imported weights want it.
      memory: CLIP: tokens that the ML-Decoder sees; None: all, or as imported weights want it.
      strides: 1 or 2 of stem and each stage; None: the architecture's.
      weights: what `mlcls_jax.models.weights.load` takes; None: random weights.

    Raises:
      ConfigError: unknown name, with the nearest right one, or an impossible number.
      WeightsError: the weights cannot be read, or do not fit.
    """
    size = default_size(name) if image_size is None else image_size
    size = (size, size) if isinstance(size, int) else tuple(size)
    values = {"name": name, "num_classes": num_classes, "query_num": query_num, "image_size": size}
    values |= {"quick_gelu": quick_gelu, "memory": memory}
    values |= {"strides": None if strides is None else tuple(strides)}
    model = from_config(model_from_dict(values), seed=seed)
    if weights is not None:
        load(model, weights)
    return model


def from_config(config: ModelConfig, *, seed: int = 0) -> Model:
    """The model that a `model` section describes, with random weights."""
    network = Network.of(config)
    return Model(network, jax.device_put(network.init(seed)))


def with_labels(model: Model, text_embeddings: np.ndarray) -> Model:
    """The same model for other labels, given by their text embeddings.

    How well labels are told apart that training never saw depends on the embeddings: the head has
    learnt to look for what their directions mean, as far as the labels it was trained on span them.

    Args:
      model: one whose ML-Decoder makes its queries from text (`model.text_embeddings`).
      text_embeddings: [labels, size], by the encoder that made the embeddings of training.

    Raises:
      ValueError: the model's queries are not made from text, or the embeddings have another size.
    """
    config, shape = model.network.config, np.shape(text_embeddings)
    if config.text_dim is None:
        raise ValueError(f"{config.name}: its queries are not made from text embeddings")
    if len(shape) != 2 or shape[1] != config.text_dim:
        raise ValueError(f"text_embeddings must be [labels, {config.text_dim}], not {shape}")
    config = dataclasses.replace(config, num_classes=shape[0], text_embeddings=None)
    network = Network.of(config)
    arrays = flatten(model.variables) | {"head/text_embed": jnp.asarray(text_embeddings)}
    return Model(network, unflatten(arrays, network.abstract))
