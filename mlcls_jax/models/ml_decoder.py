"""ML-Decoder: one query a group of labels attends to the feature map (Ridnik et al., 2021).

Matches PaddleClas' implementation; see `MLDecoder.names` for the correspondence of weights.
"""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from mlcls_jax.config import Model
from mlcls_jax.models.dropout import Draws, dropout
from mlcls_jax.models.initial import (
    ZEROS,
    Choice,
    FromFile,
    FrozenParam,
    kaiming_normal,
    param,
    small_uniform,
    xavier_uniform,
)
from mlcls_jax.models.kernels import PLAIN
from mlcls_jax.models.kernels.attention import attention_weights
from mlcls_jax.models.layers import Linear, attend, gelu, heads
from mlcls_jax.models.norms import LayerNorm
from mlcls_jax.models.weight_names import NameTable, renamed

LAYOUTS = {"input_proj/kernel": "conv1x1", "group_kernel": "group"}  # in files; see `Foreign`


@dataclass(frozen=True, kw_only=True)
class MLDecoderConfig:
    """Sizes of the head. The defaults are the originals'."""

    query_num: int = 80  # labels are shared out among min(query_num, num_classes) queries
    embed_dim: int = 768
    hidden_dim: int = 2048
    num_heads: int = 8
    depth: int = 1
    dropout: float = 0.1
    gelu: bool = False  # the activation of the feed-forward part; ReLU otherwise
    self_attention: bool = False  # in the first layer; the original keeps it in all others
    trainable_queries: bool = False  # the original freezes them
    text_dim: int | None = None  # queries are made from text embeddings of this size, one a label
    text_file: str | None = None  # the embeddings [K, text_dim]; None: they come with the weights

    @classmethod
    def of(cls, model: Model) -> "MLDecoderConfig":
        """Return what the `model` section says of the head; its `text_dim` is resolved."""
        return cls(
            query_num=model.query_num,
            embed_dim=model.embed_dim,
            hidden_dim=model.hidden_dim,
            num_heads=model.num_heads,
            depth=model.decoder_depth,
            dropout=model.head_dropout,
            trainable_queries=model.trainable_queries,
            text_dim=model.text_dim,
            text_file=model.text_embeddings,
        )


class MLDecoder(nnx.Module):
    """features [B, h, w, C] → logits [B, K]."""

    has_evidence: ClassVar[bool] = True
    entry: ClassVar[str | None] = "input_proj/kernel"
    label_bias: ClassVar[str] = "group_bias"

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        config: MLDecoderConfig,
        *,
        dtype: jnp.dtype | None = None,
    ) -> None:
        dim = config.embed_dim
        self.num_classes = num_classes
        self.num_queries = min(max(config.query_num, 1), num_classes)
        self.reads_text = config.text_dim is not None
        if self.reads_text:
            self.num_queries = num_classes
        self.group_size = -(-num_classes // self.num_queries)
        self.depth = config.depth
        initial = Choice(small_uniform(in_channels), paddle=kaiming_normal(in_channels))
        self.input_proj = Linear(in_channels, dim, initial=initial, dtype=dtype)
        self.trains_queries = config.trainable_queries
        if config.text_dim is not None:
            text = FromFile(config.text_file) if config.text_file else ZEROS
            self.text_embed = param((num_classes, config.text_dim), text, FrozenParam)
            self.text_proj = Linear(config.text_dim, dim)
        else:
            kind = nnx.Param if self.trains_queries else FrozenParam
            queries = (self.num_queries, dim)
            self.query_embed = param(queries, xavier_uniform(*queries), kind, tensor_axis=0)
        for index in range(config.depth):
            has_self_attention = config.self_attention or index > 0
            layer = DecoderLayer(config, self_attention=has_self_attention, dtype=dtype)
            setattr(self, f"layer{index}", layer)
        # Text queries share one output vector, so that it serves labels it never saw.
        groups = 1 if self.reads_text else self.num_queries
        outputs = groups * self.group_size
        shape = (groups, dim, self.group_size)
        fan = self.group_size * (dim + groups)
        initial = Choice(kaiming_normal(fan), paddle=kaiming_normal(dim + outputs))
        self.group_kernel = param(shape, initial, tensor_axis=0)
        self.group_bias = param((outputs,), ZEROS)

    def __call__(
        self,
        features: Float[Array, "B h w C"],
        *,
        draws: Draws | None = None,
    ) -> Float[Array, "B K"]:
        memory = self.memory(features)
        x = self.queries().astype(memory.dtype)[None]  # [1, Q, D]
        if draws is not None:  # dropout differs by image; without it they share the first steps
            x = jnp.broadcast_to(x, (memory.shape[0], *x.shape[1:]))
        for index in range(self.depth):
            x = getattr(self, f"layer{index}")(x, memory, draws=draws)
        return self.classify(x)

    def evidence(self, features: Float[Array, "B h w C"]) -> Float[Array, "B Q h w"]:
        """Return the last layer's attention per query, averaged over heads; maps sum to 1.

        Label k is answered by query k // g. Beside the logits, in one compiled program, it costs
        one product, since all else is computed for them too.
        """
        memory = self.memory(features)
        x = self.queries().astype(memory.dtype)[None]
        for index in range(self.depth - 1):
            x = getattr(self, f"layer{index}")(x, memory, draws=None)
        maps = getattr(self, f"layer{self.depth - 1}").attention(x, memory)  # [B, Q, N]
        return maps.reshape(*maps.shape[:2], *features.shape[1:3])

    def memory(self, features: Float[Array, "B h w C"]) -> Float[Array, "B N D"]:
        """Return the memory that queries attend to: the projected cells of the feature map."""
        batch, _, _, channels = features.shape
        return jax.nn.relu(self.input_proj(features.reshape(batch, -1, channels)))

    def queries(self) -> Float[Array, "Q D"]:
        """Return the query embeddings: learnt, fixed, or made from the labels' text."""
        if self.reads_text:
            return jax.nn.relu(self.text_proj(jax.lax.stop_gradient(self.text_embed[...])))
        queries = self.query_embed[...]
        return queries if self.trains_queries else jax.lax.stop_gradient(queries)

    def classify(self, x: Float[Array, "B Q D"]) -> Float[Array, "B K"]:
        """Group fully-connected: query i scores labels i * g … i * g + g - 1."""
        # Logits are float32 or better, whatever the compute dtype: mAP ranks them.
        dtype = jnp.promote_types(x.dtype, jnp.float32)
        kernel = self.group_kernel[...].astype(dtype)
        kernel = jnp.broadcast_to(kernel, (self.num_queries, *kernel.shape[1:]))
        logits = jnp.einsum("bqd,qdg->bqg", x.astype(dtype), kernel)
        logits = logits.reshape(x.shape[0], -1) + self.group_bias[...]
        return logits[:, : self.num_classes]

    def names(self, origin: str) -> NameTable:
        """Return where each parameter is found in a Paddle file.

        Other origins have no ML-Decoder of this form; in their files it goes by Paddle's names.
        """
        rules = (
            (r"^layer", "decoder.layers."),
            (r"^query_embed", "query_pos_embed.weight"),
            (r"^text_proj", "wordvec_proj"),  # not in Paddle; this is the PyTorch original's
            (r"^group_kernel", "group_conv.weight"),
            (r"^group_bias", "group_conv.bias"),
        )
        return renamed(self, "paddle", rules, layouts=LAYOUTS)


class DecoderLayer(nnx.Module):
    """Post-norm transformer decoder layer; without self-attention its step one is norm(2 x)."""

    def __init__(
        self,
        config: MLDecoderConfig,
        *,
        self_attention: bool,
        dtype: jnp.dtype | None,
    ) -> None:
        dim = config.embed_dim
        if self_attention:
            self.self_attn = Attention(dim, config.num_heads, config.dropout, dtype=dtype)
        self.cross_attn = Attention(dim, config.num_heads, config.dropout, dtype=dtype)
        self.linear1 = Linear(dim, config.hidden_dim, shared="columns", dtype=dtype)
        self.linear2 = Linear(config.hidden_dim, dim, shared="rows", dtype=dtype)
        self.norm1, self.norm2, self.norm3 = LayerNorm(dim), LayerNorm(dim), LayerNorm(dim)
        self.has_self_attention = self_attention
        self.dropout = config.dropout
        self.activation = gelu if config.gelu else jax.nn.relu

    def __call__(
        self, x: Float[Array, "b Q D"], memory: Float[Array, "B N D"], *, draws: Draws | None
    ) -> Float[Array, "B Q D"]:
        x = self.ask(x, draws)
        x = self.norm2(x + dropout(self.cross_attn(x, memory, draws=draws), self.dropout, draws))
        hidden = dropout(self.activation(self.linear1(x)), self.dropout, draws)
        return self.norm3(x + dropout(self.linear2(hidden), self.dropout, draws))

    def ask(self, x: Float[Array, "b Q D"], draws: Draws | None) -> Float[Array, "b Q D"]:
        """The queries as the cross-attention meets them."""
        own = self.self_attn(x, x, draws=draws) if self.has_self_attention else x
        return self.norm1(x + dropout(own, self.dropout, draws))

    def attention(
        self, x: Float[Array, "b Q D"], memory: Float[Array, "B N D"]
    ) -> Float[Array, "B Q N"]:
        """Return the attention of each query over tokens, averaged over the heads."""
        return self.cross_attn.weights(self.ask(x, None), memory).mean(1)


class Attention(nnx.Module):
    """Multi-head attention. Queries with a batch of one serve every image."""

    def __init__(self, dim: int, num_heads: int, rate: float, *, dtype: jnp.dtype | None) -> None:
        # As if they were one matrix of three times the width.
        initial = Choice(xavier_uniform(dim, 3 * dim), paddle=xavier_uniform(dim, dim))
        self.q_proj = Linear(dim, dim, initial=initial, shared="columns", dtype=dtype)
        self.k_proj = Linear(dim, dim, initial=initial, shared="columns", dtype=dtype)
        self.v_proj = Linear(dim, dim, initial=initial, shared="columns", dtype=dtype)
        self.out_proj = Linear(dim, dim, shared="rows", dtype=dtype)
        self.num_heads, self.dropout = num_heads, rate
        self.kernels = PLAIN

    def __call__(
        self,
        x: Float[Array, "b Q D"],
        memory: Float[Array, "B N D"],
        *,
        values: Float[Array, "B N D"] | None = None,
        draws: Draws | None,
    ) -> Float[Array, "B Q D"]:
        """Return what `x` finds in the memory, or in `values` beside it."""
        q, k = self._queries_and_keys(x, memory)
        v = self.v_proj(memory if values is None else values)
        options = {"num_heads": self.num_heads, "kernels": self.kernels}
        out = attend(q, k, v, **options, rate=self.dropout, draws=draws)
        return self.out_proj(out)

    def weights(
        self, x: Float[Array, "b Q D"], memory: Float[Array, "B N D"]
    ) -> Float[Array, "B heads Q N"]:
        """Return the attention of each query over tokens; rows sum to 1."""
        q, k = (heads(x, self.num_heads) for x in self._queries_and_keys(x, memory))
        return attention_weights(q, k)

    def _queries_and_keys(self, x: Array, memory: Array) -> tuple[Array, Array]:
        q = self.q_proj(x)
        return jnp.broadcast_to(q, (memory.shape[0], *q.shape[1:])), self.k_proj(memory)
