"""CLIP's vision transformer (Radford et al., 2021) as in PaddleClas, and with OpenAI's QuickGELU.

The position embedding is stored for the grid of the original resolution and resampled to that of
the images at hand, in every forward pass, as the original does.
"""

import dataclasses
from dataclasses import dataclass
from functools import partial
from typing import Literal

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from mlcls_jax.config import Model
from mlcls_jax.models.dropout import Draws
from mlcls_jax.models.family import Family, Parts
from mlcls_jax.models.initial import Normal, kaiming_normal, param
from mlcls_jax.models.kernels import PLAIN
from mlcls_jax.models.layers import Linear, attend, cast, gelu, quick_gelu
from mlcls_jax.models.norms import LayerNorm
from mlcls_jax.models.positions import resample_positions
from mlcls_jax.models.published import PADDLE, Source, timm
from mlcls_jax.models.weight_names import (
    Foreign,
    NameTable,
    affine_names,
    layer_norm_names,
    linear_layout,
)

SMALL = Normal(0.02)


@dataclass(frozen=True, kw_only=True)
class CLIPViTConfig:
    """Sizes, and which tokens the head sees."""

    patch_size: int = 16
    grid: int = 14  # patches a side at the original resolution
    width: int = 768
    depth: int = 12
    num_heads: int = 12
    quick_gelu: bool = False
    memory: Literal["patches", "first_patch"] = "patches"  # of the ML-Decoder


_B16, _B32 = CLIPViTConfig(), CLIPViTConfig(patch_size=32, grid=7)
_L14 = CLIPViTConfig(patch_size=14, grid=16, width=1024, depth=24, num_heads=16)
VARIANTS = {
    "CLIP_vit_base_patch16_224": _B16,
    "CLIP_vit_base_patch16_448": _B16,
    "CLIP_vit_base_patch32_224": _B32,
    "CLIP_vit_base_patch32_448": _B32,
    "CLIP_vit_large_patch14_224": _L14,
    "CLIP_vit_large_patch14_336": _L14,
}


def adapt(model: Model, origin: str, *, has_decoder: bool) -> Model:
    """The options under which weights of `origin` mean what they meant there, where left open.

    Paddle's ML-Decoder was trained on the first patch token alone; OpenAI's towers on QuickGELU.
    """
    if origin == "paddle" and has_decoder and model.memory is None:
        model = dataclasses.replace(model, memory="first_patch")
    if origin in ("openai", "huggingface") and model.quick_gelu is None:
        model = dataclasses.replace(model, quick_gelu=True)
    return model


class CLIPViT(nnx.Module):
    """images [B, H, W, 3] → features [B, h, w, C]: all patches, or one token as a 1 x 1 map.

    With `pool`, as before the plain classifier, that is the class token.
    """

    def __init__(
        self, config: CLIPViTConfig, *, pool: bool = False, dtype: jnp.dtype | None = None
    ) -> None:
        size, width = config.patch_size, config.width
        self.patch_kernel = param((size, size, 3, width), kaiming_normal(size**2 * 3))
        self.cls_token = param((1, 1, width), SMALL)
        self.pos_embed = param((1, 1 + config.grid**2, width), SMALL)
        self.ln_pre, self.norm = LayerNorm(width), LayerNorm(width)
        paths = [f"block{index}" for index in range(config.depth)]
        for path in paths:
            setattr(self, path, Block(config, dtype=dtype))
        self.channels, self.config, self.pool, self.dtype = width, config, pool, dtype
        self.parts = Parts(
            stem=("patch_kernel", "cls_token", "pos_embed", "ln_pre"),
            stages=tuple((path,) for path in paths),
            outputs=("norm",),
        )

    def __call__(
        self, images: Float[Array, "B H W 3"], *, train: bool = False, draws: Draws | None = None
    ) -> Float[Array, "B h w C"]:
        x, grid = self.tokens(images)
        if self.pool:
            x, grid = x[:, :1], (1, 1)
        elif self.config.memory == "first_patch":
            x, grid = x[:, 1:2], (1, 1)
        else:
            x = x[:, 1:]
        return self.norm(x).reshape(x.shape[0], *grid, -1)

    def tokens(
        self, images: Float[Array, "B H W 3"]
    ) -> tuple[Float[Array, "B N C"], tuple[int, int]]:
        """All tokens after the last block, the class token first, and the grid of the patches."""
        size = self.config.patch_size
        x = pad_to_patches(images, size)
        batch, height, width, _ = x.shape
        grid = (height // size, width // size)
        # A convolution whose stride is its kernel: cut into patches, one matrix product.
        x = x.reshape(batch, grid[0], size, grid[1], size, 3).transpose(0, 1, 3, 2, 4, 5)
        x = cast(x.reshape(batch, grid[0] * grid[1], -1), self.dtype)
        x = x @ cast(self.patch_kernel[...], self.dtype).reshape(-1, self.channels)  # [B, N - 1, C]
        first = jnp.broadcast_to(self.cls_token[...].astype(x.dtype), (batch, 1, self.channels))
        x = jnp.concatenate([first, x], axis=1)
        x = x + resample_positions(self.pos_embed[...], self.config.grid, grid).astype(x.dtype)
        x = self.ln_pre(x)
        for (path,) in self.parts.stages:
            x = getattr(self, path)(x)
        return x, grid


class Block(nnx.Module):
    """Pre-norm transformer block."""

    def __init__(self, config: CLIPViTConfig, *, dtype: jnp.dtype | None) -> None:
        width = config.width
        self.norm1, self.norm2 = LayerNorm(width), LayerNorm(width)
        linear = partial(Linear, initial=SMALL, dtype=dtype)
        self.qkv = linear(width, 3 * width, shared="columns")
        self.proj = linear(width, width, shared="rows")
        self.fc1 = linear(width, 4 * width, shared="columns")
        self.fc2 = linear(4 * width, width, shared="rows")
        self.num_heads = config.num_heads
        self.activation = quick_gelu if config.quick_gelu else gelu
        self.kernels = PLAIN

    def __call__(self, x: Float[Array, "B N C"]) -> Float[Array, "B N C"]:
        q, k, v = jnp.split(self.qkv(self.norm1(x)), 3, axis=-1)
        x = x + self.proj(attend(q, k, v, num_heads=self.num_heads, kernels=self.kernels))
        return x + self.fc2(self.activation(self.fc1(self.norm2(x))))


def pad_to_patches(images: Float[Array, "B H W 3"], size: int) -> Float[Array, "B H W 3"]:
    """Zeros at bottom and right where needed; the original then pads both sides, if by a patch."""
    height, width = images.shape[1:3]
    if height % size == width % size == 0:
        return images
    pads = [(0, size - side % size) for side in (height, width)]
    return jnp.pad(images, ((0, 0), *pads, (0, 0)))


def names(backbone: CLIPViT, origin: str) -> NameTable:
    """Map each parameter to its place in a file of paddle, timm, openai or huggingface.

    Paddle's `proj`, and the other towers' projection into the text space, have no use here.
    """
    return {"openai": _openai_names, "huggingface": _huggingface_names}.get(origin, _timm_names)(
        backbone.config.depth, linear_layout(origin), origin
    )


def _timm_names(depth: int, linear: str, origin: str) -> NameTable:
    table: NameTable = {
        "pos_embed": Foreign("pos_embed", "positions"),
        "cls_token": Foreign("cls_token"),
        "patch_kernel": Foreign("patch_embed.proj.weight", "conv"),
    }
    table |= layer_norm_names("ln_pre", "ln_pre" if origin == "paddle" else "norm_pre")
    layers = {"qkv": "attn.qkv", "proj": "attn.proj", "fc1": "mlp.fc1", "fc2": "mlp.fc2"}
    table |= _block_names(depth, "blocks", {"norm1": "norm1", "norm2": "norm2"}, layers, linear)
    return table | layer_norm_names("norm", "norm")


def _openai_names(depth: int, linear: str, origin: str) -> NameTable:
    table: NameTable = {
        "patch_kernel": Foreign("visual.conv1.weight", "conv"),
        "cls_token": Foreign("visual.class_embedding", "reshape"),
        "pos_embed": Foreign("visual.positional_embedding", "positions"),
    }
    table |= layer_norm_names("ln_pre", "visual.ln_pre")
    table |= layer_norm_names("norm", "visual.ln_post")
    layers = {"proj": "attn.out_proj", "fc1": "mlp.c_fc", "fc2": "mlp.c_proj"}
    blocks = "visual.transformer.resblocks"
    table |= _block_names(depth, blocks, {"norm1": "ln_1", "norm2": "ln_2"}, layers, linear)
    for index in range(depth):
        theirs = f"{blocks}.{index}.attn.in_proj"
        table[f"block{index}/qkv/kernel"] = Foreign(f"{theirs}_weight", linear)
        table[f"block{index}/qkv/bias"] = Foreign(f"{theirs}_bias")
    return table


def _huggingface_names(depth: int, linear: str, origin: str) -> NameTable:
    tower = "vision_model"
    table: NameTable = {
        "patch_kernel": Foreign(f"{tower}.embeddings.patch_embedding.weight", "conv"),
        "cls_token": Foreign(f"{tower}.embeddings.class_embedding", "reshape"),
        "pos_embed": Foreign(f"{tower}.embeddings.position_embedding.weight", "positions"),
    }
    table |= layer_norm_names("ln_pre", f"{tower}.pre_layrnorm")  # their spelling
    table |= layer_norm_names("norm", f"{tower}.post_layernorm")
    layers = {"proj": "self_attn.out_proj", "fc1": "mlp.fc1", "fc2": "mlp.fc2"}
    norms = {"norm1": "layer_norm1", "norm2": "layer_norm2"}
    table |= _block_names(depth, f"{tower}.encoder.layers", norms, layers, linear)
    for index in range(depth):
        theirs = f"{tower}.encoder.layers.{index}.self_attn"
        for ours, part, layout in (("kernel", "weight", linear), ("bias", "bias", "same")):
            parts = tuple(f"{theirs}.{p}_proj.{part}" for p in "qkv")
            table[f"block{index}/qkv/{ours}"] = Foreign(parts, layout)
    return table


def _block_names(
    depth: int, blocks: str, norms: dict[str, str], layers: dict[str, str], linear: str
) -> NameTable:
    table: NameTable = {}
    for index in range(depth):
        for ours, theirs in norms.items():
            table |= layer_norm_names(f"block{index}/{ours}", f"{blocks}.{index}.{theirs}")
        for ours, theirs in layers.items():
            table |= affine_names(f"block{index}/{ours}", f"{blocks}.{index}.{theirs}", linear)
    return table


def sources(name: str) -> tuple[Source, ...]:
    """Return the published weights of the vision tower, at 224 x 224."""
    return (
        Source(
            "backbone",
            f"{PADDLE}/foundation_models/CLIP_vit_base_patch16_224.pdparams",
            "MIT",
            "OpenAI's pairs of images and texts",
            "CLIP",
        ),
        timm(
            "vit_base_patch16_clip_224.openai",
            trained_on="OpenAI's pairs of images and texts",
            pixels="CLIP",
        ),
    )


FAMILY = Family(
    variants=VARIANTS,
    build=CLIPViT,
    names=names,
    recipes="clip_vit",
    heads={
        "paddle": "head.fc_head",
        "timm": "head",
        "openai": "head",
        "huggingface": "classifier",
    },
    decoder="head",
    stride=lambda sizes: sizes.patch_size,
    adapt=adapt,
    official=("CLIP_vit_base_patch16_448",),
    sources=sources,
    timm_names={
        name.removeprefix("CLIP_").replace("_224", "_clip_224"): name
        for name in VARIANTS
        if name.endswith("_224")
    },
)
