"""PP-LCNet (Cui et al., 2021) as in PaddleClas, all scales: depthwise-separable, no residuals."""

import re
from dataclasses import dataclass

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from mlcls_jax.models.chain import LastConvChain
from mlcls_jax.models.family import Family
from mlcls_jax.models.layers import Conv, ConvNorm, SqueezeExcite, hardswish, scaled
from mlcls_jax.models.published import Source, paddle, timm
from mlcls_jax.models.weight_names import Foreign, NameTable, renamed

# stage → blocks of (kernel size, base width, squeeze-excite); a stage's stride is its first block's
STAGES = {
    "blocks2": ((3, 32, False),),
    "blocks3": ((3, 64, False), (3, 64, False)),
    "blocks4": ((3, 128, False), (3, 128, False)),
    "blocks5": ((3, 256, False), *((5, 256, False),) * 5),
    "blocks6": ((5, 512, True), (5, 512, True)),
}
SCALES = (0.25, 0.35, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5)


@dataclass(frozen=True, kw_only=True)
class PPLCNetConfig:
    """Width and strides; the strides belong to conv1 and blocks 3 to 6."""

    scale: float = 1.0
    strides: tuple[int, ...] = (2, 2, 2, 2, 2)
    out_channels: int = 1280  # not scaled
    dropout: float = 0.2


VARIANTS = {f"PP-LCNet_x{scale}".replace(".", "_"): PPLCNetConfig(scale=scale) for scale in SCALES}


def build(
    config: PPLCNetConfig, *, pool: bool = False, dtype: jnp.dtype | None = None
) -> LastConvChain:
    """Return a network whose map has 1280 channels and, for the default strides, 1/32 of a side."""
    conv1_stride, *stage_strides = config.strides
    width, groups = scaled(16, config.scale), []
    conv1 = ConvNorm(3, width, 3, stride=conv1_stride, activation=hardswish, dtype=dtype)
    for stride, (stage, blocks) in zip((1, *stage_strides), STAGES.items(), strict=False):
        for index, (kernel_size, base_width, squeeze) in enumerate(blocks):
            block = SeparableBlock(
                width,
                scaled(base_width, config.scale),
                kernel_size,
                stride=stride if index == 0 else 1,
                squeeze=squeeze,
                dtype=dtype,
            )
            groups.append({f"{stage}_{index}": block})
            width = scaled(base_width, config.scale)
    return LastConvChain(
        config,
        stem={"conv1": conv1},
        blocks=groups,
        last_conv=Conv(width, config.out_channels, 1, bias=pool, dtype=dtype),
        activation=hardswish,
        pool=pool,
    )


class SeparableBlock(nnx.Module):
    """Depthwise convolution, optional squeeze-excite, pointwise convolution."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int,
        squeeze: bool,
        dtype: jnp.dtype | None,
    ) -> None:
        self.dw_conv = ConvNorm(
            in_channels,
            in_channels,
            kernel_size,
            stride=stride,
            groups=in_channels,
            activation=hardswish,
            dtype=dtype,
        )
        self.se = SqueezeExcite(in_channels, in_channels // 4, dtype=dtype) if squeeze else None
        self.pw_conv = ConvNorm(in_channels, out_channels, 1, activation=hardswish, dtype=dtype)

    def __call__(self, x: Float[Array, "B H W C"], *, train: bool) -> Float[Array, "B h w D"]:
        x = self.dw_conv(x, train=train)
        if self.se is not None:
            x = self.se(x)
        return self.pw_conv(x, train=train)


def _timm_block(block: re.Match[str]) -> str:
    """timm counts stages from 0 and has the last four blocks of blocks5 in a stage of their own."""
    stage, index = int(block[1]) - 2, int(block[2])
    if stage == 3 and index >= 2:
        return f"blocks.4.{index - 2}"
    return f"blocks.{stage + (stage > 3)}.{index}"


RULES = {
    "paddle": ((r"\.norm\.", ".bn."), (r"^(blocks\d)_", r"\1.")),
    "timm": (
        (r"^conv1\.conv", "conv_stem"),
        (r"^blocks(\d)_(\d)", _timm_block),
        (r"dw_conv\.conv", "conv_dw"),
        (r"pw_conv\.conv", "conv_pw"),
        (r"(conv1|dw_conv)\.norm", "bn1"),
        (r"pw_conv\.norm", "bn2"),
        (r"se\.conv1", "se.conv_reduce"),
        (r"se\.conv2", "se.conv_expand"),
        (r"^last_conv", "conv_head"),
    ),
}


def names(backbone: LastConvChain, origin: str) -> NameTable:
    """Map each parameter and statistic to its place in a file of `origin`: paddle or timm."""
    table = renamed(backbone, origin, RULES[origin]) | backbone.scale_name(origin)
    if backbone.pool and origin == "paddle":  # whose plain classifier has no bias there
        table["last_conv/bias"] = Foreign(None)
    return table


TIMM_NAMES = {
    "lcnet_050": "PP-LCNet_x0_5",
    "lcnet_075": "PP-LCNet_x0_75",
    "lcnet_100": "PP-LCNet_x1_0",
}


def sources(name: str) -> tuple[Source, ...]:
    """Return the published weights of a variant."""
    size = name.removeprefix("PP-LCNet_")
    found = (paddle(f"PPLCNet_{size}_pretrained"),)
    twins = [timm(f"{twin}.ra2_in1k") for twin, variant in TIMM_NAMES.items() if variant == name]
    return (*found, *twins)


FAMILY = Family(
    variants=VARIANTS,
    build=build,
    names=names,
    recipes="lcnet",
    heads={"paddle": "fc", "timm": "classifier"},
    official=("PP-LCNet_x1_0",),
    sources=sources,
    timm_names=TIMM_NAMES,
)
