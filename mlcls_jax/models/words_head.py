"""The head of labels that are given as words: what an image has in common with each text."""

from typing import ClassVar

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from mlcls_jax.config import Model
from mlcls_jax.models.dropout import Draws
from mlcls_jax.models.initial import ZEROS, Normal, param
from mlcls_jax.models.weight_names import NameTable, own_names


class WordsHead(nnx.Module):
    """features [B, 1, 1, C] → logits [B, K]: the image's embedding, of length 1, times `kernel`.

    A column of `kernel` is the embedding of a text with the factor of cosines in it. So a label of
    words is a label like any other, which can be exported, served and distilled from.
    """

    has_evidence: ClassVar[bool] = False
    entry: ClassVar[str | None] = None  # a factor on the features changes nothing
    label_bias: ClassVar[str] = "bias"

    def __init__(self, channels: int, model: Model, *, dtype: jnp.dtype | None) -> None:
        size, count = model.text_dim or channels, model.num_classes
        assert count is not None  # `registry.build` has checked it
        self.proj = param((channels, size), Normal(channels**-0.5))
        self.kernel = param((size, count), Normal(1.0))
        self.bias = param((count,), ZEROS)

    def __call__(
        self, features: Float[Array, "B h w C"], *, draws: Draws | None = None
    ) -> Float[Array, "B K"]:
        wide = jnp.promote_types(features.dtype, jnp.float32)
        x = features.mean((1, 2), dtype=wide) @ self.proj[...]
        x = x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-12)
        return x @ self.kernel[...] + self.bias[...]

    def names(self, origin: str) -> NameTable:
        """Return where each parameter is found in our own files; others have text towers there."""
        return own_names(self)
