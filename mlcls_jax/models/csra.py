"""Class-specific residual attention (Zhu and Wu, 2021).

A label's score is the mean of its scores over the map, plus a share of what its attention finds.
"""

import math
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from mlcls_jax.config import Model
from mlcls_jax.errors import ConfigError
from mlcls_jax.models.dropout import Draws
from mlcls_jax.models.initial import ZEROS, param, small_uniform
from mlcls_jax.models.kernels import PLAIN
from mlcls_jax.models.layers import cast, heads
from mlcls_jax.models.weight_names import NameTable, own_names

# Number of heads → how sharply each attends; at infinity to the best cell alone.
TEMPERATURES = {
    1: (1.0,),
    2: (1.0, math.inf),
    4: (1.0, 2.0, 4.0, math.inf),
    6: (1.0, 2.0, 3.0, 4.0, 5.0, math.inf),
    8: (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, math.inf),
}


class CSRA(nnx.Module):
    """features [B, h, w, C] → logits [B, K]."""

    has_evidence: ClassVar[bool] = True
    entry: ClassVar[str | None] = None  # only the directions of its kernel count
    label_bias: ClassVar[str] = "bias"

    def __init__(self, in_channels: int, model: Model, *, dtype: jnp.dtype | None = None) -> None:
        count, self.share, self.dtype = model.num_heads, model.csra_lambda, dtype
        if count not in TEMPERATURES:
            raise ConfigError(
                f"model.num_heads={count}: {model.name} has {', '.join(map(str, TEMPERATURES))}"
            )
        self.temperatures, labels = TEMPERATURES[count], model.num_classes or 0
        self.num_soft = sum(map(math.isfinite, self.temperatures))  # the last may be sharp
        shape = (in_channels, count * labels)
        self.kernel = param(shape, small_uniform(in_channels), tensor_axis=1)
        self.bias = param((labels,), ZEROS)  # not in the original, which starts from 0 as well
        self.kernels = PLAIN

    def __call__(
        self, features: Float[Array, "B h w C"], *, draws: Draws | None = None
    ) -> Float[Array, "B K"]:
        scores = self.scores(features)
        soft = scores[:, :, : self.num_soft]
        found = scores.mean(1).sum(1) + self.share * (soft * self.shares(soft)).sum((1, 2))
        if self.num_soft < len(self.temperatures):
            found = found + self.share * scores[:, :, self.num_soft :].max(1).sum(1)
        return found + self.bias[...]

    def evidence(self, features: Float[Array, "B h w C"]) -> Float[Array, "B K h w"]:
        """Return the attention of each label, averaged over heads; maps sum to 1."""
        scores = self.scores(features)
        maps = self.shares(scores[:, :, : self.num_soft]).sum(2)  # [B, N, K]
        if self.num_soft < len(self.temperatures):
            maps = maps + jax.nn.one_hot(scores[:, :, -1].argmax(1), maps.shape[1], axis=1)
        maps = maps.transpose(0, 2, 1) / len(self.temperatures)
        return maps.reshape(*maps.shape[:2], *features.shape[1:3])

    def scores(self, features: Float[Array, "B h w C"]) -> Float[Array, "B N heads K"]:
        """Return the length of each cell's features along the direction of each label."""
        kernel = cast(self.kernel[...], self.dtype)
        cells = cast(features.reshape(features.shape[0], -1, features.shape[-1]), self.dtype)
        scores = self.kernels.matmul(cells, kernel)
        # Float32 or better, whatever the compute dtype: mAP ranks them.
        scores = scores.astype(jnp.promote_types(scores.dtype, jnp.float32))
        lengths = jnp.sqrt(jnp.square(self.kernel[...]).sum(0))
        return heads(scores / jnp.maximum(lengths, 1e-12), len(self.temperatures))

    def shares(self, scores: Float[Array, "B N soft K"]) -> Float[Array, "B N soft K"]:
        """Return the share of each cell in a label's score; over cells they sum to 1."""
        sharpness = jnp.array(self.temperatures[: self.num_soft], scores.dtype)
        return jax.nn.softmax(scores * sharpness[:, None], axis=1)

    def names(self, origin: str) -> NameTable:
        """Return where each parameter is found in a file, which no one else writes."""
        return own_names(self)
