"""Query2Label (Liu et al., 2021): a transformer whose decoder asks for each label by a query.

Encoder layers mix the cells of the feature map; each decoder layer lets the queries attend to them,
without attention among the queries, as the original's default.
"""

from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from mlcls_jax.config import Model
from mlcls_jax.errors import ConfigError
from mlcls_jax.models.dropout import Draws, dropout
from mlcls_jax.models.initial import ZEROS, Normal, param, small_uniform, xavier_uniform
from mlcls_jax.models.layers import Linear
from mlcls_jax.models.ml_decoder import Attention
from mlcls_jax.models.norms import LayerNorm
from mlcls_jax.models.weight_names import NameTable, own_names


class Query2Label(nnx.Module):
    """features [B, h, w, C] → logits [B, K]."""

    has_evidence: ClassVar[bool] = True
    entry: ClassVar[str | None] = "input_proj/kernel"
    label_bias: ClassVar[str] = "bias"

    def __init__(self, in_channels: int, model: Model, *, dtype: jnp.dtype | None = None) -> None:
        dim, labels = model.embed_dim, model.num_classes or 0
        if dim % 4:
            raise ConfigError(f"model.embed_dim={dim}: {model.name} needs a multiple of 4")
        self.input_proj = Linear(in_channels, dim, dtype=dtype)
        self.encoders = tuple(f"encoder{index}" for index in range(model.encoder_depth))
        self.decoders = tuple(f"decoder{index}" for index in range(model.decoder_depth))
        for path in (*self.encoders, *self.decoders):
            setattr(self, path, Layer(model, dtype=dtype))
        self.norm = LayerNorm(dim)
        self.query_embed = param((labels, dim), Normal(1.0), tensor_axis=0)
        self.kernel = param((labels, dim), small_uniform(dim), tensor_axis=0)
        self.bias = param((labels,), ZEROS)

    def __call__(
        self, features: Float[Array, "B h w C"], *, draws: Draws | None = None
    ) -> Float[Array, "B K"]:
        x, memory, places = self.start(features, draws)
        for path in self.decoders:
            x = getattr(self, path)(x, self.queries(x), memory, places, draws=draws)
        x = self.norm(x)
        x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        return (x * self.kernel[...]).sum(-1) + self.bias[...]

    def start(
        self, features: Float[Array, "B h w C"], draws: Draws | None
    ) -> tuple[Float[Array, "B K D"], Float[Array, "B N D"], Float[Array, "N D"]]:
        """Return what the first decoder layer meets: zeros, the memory, and where its cells lie."""
        batch, height, width, channels = features.shape
        memory = self.input_proj(features.reshape(batch, -1, channels))
        places = jnp.asarray(waves(height, width, memory.shape[-1]), memory.dtype)
        for path in self.encoders:
            memory = getattr(self, path)(memory, places, memory, places, draws=draws)
        x = jnp.zeros((batch, *self.query_embed.shape), memory.dtype)
        return x, memory, places

    def queries(self, x: Float[Array, "B K D"]) -> Float[Array, "K D"]:
        """Return the labels' queries, of the type of `x`."""
        return self.query_embed[...].astype(x.dtype)

    def evidence(self, features: Float[Array, "B h w C"]) -> Float[Array, "B K h w"]:
        """Return the last layer's attention per label, averaged over heads; maps sum to 1."""
        x, memory, places = self.start(features, None)
        *before, last = self.decoders
        for path in before:
            x = getattr(self, path)(x, self.queries(x), memory, places, draws=None)
        attention = getattr(self, last).attention
        maps = attention.weights(x + self.queries(x), memory + places).mean(1)  # [B, K, N]
        return maps.reshape(*maps.shape[:2], *features.shape[1:3])

    def names(self, origin: str) -> NameTable:
        """Return where each parameter is found in a file, which no one else writes."""
        return own_names(self)


class Layer(nnx.Module):
    """Post-norm: attention to a memory, in the encoder to itself, then two linear layers."""

    def __init__(self, model: Model, *, dtype: jnp.dtype | None) -> None:
        dim, hidden, self.dropout = model.embed_dim, model.hidden_dim, model.head_dropout
        self.attention = Attention(dim, model.num_heads, self.dropout, dtype=dtype)
        initial = xavier_uniform(dim, hidden)
        self.linear1 = Linear(dim, hidden, initial=initial, shared="columns", dtype=dtype)
        self.linear2 = Linear(hidden, dim, initial=initial, shared="rows", dtype=dtype)
        self.norm1, self.norm2 = LayerNorm(dim), LayerNorm(dim)

    def __call__(
        self,
        x: Float[Array, "B Q D"],
        own: Float[Array, "*Q D"],
        memory: Float[Array, "B N D"],
        places: Float[Array, "N D"],
        *,
        draws: Draws | None,
    ) -> Float[Array, "B Q D"]:
        found = self.attention(x + own, memory + places, values=memory, draws=draws)
        x = self.norm1(x + dropout(found, self.dropout, draws))
        hidden = dropout(jax.nn.relu(self.linear1(x)), self.dropout, draws)
        return self.norm2(x + dropout(self.linear2(hidden), self.dropout, draws))


def waves(height: int, width: int, dim: int) -> Float[np.ndarray, "N D"]:
    """Return DETR's embedding of the cells of a map: half by their row, half by their column.

    Sines and cosines of 2 pi times the part of the map, of wavelengths that grow up to 10,000.
    """
    parts = []
    for count in (height, width):
        angles = 2 * np.pi * np.arange(1, count + 1) / (count + 1e-6)
        periods = 10_000.0 ** (np.arange(0, dim // 2, 2) / (dim // 2))
        angles = angles[:, None] / periods  # [count, dim / 4]
        parts.append(np.stack([np.sin(angles), np.cos(angles)], -1).reshape(count, -1))
    rows, columns = parts
    grid = [np.broadcast_to(rows[:, None], (height, width, rows.shape[1])),
            np.broadcast_to(columns, (height, width, columns.shape[1]))]  # fmt: skip
    return np.concatenate(grid, -1).reshape(height * width, -1)
