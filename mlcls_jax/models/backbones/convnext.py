"""ConvNeXt (Liu et al., 2022) and V2 (Woo et al., 2023) as in timm and PaddleClas."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from mlcls_jax.models.chain import attach
from mlcls_jax.models.dropout import Draws, drop_path
from mlcls_jax.models.family import Family, Parts
from mlcls_jax.models.initial import ZEROS, Constant, Normal, param
from mlcls_jax.models.layers import Conv, Linear, Patches, gelu
from mlcls_jax.models.norms import LayerNorm
from mlcls_jax.models.pixels import CLIP, IMAGENET, Pixels
from mlcls_jax.models.published import Source, paddle, timm
from mlcls_jax.models.weight_names import NameTable, renamed

EPSILON = 1e-6
INITIAL = Normal(0.02)


@dataclass(frozen=True, kw_only=True)
class ConvNeXtConfig:
    """Blocks and widths of the four stages; V2 has response normalisation, V1 a layer scale."""

    blocks: tuple[int, int, int, int]
    widths: tuple[int, int, int, int]
    is_v2: bool = False
    # timm's smaller networks have 1 x 1 convolutions for linear layers: another shape in its files.
    has_convs: bool = False
    # Of the first of two convolutions of stride 2, in place of 4 x 4 patches; 0: there are none.
    overlapping: int = 0
    epsilon: float = EPSILON
    norm_first: bool = False  # each cell is normalised before the mean is taken, not the mean
    hidden: int = 0  # width of a layer before the plain classifier; 0: there is none
    drop_path: float = 0.0


def _sizes(blocks: tuple[int, int, int, int], width: int, **options: Any) -> ConvNeXtConfig:
    widths = (width, 2 * width, 4 * width, 8 * width)
    return ConvNeXtConfig(blocks=blocks, widths=widths, **options)


def _variants(*, is_v2: bool) -> dict[str, ConvNeXtConfig]:
    prefix = "ConvNeXtV2" if is_v2 else "ConvNeXt"
    narrow = {
        "atto": ((2, 2, 6, 2), 40),
        "femto": ((2, 2, 6, 2), 48),
        "pico": ((2, 2, 6, 2), 64),
        "nano": ((2, 2, 8, 2), 80),
    }
    wide = {
        "tiny": ((3, 3, 9, 3), 96),
        "small": ((3, 3, 27, 3), 96),
        "base": ((3, 3, 27, 3), 128),
        "large": ((3, 3, 27, 3), 192),
        "xlarge": ((3, 3, 27, 3), 256),
        "huge": ((3, 3, 27, 3), 352),
    }
    for absent in ("small", "xlarge") if is_v2 else ("huge",):
        del wide[absent]
    found = {
        f"{prefix}_{size}": _sizes(blocks, width, is_v2=is_v2, has_convs=size in narrow)
        for size, (blocks, width) in (narrow | wide).items()
    }
    if is_v2:
        return found
    found |= {
        f"{prefix}_{size}_ols": replace(found[f"{prefix}_{size}"], overlapping=first)
        for size, first in {"atto": 24, "femto": 24, "pico": 32, "nano": 80}.items()
    }
    return found | {
        f"{prefix}_tiny_hnf": replace(found[f"{prefix}_tiny"], norm_first=True, has_convs=True),
        f"{prefix}_large_mlp": replace(found[f"{prefix}_large"], hidden=1536),
        f"{prefix}_xxlarge": _sizes((3, 4, 30, 3), 384, epsilon=1e-5),
    }


class ConvNeXt(nnx.Module):
    """images [B, H, W, 3] → features [B, H / 32, W / 32, widths[3]], normalised at each cell.

    With `pool`, as before the plain classifier, the mean over the map is normalised, and a hidden
    layer follows if there is one.
    """

    def __init__(
        self, config: ConvNeXtConfig, *, pool: bool = False, dtype: jnp.dtype | None = None
    ) -> None:
        before, epsilon = config.widths[0], config.epsilon
        if config.overlapping:
            halving = partial(Conv, stride=2, bias=True, initial=INITIAL, dtype=dtype)
            self.stem0 = halving(3, config.overlapping, 3)
            self.stem1 = halving(config.overlapping, before, 3)
        else:
            self.stem = Patches(3, before, 4, initial=INITIAL, dtype=dtype)
        self.stem_norm = LayerNorm(before, epsilon=epsilon)
        groups: list[dict[str, nnx.Module]] = []
        for stage, (count, width) in enumerate(zip(config.blocks, config.widths, strict=True)):
            for index in range(count):
                group: dict[str, nnx.Module] = {}
                if stage and not index:
                    group[f"downsample{stage}"] = Downsample(before, width, epsilon, dtype)
                block = Block(width, is_v2=config.is_v2, epsilon=epsilon, dtype=dtype)
                groups.append(group | {f"stage{stage}_{index}": block})
            before = width
        stages = attach(self, groups, config.drop_path)
        self.norm, hidden = LayerNorm(before, epsilon=epsilon), pool and config.hidden
        self.hidden = Linear(before, hidden, initial=INITIAL, dtype=dtype) if hidden else None
        self.channels, self.config = hidden or before, config
        self.pool = pool and not config.norm_first
        first = ("stem0", "stem1") if config.overlapping else ("stem",)
        outputs = ("norm", "hidden") if hidden else ("norm",)
        self.parts = Parts(stem=(*first, "stem_norm"), stages=stages, outputs=outputs)

    def __call__(
        self, images: Float[Array, "B H W 3"], *, train: bool = False, draws: Draws | None = None
    ) -> Float[Array, "B h w C"]:
        x = images
        for path in self.parts.stem:
            x = getattr(self, path)(x)
        for *down, block in self.parts.stages:
            for path in down:
                x = getattr(self, path)(x)
            x = getattr(self, block)(x, draws=draws)
        if self.pool:
            x = x.mean((1, 2), keepdims=True)
        x = self.norm(x)
        return x if self.hidden is None else gelu(self.hidden(x))


class Downsample(nnx.Module):
    """Layer norm, then a convolution of 2 x 2 cells into one."""

    def __init__(
        self, in_channels: int, out_channels: int, epsilon: float, dtype: jnp.dtype | None
    ) -> None:
        self.norm = LayerNorm(in_channels, epsilon=epsilon)
        self.conv = Patches(in_channels, out_channels, 2, initial=INITIAL, dtype=dtype)

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w D"]:
        return self.conv(self.norm(x))


class Block(nnx.Module):
    """Depthwise 7 x 7, layer norm, two linear layers on each cell; added to what went in."""

    drop_path = 0.0

    def __init__(self, width: int, *, is_v2: bool, epsilon: float, dtype: jnp.dtype | None) -> None:
        self.depthwise = Conv(
            width, width, 7, groups=width, bias=True, initial=INITIAL, dtype=dtype
        )
        self.norm = LayerNorm(width, epsilon=epsilon)
        self.widen = Linear(width, 4 * width, initial=INITIAL, shared="columns", dtype=dtype)
        self.response = ResponseNorm(4 * width) if is_v2 else None
        self.narrow = Linear(4 * width, width, initial=INITIAL, shared="rows", dtype=dtype)
        self.layer_scale = None if is_v2 else param((width,), Constant(1e-6))

    def __call__(
        self, x: Float[Array, "B H W C"], *, draws: Draws | None = None
    ) -> Float[Array, "B H W C"]:
        y = gelu(self.widen(self.norm(self.depthwise(x))))
        y = self.narrow(y if self.response is None else self.response(y))
        if self.layer_scale is not None:
            y = y * self.layer_scale[...].astype(y.dtype)
        return x + drop_path(y, self.drop_path, draws)


class ResponseNorm(nnx.Module):
    """Weigh channels by the norm of their map, relative to the mean of those norms (V2)."""

    def __init__(self, channels: int) -> None:
        self.scale, self.bias = param((channels,), ZEROS), param((channels,), ZEROS)

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        norms = jnp.sqrt(jnp.square(wide).sum((1, 2), keepdims=True))
        weighed = wide * (norms / (norms.mean(-1, keepdims=True) + EPSILON))
        return (wide + self.bias[...] + self.scale[...] * weighed).astype(x.dtype)


RULES = {
    "paddle": (
        (r"^stem\.", "downsample_layers.0.0."),
        (r"^stem_norm", "downsample_layers.0.1"),
        (r"^downsample(\d)\.norm", r"downsample_layers.\1.0"),
        (r"^downsample(\d)\.conv", r"downsample_layers.\1.1"),
        (r"^stage(\d)_", r"stages.\1."),
        (r"depthwise", "dwconv"),
        (r"widen", "pwconv1"),
        (r"narrow", "pwconv2"),
        (r"layer_scale", "gamma"),
    ),
    "timm": (
        (r"^hidden", "head.pre_logits.fc"),
        (r"^downsample(\d)\.norm", r"stages.\1.downsample.0"),
        (r"^downsample(\d)\.conv", r"stages.\1.downsample.1"),
        (r"^stage(\d)_", r"stages.\1.blocks."),
        (r"depthwise", "conv_dw"),
        (r"widen", "mlp.fc1"),
        (r"response", "mlp.grn"),
        (r"narrow", "mlp.fc2"),
        (r"layer_scale", "gamma"),
    ),
}


def names(backbone: ConvNeXt, origin: str) -> NameTable:
    """Map each parameter to its place in a file of `origin`: paddle or timm."""
    has_convs = backbone.config.has_convs and origin == "timm"
    layouts = {"(widen|narrow)/kernel": "conv1x1"} if has_convs else {}
    rules = RULES[origin]
    if origin == "timm":
        overlaps = backbone.config.overlapping > 0
        first = (r"^stem(\d)", r"stem.\1") if overlaps else (r"^stem\.", "stem.0.")
        last = (r"^norm", "norm_pre" if backbone.config.norm_first else "head.norm")
        rules = (*rules, first, last, (r"^stem_norm", f"stem.{1 + overlaps}"))
    return renamed(backbone, origin, rules, layouts=layouts)


# Names of PaddleClas' files.
PADDLE = {
    "ConvNeXt_tiny": "ConvNeXt_tiny",
    "ConvNeXt_small": "ConvNeXt_small",
    "ConvNeXt_base": "ConvNeXt_base_224",
    "ConvNeXt_large": "ConvNeXt_large_224",
}
TIMM_TAGS = {
    "convnext_atto": "d2_in1k",
    "convnext_femto": "d1_in1k",
    "convnext_pico": "d1_in1k",
    "convnext_nano": "in12k_ft_in1k",
    "convnext_tiny": "in12k_ft_in1k",
    "convnext_small": "in12k_ft_in1k",
    "convnext_base": "fb_in22k_ft_in1k",
    "convnext_large": "fb_in22k_ft_in1k",
    "convnext_xlarge": "fb_in22k_ft_in1k",
    "convnext_tiny_hnf": "a2h_in1k",
    "convnext_large_mlp": "clip_laion2b_soup_ft_in12k_in1k_384",
    "convnext_xxlarge": "clip_laion2b_soup_ft_in1k",
    "convnext_atto_ols": "a2_in1k",
    "convnext_femto_ols": "d1_in1k",
    "convnext_pico_ols": "d1_in1k",
    "convnext_nano_ols": "d1h_in1k",
    "convnextv2_atto": "fcmae_ft_in1k",
    "convnextv2_femto": "fcmae_ft_in1k",
    "convnextv2_pico": "fcmae_ft_in1k",
    "convnextv2_nano": "fcmae_ft_in22k_in1k",
    "convnextv2_tiny": "fcmae_ft_in22k_in1k",
    "convnextv2_base": "fcmae_ft_in22k_in1k",
    "convnextv2_large": "fcmae_ft_in22k_in1k",
    "convnextv2_huge": "fcmae_ft_in22k_in1k_384",
}


def pixels(name: str) -> Pixels:
    """Return the statistics of the pixels that the weights of a network were trained with."""
    return CLIP if name.lower() in ("convnext_xxlarge", "convnext_large_mlp") else IMAGENET


def sources(name: str) -> tuple[Source, ...]:
    """Return the published weights of a variant."""
    twin = name.lower()
    licence = "CC-BY-NC-4.0" if "v2" in twin else "Apache-2.0"
    trained_on = "LAION-2B, ImageNet" if "laion2b" in TIMM_TAGS[twin] else "ImageNet"
    found = replace(timm(f"{twin}.{TIMM_TAGS[twin]}", licence=licence), trained_on=trained_on)
    found = (replace(found, pixels=pixels(name).name),)
    if name not in PADDLE:
        return found
    return (paddle(f"{PADDLE[name]}_pretrained", folder=""), *found)


def _family(*, is_v2: bool) -> Family:
    variants = _variants(is_v2=is_v2)
    return Family(
        variants=variants,
        build=ConvNeXt,
        names=names,
        heads=({} if is_v2 else {"paddle": "head"}) | {"timm": "head.fc"},
        head_initial=lambda channels: INITIAL,
        sources=sources,
        pixels=pixels,
        timm_names={name.lower(): name for name in variants},
    )


FAMILY, V2_FAMILY = _family(is_v2=False), _family(is_v2=True)
