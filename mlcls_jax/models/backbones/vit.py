"""Vision transformers (Dosovitskiy et al., 2020): one network, whose options make each of them.

Positions are embeddings that are stored for one grid of patches and resampled to that of the images
at hand in every forward pass, or rotations of queries and keys that are computed for it (RoPE).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from mlcls_jax.models.chain import attach
from mlcls_jax.models.dropout import Draws, drop_path
from mlcls_jax.models.family import Parts
from mlcls_jax.models.initial import ZEROS, Constant, Normal, kaiming_normal, param
from mlcls_jax.models.kernels import PLAIN
from mlcls_jax.models.layers import Linear, attend, cast, gelu, heads, quick_gelu
from mlcls_jax.models.norms import LayerNorm
from mlcls_jax.models.positions import Rotation, resample_positions, rotate, rotation

SMALL = Normal(0.02)


@dataclass(frozen=True, kw_only=True)
class ViTConfig:
    """Sizes, and what sets one vision transformer apart from another."""

    patch_size: int = 16
    width: int = 768
    depth: int = 12
    num_heads: int = 12
    hidden: int = 3072  # width between the two linear layers of a block
    epsilon: float = 1e-6
    class_token: bool = True
    registers: int = 0
    # Tokens that have position embeddings; "class": those before the patches as well.
    embedded: Literal["class", "patches", "none"] = "class"
    grid: int = 14  # patches a side for which they are stored
    resampling: Literal["timm", "paddle"] = "timm"
    rope: Literal["none", "eva02", "dinov3"] = "none"
    pre_norm: bool = False  # before the first block, in place of a bias of the patches
    post_norm: bool = False  # a block's norms come after attention and layers, not before
    final_norm: bool = True
    attention_norm: bool = False  # of what attention gives, before its projection
    hidden_norm: bool = False  # between the two linear layers
    layer_scale: float | None = None  # what it begins with
    qkv_bias: Literal["all", "query_value", "none"] = "all"
    gated: bool = False  # SwiGLU: two of three layers come in and are multiplied
    activation: Literal["gelu", "tanh_gelu"] = "gelu"
    quick_gelu: bool = False
    causal: bool = False  # each token sees those before it alone: a text
    # What the plain classifier sees: the class token, the mean, or what a query attends to.
    pooling: Literal["token", "mean", "attention"] = "token"
    norm_after_pooling: bool = False
    memory: Literal["patches", "first_patch"] = "patches"  # of the ML-Decoder
    # timm's files hold these apart, not as one matrix.
    qkv_apart: bool = False
    gate_apart: bool = False
    drop_path: float = 0.0

    @property
    def prefix(self) -> int:
        """Tokens before those of the patches."""
        return self.class_token + self.registers


class ViT(nnx.Module):
    """images [B, H, W, 3] → features [B, h, w, C]: all patches, or one token as a 1 x 1 map.

    With `pool`, as before the plain classifier, that is what `pooling` says; a mean that is not
    normalised afterwards is left to the classifier.
    """

    def __init__(
        self, config: ViTConfig, *, pool: bool = False, dtype: jnp.dtype | None = None
    ) -> None:
        size, width = config.patch_size, config.width
        self.patch_kernel = param((size, size, 3, width), kaiming_normal(size**2 * 3))
        self.patch_bias = None if config.pre_norm else param((width,), ZEROS)
        count = config.grid**2 + config.prefix * (config.embedded == "class")
        self.pos_embed = param((1, count, width), SMALL) if config.embedded != "none" else None
        self.cls_token = param((1, 1, width), SMALL) if config.class_token else None
        self.reg_token = param((1, config.registers, width), SMALL) if config.registers else None
        norm = partial(LayerNorm, width, epsilon=config.epsilon)
        self.ln_pre = norm() if config.pre_norm else None
        blocks = ({f"block{n}": Block(config, dtype=dtype)} for n in range(config.depth))
        stages = attach(self, blocks, config.drop_path)
        self.norm = norm() if config.final_norm else _same
        has_query = pool and config.pooling == "attention"
        self.attention_pool = AttentionPool(config, dtype=dtype) if has_query else None
        self.channels, self.config, self.pool, self.dtype = width, config, pool, dtype
        self.kernels = PLAIN
        stem = ("patch_kernel", "patch_bias", "cls_token", "reg_token", "pos_embed", "ln_pre")
        self.parts = Parts(
            stem=tuple(path for path in stem if getattr(self, path) is not None),
            stages=stages,
            outputs=("norm",) * config.final_norm + ("attention_pool",) * has_query,
        )

    def __call__(
        self, images: Float[Array, "B H W 3"], *, train: bool = False, draws: Draws | None = None
    ) -> Float[Array, "B h w C"]:
        x, grid = self.tokens(images, draws=draws)
        config, patches = self.config, x[:, self.config.prefix :]
        if self.attention_pool is not None:
            x, grid = self.attention_pool(self.norm(patches)), (1, 1)
        elif self.pool and config.pooling == "token":
            x, grid = self.norm(x[:, :1]), (1, 1)
        elif self.pool and config.norm_after_pooling:
            wide = jnp.promote_types(x.dtype, jnp.float32)
            x, grid = self.norm(patches.mean(1, keepdims=True, dtype=wide)), (1, 1)
        elif not self.pool and config.memory == "first_patch":
            x, grid = self.norm(patches[:, :1]), (1, 1)
        else:
            x = self.norm(patches)
        return x.reshape(x.shape[0], *grid, -1)

    def tokens(
        self, images: Float[Array, "B H W 3"], *, draws: Draws | None = None
    ) -> tuple[Float[Array, "B N C"], tuple[int, int]]:
        """All tokens after the last block, patches last, and the grid of the patches."""
        config, size = self.config, self.config.patch_size
        x = pad_to_patches(images, size)
        batch, height, width, _ = x.shape
        grid = (height // size, width // size)
        # A convolution whose stride is its kernel: cut into patches, one matrix product.
        x = x.reshape(batch, grid[0], size, grid[1], size, 3).transpose(0, 1, 3, 2, 4, 5)
        x = cast(x.reshape(batch, grid[0] * grid[1], -1), self.dtype)
        x = x @ cast(self.patch_kernel[...], self.dtype).reshape(-1, self.channels)
        if self.patch_bias is not None:
            x = x + self.patch_bias[...].astype(x.dtype)
        positions = None
        if self.pos_embed is not None:
            positions = resample_positions(
                self.pos_embed[...], config.grid, grid, antialias=config.resampling == "timm"
            ).astype(x.dtype)
        if positions is not None and config.embedded == "patches":
            x = x + positions
        first = [token for token in (self.cls_token, self.reg_token) if token is not None]
        first = [jnp.broadcast_to(t[...].astype(x.dtype), (batch, *t.shape[1:])) for t in first]
        x = jnp.concatenate([*first, x], axis=1) if first else x  # [B, N, C]
        if positions is not None and config.embedded == "class":
            x = x + positions
        x = self.kernels.rows(x)
        x = x if self.ln_pre is None else self.ln_pre(x)
        options: dict[str, Any] = {"draws": draws}
        if config.rope != "none":
            dim = config.width // config.num_heads
            options["turn"] = rotation(config.rope, grid, dim, prefix=config.prefix)
        for (path,) in self.parts.stages:
            x = getattr(self, path)(x, **options)
        return x, grid


class Block(nnx.Module):
    """Transformer block: attention, then two linear layers on each token."""

    drop_path = 0.0

    def __init__(self, config: ViTConfig, *, dtype: jnp.dtype | None) -> None:
        width, hidden = config.width, config.hidden
        norm = partial(LayerNorm, epsilon=config.epsilon)
        self.norm1, self.norm2 = norm(width), norm(width)
        linear = partial(Linear, initial=SMALL, dtype=dtype)
        columns, rows = _shared(config)
        self.qkv = linear(width, 3 * width, shared="columns", bias=config.qkv_bias == "all")
        has_two = config.qkv_bias == "query_value"
        self.q_bias = param((width,), ZEROS) if has_two else None
        self.v_bias = param((width,), ZEROS) if has_two else None
        self.attention_norm = norm(width) if config.attention_norm else None
        self.proj = linear(width, width, shared="rows")
        self.fc1 = linear(width, hidden * (1 + config.gated), shared=columns)
        self.hidden_norm = norm(hidden) if config.hidden_norm else None
        self.fc2 = linear(hidden, width, shared=rows)
        scale = None if config.layer_scale is None else Constant(config.layer_scale)
        self.scale1, self.scale2 = (scale and param((width,), scale) for _ in range(2))
        self.config, self.activation = config, _activation(config)
        self.kernels = PLAIN

    def __call__(
        self, x: Float[Array, "B N C"], *, turn: Rotation | None = None, draws: Draws | None = None
    ) -> Float[Array, "B N C"]:
        dropped = partial(drop_path, rate=self.drop_path, draws=draws)
        if self.config.post_norm:
            x = x + dropped(self.norm1(self.attention(x, turn)))
            return x + dropped(self.norm2(self.layers(x)))
        x = x + dropped(_scaled(self.attention(self.norm1(x), turn), self.scale1))
        return x + dropped(_scaled(self.layers(self.norm2(x)), self.scale2))

    def attention(self, x: Float[Array, "B N C"], turn: Rotation | None) -> Float[Array, "B N C"]:
        """Attention of each token over all, with positions as rotations if they are such."""
        count, x = self.config.num_heads, self.qkv(x)
        q, k, v = jnp.split(x, 3, axis=-1)
        if self.q_bias is not None and self.v_bias is not None:
            q, v = (t + b[...].astype(t.dtype) for t, b in ((q, self.q_bias), (v, self.v_bias)))
        if turn is not None:
            q, k = (rotate(heads(t, count), turn).reshape(t.shape) for t in (q, k))
        kernels = self.kernels
        if self.config.causal:  # plain products: texts are short
            kernels = replace(kernels, attend=partial(PLAIN.attend, causal=True))
        x = attend(q, k, v, num_heads=count, kernels=kernels)
        return self.proj(x if self.attention_norm is None else self.attention_norm(x))

    def layers(self, x: Float[Array, "B N C"]) -> Float[Array, "B N C"]:
        """Two linear layers, of which the first may be gated."""
        x = self.fc1(x)
        if self.config.gated:
            gate, x = jnp.split(x, 2, axis=-1)
            x = jax.nn.silu(gate) * x
        else:
            x = self.activation(x)
        return self.fc2(x if self.hidden_norm is None else self.hidden_norm(x))


class AttentionPool(nnx.Module):
    """What one learnt query attends to, then two linear layers: SigLIP's MAP head."""

    def __init__(self, config: ViTConfig, *, dtype: jnp.dtype | None) -> None:
        width, linear = config.width, partial(Linear, initial=SMALL, dtype=dtype)
        self.latent = param((1, 1, width), Normal(width**-0.5))
        self.q, self.kv = linear(width, width), linear(width, 2 * width)
        self.proj, self.norm = linear(width, width), LayerNorm(width, epsilon=config.epsilon)
        self.fc1, self.fc2 = linear(width, config.hidden), linear(config.hidden, width)
        self.num_heads, self.activation, self.kernels = config.num_heads, _activation(config), PLAIN

    def __call__(self, x: Float[Array, "B N C"]) -> Float[Array, "B 1 C"]:
        query = jnp.broadcast_to(self.latent[...].astype(x.dtype), (x.shape[0], 1, x.shape[2]))
        k, v = jnp.split(self.kv(x), 2, axis=-1)
        x = attend(self.q(query), k, v, num_heads=self.num_heads, kernels=self.kernels)
        x = self.proj(x)
        return x + self.fc2(self.activation(self.fc1(self.norm(x))))


def _same(x: Array) -> Array:
    return x


def _activation(config: ViTConfig) -> Callable[[Array], Array]:
    if config.quick_gelu:
        return quick_gelu
    return gelu if config.activation == "gelu" else partial(jax.nn.gelu, approximate=True)


def _shared(config: ViTConfig) -> tuple[Literal["columns"] | None, Literal["rows"] | None]:
    """What tensor devices share of the two linear layers: nothing of an odd number of columns."""
    return ("columns", "rows") if config.hidden % 8 == 0 else (None, None)


def _scaled(x: Array, scale: nnx.Variable | None) -> Array:
    return x if scale is None else x * scale[...].astype(x.dtype)


def pad_to_patches(images: Float[Array, "B H W 3"], size: int) -> Float[Array, "B h w 3"]:
    """Zeros at bottom and right where needed; Paddle's then pads both sides, if by a patch."""
    height, width = images.shape[1:3]
    if height % size == width % size == 0:
        return images
    pads = [(0, size - side % size) for side in (height, width)]
    return jnp.pad(images, ((0, 0), *pads, (0, 0)))
