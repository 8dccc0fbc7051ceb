"""MobileNetV3 (Howard et al., 2019) as in PaddleClas, and as in timm under timm's names.

They are different networks: PaddleClas widens in the first block as well, has a steeper gate in
squeeze-and-excitation, no bias before the classifier, and rounds the widths of other scales in
another way. Weights of one therefore cannot be loaded into the other.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from mlcls_jax.models.dropout import Draws, dropout
from mlcls_jax.models.family import Family, Parts
from mlcls_jax.models.initial import Constant, FrozenParam, param
from mlcls_jax.models.inverted_residual import InvertedResidual, timm_names
from mlcls_jax.models.layers import (
    Conv,
    ConvNorm,
    SqueezeExcite,
    hardsigmoid,
    hardswish,
    scaled,
)
from mlcls_jax.models.published import Source, paddle, timm
from mlcls_jax.models.weight_names import Foreign, NameTable, affine_names, conv_norm_names


@dataclass(frozen=True)
class Block:
    """An inverted residual block at scale 1; `squeeze`: with squeeze-and-excitation."""

    kernel_size: int
    expanded: int  # width between its pointwise convolutions
    width: int
    squeeze: bool
    hard: bool  # hardswish; otherwise ReLU
    stride: int


STEM = 16
# By size. timm counts its blocks by stage: a stage begins where the width changes.
BLOCKS = {
    "large": (
        Block(3, 16, 16, squeeze=False, hard=False, stride=1),
        Block(3, 64, 24, squeeze=False, hard=False, stride=2),
        Block(3, 72, 24, squeeze=False, hard=False, stride=1),
        Block(5, 72, 40, squeeze=True, hard=False, stride=2),
        Block(5, 120, 40, squeeze=True, hard=False, stride=1),
        Block(5, 120, 40, squeeze=True, hard=False, stride=1),
        Block(3, 240, 80, squeeze=False, hard=True, stride=2),
        Block(3, 200, 80, squeeze=False, hard=True, stride=1),
        Block(3, 184, 80, squeeze=False, hard=True, stride=1),
        Block(3, 184, 80, squeeze=False, hard=True, stride=1),
        Block(3, 480, 112, squeeze=True, hard=True, stride=1),
        Block(3, 672, 112, squeeze=True, hard=True, stride=1),
        Block(5, 672, 160, squeeze=True, hard=True, stride=2),
        Block(5, 960, 160, squeeze=True, hard=True, stride=1),
        Block(5, 960, 160, squeeze=True, hard=True, stride=1),
    ),
    "small": (
        Block(3, 16, 16, squeeze=True, hard=False, stride=2),
        Block(3, 72, 24, squeeze=False, hard=False, stride=2),
        Block(3, 88, 24, squeeze=False, hard=False, stride=1),
        Block(5, 96, 40, squeeze=True, hard=True, stride=2),
        Block(5, 240, 40, squeeze=True, hard=True, stride=1),
        Block(5, 240, 40, squeeze=True, hard=True, stride=1),
        Block(5, 120, 48, squeeze=True, hard=True, stride=1),
        Block(5, 144, 48, squeeze=True, hard=True, stride=1),
        Block(5, 288, 96, squeeze=True, hard=True, stride=2),
        Block(5, 576, 96, squeeze=True, hard=True, stride=1),
        Block(5, 576, 96, squeeze=True, hard=True, stride=1),
    ),
}
LAST_EXPANDED = {"large": 960, "small": 576}


@dataclass(frozen=True, kw_only=True)
class MobileNetV3Config:
    """Size and scale; `origin` decides between PaddleClas' network and timm's."""

    size: str
    origin: str
    scale: float = 1.0
    dropout: float = 0.2
    out_channels: int = 1280  # not scaled


class MobileNetV3(nnx.Module):
    """images [B, H, W, 3] → features [B, H / 32, W / 32, out_channels].

    With `pool`, as before the plain classifier, last_conv sees the mean over the map.
    """

    def __init__(
        self, config: MobileNetV3Config, *, pool: bool = False, dtype: jnp.dtype | None = None
    ) -> None:
        is_paddle, scale = config.origin == "paddle", config.scale
        # timm leaves the stem as it is where the network is narrow.
        width = STEM if not is_paddle and scale < 0.75 else scaled(STEM, scale)
        self.conv = ConvNorm(3, width, 3, stride=2, activation=hardswish, dtype=dtype)
        self.blocks = BLOCKS[config.size]
        self.paths = tuple(f"block{index}" for index in range(len(self.blocks)))
        before = STEM
        for index, (path, block) in enumerate(zip(self.paths, self.blocks, strict=True)):
            expanded = (
                scaled(block.expanded, scale)
                if is_paddle
                else scaled(width, block.expanded / before)
            )
            setattr(
                self,
                path,
                InvertedResidual(
                    width,
                    expanded,
                    scaled(block.width, scale),
                    sizes=(int(is_paddle or index > 0), block.kernel_size, 1),
                    stride=block.stride,
                    activation=hardswish if block.hard else nnx.relu,
                    squeeze=_squeeze(expanded, is_paddle, dtype) if block.squeeze else None,
                    unit=partial(ConvNorm, dtype=dtype),
                ),
            )
            before, width = block.width, scaled(block.width, scale)
        last = scaled(LAST_EXPANDED[config.size], scale)
        self.last_second_conv = ConvNorm(width, last, 1, activation=hardswish, dtype=dtype)
        self.last_conv = Conv(
            last,
            config.out_channels,
            1,
            bias=not is_paddle,
            dtype=dtype,
        )
        outputs = ("last_second_conv", "last_conv")
        kept = Constant(float(np.float32(1.0 - config.dropout)))  # Paddle's dropout, as in PP-LCNet
        self.feature_scale = param((), kept, FrozenParam) if is_paddle else None
        if is_paddle:
            outputs += ("feature_scale",)
        self.channels, self.dropout, self.pool = config.out_channels, config.dropout, pool
        self.parts = Parts(
            stem=("conv",), stages=tuple((path,) for path in self.paths), outputs=outputs
        )

    def __call__(
        self, images: Float[Array, "B H W 3"], *, train: bool = False, draws: Draws | None = None
    ) -> Float[Array, "B h w C"]:
        x = self.conv(images, train=train)
        for path in self.paths:
            x = getattr(self, path)(x, train=train)
        x = self.last_second_conv(x, train=train)
        if self.pool:
            x = x.mean((1, 2), keepdims=True)
        x = dropout(hardswish(self.last_conv(x)), self.dropout, draws)
        if self.feature_scale is None:
            return x
        return x * jax.lax.stop_gradient(self.feature_scale[...]).astype(x.dtype)


def steep_hardsigmoid(x: Array) -> Array:
    """clip(x / 5 + 0.5, 0, 1), PaddleClas' gate."""
    return hardsigmoid(x, 0.2)


def _squeeze(expanded: int, is_paddle: bool, dtype: jnp.dtype | None) -> SqueezeExcite:
    if is_paddle:
        return SqueezeExcite(expanded, expanded // 4, gate=steep_hardsigmoid, dtype=dtype)
    return SqueezeExcite(expanded, scaled(expanded, 0.25), dtype=dtype)


def names(backbone: MobileNetV3, origin: str) -> NameTable:
    """Map each parameter and statistic to its place in a file of `origin`: paddle or timm."""
    is_paddle = origin == "paddle"
    table: NameTable = {}

    def add_unit(*names: str) -> None:
        table.update(conv_norm_names(*names, origin=origin))

    add_unit("conv", *(("conv.conv", "conv.bn") if is_paddle else ("conv_stem", "bn1")))
    for index, path in enumerate(backbone.paths):
        block: InvertedResidual = getattr(backbone, path)
        if not is_paddle:
            table |= timm_names(path, _timm_block(backbone.blocks, index), block)
            continue
        theirs = f"blocks.{index}"
        for unit in block.units():
            if unit == "linear_conv" and block.mid_se is not None:
                for conv in ("conv1", "conv2"):
                    se = f"mid_se.{conv}"
                    table |= affine_names(f"{path}/mid_se/{conv}", f"{theirs}.{se}", "conv")
            add_unit(f"{path}/{unit}", f"{theirs}.{unit}.conv", f"{theirs}.{unit}.bn")
    last = f"blocks.{len({b.width for b in backbone.blocks})}.0"
    add_unit(
        "last_second_conv",
        *(
            ("last_second_conv.conv", "last_second_conv.bn")
            if is_paddle
            else (f"{last}.conv", f"{last}.bn1")
        ),
    )
    if not is_paddle:
        return table | affine_names("last_conv", "conv_head", "conv")
    table["last_conv/kernel"] = Foreign("last_conv.weight", "conv")
    scale = float(np.float32(1.0 - backbone.dropout))
    table["feature_scale"] = Foreign(None, "scale", scale)
    return table


def _timm_block(blocks: tuple[Block, ...], index: int) -> str:
    """Return timm's path of a block: stage and place in it."""
    widths = list(dict.fromkeys(block.width for block in blocks))
    stage = widths.index(blocks[index].width)
    return f"blocks.{stage}.{sum(block.width == widths[stage] for block in blocks[:index])}"


VARIANTS = {
    f"MobileNetV3_{size}_x{scale}".replace(".", "_"): MobileNetV3Config(
        size=size, origin="paddle", scale=scale
    )
    for size in BLOCKS
    for scale in (0.35, 0.5, 0.75, 1.0, 1.25)
}
# Those of which timm publishes weights.
TIMM_VARIANTS = {
    "mobilenetv3_large_100": MobileNetV3Config(size="large", origin="timm", dropout=0.0),
} | {
    f"mobilenetv3_small_{round(100 * scale):03}": MobileNetV3Config(
        size="small", origin="timm", scale=scale, dropout=0.0, out_channels=1024
    )
    for scale in (0.5, 0.75, 1.0)
}


def sources(name: str) -> tuple[Source, ...]:
    """Return the published weights of a variant of PaddleClas."""
    return (paddle(f"{name}_pretrained"),)


def timm_sources(name: str) -> tuple[Source, ...]:
    """Return the published weights of a variant of timm."""
    tag = "ra_in1k" if name == "mobilenetv3_large_100" else "lamb_in1k"
    return (timm(f"{name}.{tag}"),)


FAMILY = Family(
    variants=VARIANTS,
    build=MobileNetV3,
    names=names,
    recipes="mobilenetv3",
    heads={"paddle": "fc"},
    sources=sources,
)
TIMM_FAMILY = Family(
    variants=TIMM_VARIANTS,
    build=MobileNetV3,
    names=names,
    recipes="mobilenetv3",
    heads={"timm": "classifier"},
    sources=timm_sources,
)
