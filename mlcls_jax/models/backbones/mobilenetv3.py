"""MobileNetV3 (Howard et al., 2019) as in PaddleClas, and as in timm under timm's names.

They are different networks: PaddleClas widens in the first block as well, has a steeper gate in
squeeze-and-excitation, no bias before the classifier, and rounds the widths of other scales in
another way. Weights of one therefore cannot be loaded into the other.
"""

import re
from dataclasses import dataclass, replace
from functools import partial

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array

from mlcls_jax.models.chain import LastConvChain
from mlcls_jax.models.family import Family
from mlcls_jax.models.inverted_residual import InvertedResidual, timm_rules
from mlcls_jax.models.layers import (
    Conv,
    ConvNorm,
    SqueezeExcite,
    hardsigmoid,
    hardswish,
    scaled,
)
from mlcls_jax.models.pixels import HALVES, IMAGENET
from mlcls_jax.models.published import Source, paddle, timm
from mlcls_jax.models.weight_names import NameTable, renamed


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
    is_tensorflow: bool = False  # pads an even side that is halved at its end alone
    is_minimal: bool = False  # 3 x 3 kernels and ReLU alone, no weighing of channels


def build(
    config: MobileNetV3Config, *, pool: bool = False, dtype: jnp.dtype | None = None
) -> LastConvChain:
    """Return a network whose map has `out_channels` and 1/32 of a side."""
    is_paddle, scale = config.origin == "paddle", config.scale
    same, epsilon = config.is_tensorflow, 1e-3 if config.is_tensorflow else 1e-5
    unit = partial(ConvNorm, same=same, epsilon=epsilon, dtype=dtype)
    groups, before = [], STEM
    # timm leaves the stem as it is where the network is narrow.
    width = STEM if not is_paddle and scale < 0.75 else scaled(STEM, scale)
    activation = nnx.relu if config.is_minimal else hardswish
    conv = unit(3, width, 3, stride=2, activation=activation)
    for index, block in enumerate(BLOCKS[config.size]):
        if config.is_minimal:
            block = replace(block, kernel_size=3, squeeze=False)
        expanded = scaled(width, block.expanded / before)
        if is_paddle:
            expanded = scaled(block.expanded, scale)
        module = InvertedResidual(
            width,
            expanded,
            scaled(block.width, scale),
            sizes=(int(is_paddle or index > 0), block.kernel_size, 1),
            stride=block.stride,
            activation=activation if block.hard else nnx.relu,
            squeeze=_squeeze(expanded, is_paddle, dtype) if block.squeeze else None,
            unit=unit,
        )
        groups.append({f"block{index}": module})
        before, width = block.width, scaled(block.width, scale)
    last = scaled(LAST_EXPANDED[config.size], scale)
    return LastConvChain(
        config,
        stem={"conv": conv},
        blocks=groups,
        outputs={"last_second_conv": unit(width, last, 1, activation=activation)},
        last_conv=Conv(last, config.out_channels, 1, bias=not is_paddle, dtype=dtype),
        activation=activation,
        pool=pool,
        is_scaled=is_paddle,
    )


def steep_hardsigmoid(x: Array) -> Array:
    """clip(x / 5 + 0.5, 0, 1), PaddleClas' gate."""
    return hardsigmoid(x, 0.2)


def _squeeze(expanded: int, is_paddle: bool, dtype: jnp.dtype | None) -> SqueezeExcite:
    if is_paddle:
        return SqueezeExcite(expanded, expanded // 4, gate=steep_hardsigmoid, dtype=dtype)
    return SqueezeExcite(expanded, scaled(expanded, 0.25), dtype=dtype)


def names(backbone: LastConvChain, origin: str) -> NameTable:
    """Map each parameter and statistic to its place in a file of `origin`: paddle or timm."""
    if origin == "paddle":
        table = renamed(backbone, origin, ((r"^block", "blocks."), (r"\.norm\.", ".bn.")))
        return table | backbone.scale_name(origin)
    widths = [block.width for block in BLOCKS[backbone.config.size]]
    stages = list(dict.fromkeys(widths))

    def place(block: re.Match[str]) -> str:
        index = int(block[1])
        return f"blocks.{stages.index(widths[index])}.{index - widths.index(widths[index])}"

    rules = (
        (r"^conv\.conv", "conv_stem"),
        (r"^conv\.norm", "bn1"),
        (r"^last_second_conv\.conv", f"blocks.{len(stages)}.0.conv"),
        (r"^last_second_conv\.norm", f"blocks.{len(stages)}.0.bn1"),
        (r"^last_conv", "conv_head"),
        *timm_rules(backbone),
        (r"^block(\d+)", place),
    )
    return renamed(backbone, origin, rules)


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
TIMM_VARIANTS |= {
    f"tf_mobilenetv3_{size}_{round(100 * scale):03}": MobileNetV3Config(
        size=size, origin="timm", scale=scale, dropout=0.0, out_channels=out, is_tensorflow=True
    )
    for size, out in (("large", 1280), ("small", 1024))
    for scale in (0.75, 1.0)
}
TIMM_VARIANTS |= {
    name.replace("_100", "_minimal_100"): replace(config, is_minimal=True)
    for name, config in TIMM_VARIANTS.items()
    if config.is_tensorflow and config.scale == 1.0
}


def sources(name: str) -> tuple[Source, ...]:
    """Return the published weights of a variant of PaddleClas."""
    return (paddle(f"{name}_pretrained"),)


def timm_sources(name: str) -> tuple[Source, ...]:
    """Return the published weights of a variant of timm."""
    if name.startswith("tf_"):
        return (timm(f"{name}.in1k", pixels=HALVES.name),)
    tag = "ra_in1k" if name == "mobilenetv3_large_100" else "lamb_in1k"
    return (timm(f"{name}.{tag}"),)


FAMILY = Family(
    variants=VARIANTS,
    build=build,
    names=names,
    recipes="mobilenetv3",
    heads={"paddle": "fc"},
    sources=sources,
)
TIMM_FAMILY = Family(
    variants=TIMM_VARIANTS,
    build=build,
    names=names,
    recipes="mobilenetv3",
    heads={"timm": "classifier"},
    sources=timm_sources,
    pixels=lambda name: HALVES if name.startswith("tf_") else IMAGENET,
)
