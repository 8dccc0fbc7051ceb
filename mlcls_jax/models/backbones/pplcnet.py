"""PP-LCNet (Cui et al., 2021) as in PaddleClas, all scales: depthwise-separable, no residuals."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from mlcls_jax.models.dropout import Draws, dropout
from mlcls_jax.models.family import Family, Parts
from mlcls_jax.models.initial import Constant, FrozenParam, param
from mlcls_jax.models.layers import Conv, ConvNorm, SqueezeExcite, hardswish, scaled
from mlcls_jax.models.published import Source, paddle, timm
from mlcls_jax.models.weight_names import Foreign, NameTable, affine_names, conv_norm_names

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


class PPLCNet(nnx.Module):
    """images [B, H, W, 3] → features [B, H / 32, W / 32, 1280], for the default strides.

    With `pool`, as before the plain classifier, last_conv sees the mean over the map.
    """

    def __init__(
        self, config: PPLCNetConfig, *, pool: bool = False, dtype: jnp.dtype | None = None
    ) -> None:
        conv1_stride, *stage_strides = config.strides
        width = scaled(16, config.scale)
        self.conv1 = ConvNorm(3, width, 3, stride=conv1_stride, activation=hardswish, dtype=dtype)
        paths = []
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
                paths.append(f"{stage}_{index}")
                setattr(self, paths[-1], block)
                width = scaled(base_width, config.scale)
        self.last_conv = Conv(
            width,
            config.out_channels,
            1,
            bias=pool,
            dtype=dtype,
        )
        # Paddle's downscale_in_infer: it drops without rescaling in training and scales down in
        # evaluation. This is dropout as usual on features that are scaled by the same number.
        scale = Constant(float(np.float32(1.0 - config.dropout)))
        self.feature_scale = param((), scale, FrozenParam)
        self.channels, self.dropout, self.pool = config.out_channels, config.dropout, pool
        self.parts = Parts(
            stem=("conv1",),
            stages=tuple((path,) for path in paths),
            outputs=("last_conv", "feature_scale"),
        )

    def __call__(
        self, images: Float[Array, "B H W 3"], *, train: bool = False, draws: Draws | None = None
    ) -> Float[Array, "B h w C"]:
        x = self.conv1(images, train=train)
        for (path,) in self.parts.stages:
            x = getattr(self, path)(x, train=train)
        if self.pool:
            x = x.mean((1, 2), keepdims=True)
        x = hardswish(self.last_conv(x))
        scale = jax.lax.stop_gradient(self.feature_scale[...])
        return dropout(x, self.dropout, draws) * scale.astype(x.dtype)


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


def names(backbone: PPLCNet, origin: str) -> NameTable:
    """Map each parameter and statistic to its place in a file of `origin`: paddle or timm."""
    is_paddle = origin == "paddle"
    table: NameTable = {}

    def add_unit(*names: str) -> None:
        table.update(conv_norm_names(*names, origin=origin))

    add_unit("conv1", *(("conv1.conv", "conv1.bn") if is_paddle else ("conv_stem", "bn1")))
    for stage, blocks in STAGES.items():
        for index, (_, _, squeeze) in enumerate(blocks):
            ours = f"{stage}_{index}"
            theirs = f"{stage}.{index}" if is_paddle else _timm_block(stage, index)
            units = (
                [
                    (f"{theirs}.{unit}.conv", f"{theirs}.{unit}.bn")
                    for unit in ("dw_conv", "pw_conv")
                ]
                if is_paddle
                else [
                    (f"{theirs}.conv_dw", f"{theirs}.bn1"),
                    (f"{theirs}.conv_pw", f"{theirs}.bn2"),
                ]
            )
            add_unit(f"{ours}/dw_conv", *units[0])
            convs = ("conv1", "conv2") if is_paddle else ("conv_reduce", "conv_expand")
            for our_conv, conv in zip(("conv1", "conv2"), convs, strict=True) if squeeze else ():
                table |= affine_names(f"{ours}/se/{our_conv}", f"{theirs}.se.{conv}", "conv")
            add_unit(f"{ours}/pw_conv", *units[1])
    last_conv = "last_conv" if is_paddle else "conv_head"
    table["last_conv/kernel"] = Foreign(f"{last_conv}.weight", "conv")
    # timm's plain classifier has a bias there, and does not scale its features down.
    if backbone.pool:
        table["last_conv/bias"] = Foreign(None if is_paddle else f"{last_conv}.bias")
    scale = float(np.float32(1.0 - backbone.dropout)) if is_paddle else 1.0
    table["feature_scale"] = Foreign(None, "scale", scale)
    return table


def _timm_block(stage: str, index: int) -> str:
    """timm counts stages from 0 and has the last four blocks of blocks5 in a stage of their own."""
    number = int(stage[-1]) - 2
    if number < 3:
        return f"blocks.{number}.{index}"
    if number == 3:
        return f"blocks.3.{index}" if index < 2 else f"blocks.4.{index - 2}"
    return f"blocks.5.{index}"


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
    build=PPLCNet,
    names=names,
    recipes="lcnet",
    heads={"paddle": "fc", "timm": "classifier"},
    official=("PP-LCNet_x1_0",),
    sources=sources,
    timm_names=TIMM_NAMES,
)
