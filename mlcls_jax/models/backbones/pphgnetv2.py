"""PP-HGNetV2 B0 to B6 as in PaddleClas: blocks that aggregate the outputs of all their layers."""

from collections.abc import Iterator
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from mlcls_jax.models.dropout import Draws, dropout
from mlcls_jax.models.family import Family, Parts
from mlcls_jax.models.initial import ONES, ZEROS, Constant, FrozenParam, param
from mlcls_jax.models.layers import Conv, ConvNorm, MaxPool
from mlcls_jax.models.published import Source, paddle, timm
from mlcls_jax.models.weight_names import Foreign, NameTable, conv_norm_names

# A stage's kernel size, and whether its layers are light: pointwise, then depthwise.
STAGES = ((3, False), (3, False), (5, True), (5, True))

# For optimizer.lr_multipliers: the originals train the learnable affines at a hundredth.
LR_MULTIPLIERS = (r"/lab/=0.01",)


@dataclass(frozen=True, kw_only=True)
class PPHGNetV2Config:
    """Sizes and strides; the strides belong to stem1, stem3 and the downsampling of stages 1-3."""

    stem: tuple[int, int] = (16, 16)  # width inside, width after
    stages: tuple[tuple[int, int, int], ...] = (  # width inside, width after, blocks
        (16, 64, 1),
        (32, 256, 1),
        (64, 512, 2),
        (128, 1024, 1),
    )
    layers: int = 3  # a block
    affine: bool = True  # a learnable scale and shift after every activation
    strides: tuple[int, ...] = (2, 2, 2, 2, 2)
    out_channels: int = 2048
    dropout: float = 0.0


VARIANTS = {
    "PP-HGNetV2-B0": PPHGNetV2Config(),
    "PP-HGNetV2-B1": PPHGNetV2Config(
        stem=(24, 32), stages=((32, 64, 1), (48, 256, 1), (96, 512, 2), (192, 1024, 1))
    ),
    "PP-HGNetV2-B2": PPHGNetV2Config(
        stem=(24, 32),
        stages=((32, 96, 1), (64, 384, 1), (128, 768, 3), (256, 1536, 1)),
        layers=4,
    ),
    "PP-HGNetV2-B3": PPHGNetV2Config(
        stem=(24, 32),
        stages=((32, 128, 1), (64, 512, 1), (128, 1024, 3), (256, 2048, 1)),
        layers=5,
    ),
    "PP-HGNetV2-B4": PPHGNetV2Config(
        stem=(32, 48),
        stages=((48, 128, 1), (96, 512, 1), (192, 1024, 3), (384, 2048, 1)),
        layers=6,
        affine=False,
    ),
    "PP-HGNetV2-B5": PPHGNetV2Config(
        stem=(32, 64),
        stages=((64, 128, 1), (128, 512, 2), (256, 1024, 5), (512, 2048, 2)),
        layers=6,
        affine=False,
    ),
    "PP-HGNetV2-B6": PPHGNetV2Config(
        stem=(48, 96),
        stages=((96, 192, 2), (192, 512, 3), (384, 1024, 6), (768, 2048, 3)),
        layers=6,
        affine=False,
    ),
}


class PPHGNetV2(nnx.Module):
    """images [B, H, W, 3] → features [B, H / 32, W / 32, 2048], for the default strides.

    With `pool`, as before the plain classifier, last_conv sees the mean over the map.
    """

    def __init__(
        self, config: PPHGNetV2Config, *, pool: bool = False, dtype: jnp.dtype | None = None
    ) -> None:
        self.stem = Stem(*config.stem, config.strides[:2], affine=config.affine, dtype=dtype)
        width = config.stem[1]
        for index in range(len(STAGES)):
            setattr(self, f"stage{index}", Stage(width, index, config, dtype=dtype))
            width = config.stages[index][1]
        self.last_conv = Conv(width, config.out_channels, 1, dtype=dtype)
        self.lab = Affine() if config.affine else None
        # Paddle's downscale_in_infer, as in PP-LCNet: dropout as usual on scaled features.
        scale = Constant(float(np.float32(1.0 - config.dropout)))
        self.feature_scale = param((), scale, FrozenParam)
        self.channels, self.config, self.pool = config.out_channels, config, pool
        self.parts = Parts(
            stem=("stem",),
            stages=tuple(_blocks(config)),
            outputs=("last_conv", "feature_scale", *(("lab",) if config.affine else ())),
        )

    def __call__(
        self, images: Float[Array, "B H W 3"], *, train: bool = False, draws: Draws | None = None
    ) -> Float[Array, "B h w C"]:
        x = self.stem(images, train=train)
        for index in range(len(STAGES)):
            x = getattr(self, f"stage{index}")(x, train=train)
        if self.pool:
            x = x.mean((1, 2), keepdims=True)
        x = nnx.relu(self.last_conv(x))
        x = x if self.lab is None else self.lab(x)
        scale = jax.lax.stop_gradient(self.feature_scale[...])
        return dropout(x, self.config.dropout, draws) * scale.astype(x.dtype)


def _blocks(config: PPHGNetV2Config) -> Iterator[tuple[str, ...]]:
    """Yield the paths of each block; the first of a stage has the downsampling with it."""
    for index, (_, _, blocks) in enumerate(config.stages):
        for number in range(blocks):
            block = f"stage{index}/block{number}"
            yield (f"stage{index}/downsample", block) if index and not number else (block,)


class Affine(nnx.Module):
    """One learnable scale and one learnable shift for the whole map."""

    def __init__(self) -> None:
        self.scale, self.bias = param((1,), ONES), param((1,), ZEROS)

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        return x * self.scale[...].astype(x.dtype) + self.bias[...].astype(x.dtype)


class Unit(ConvNorm):
    """Convolution, batch normalisation, ReLU, optional learnable affine ("lab")."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        groups: int = 1,
        affine: bool,
        dtype: jnp.dtype | None,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            groups=groups,
            activation=nnx.relu,
            dtype=dtype,
        )
        self.lab = Affine() if affine else None

    def __call__(self, x: Float[Array, "B H W C"], *, train: bool) -> Float[Array, "B h w D"]:
        x = super().__call__(x, train=train)
        return x if self.lab is None else self.lab(x)


class Stem(nnx.Module):
    """A strided convolution, two branches (max-pool, 2x2 convolutions), a strided convolution."""

    def __init__(
        self,
        width: int,
        out_channels: int,
        strides: tuple[int, ...],
        *,
        affine: bool,
        dtype: jnp.dtype | None,
    ) -> None:
        def unit(channels: int, out: int, kernel_size: int, stride: int = 1) -> Unit:
            return Unit(channels, out, kernel_size, stride=stride, affine=affine, dtype=dtype)

        self.stem1 = unit(3, width, 3, strides[0])
        self.max_pool = MaxPool(2, stride=1)
        self.stem2a = unit(width, width // 2, 2)
        self.stem2b = unit(width // 2, width, 2)
        self.stem3 = unit(2 * width, width, 3, strides[1])
        self.stem4 = unit(width, out_channels, 1)

    def __call__(self, images: Float[Array, "B H W 3"], *, train: bool) -> Float[Array, "B h w C"]:
        x = self.stem1(images, train=train)
        # Affines make values negative: the missing neighbours of the last row and column are -inf.
        pooled = self.max_pool(x)
        convolved = self.stem2b(self.stem2a(x, train=train), train=train)
        x = self.stem3(jnp.concatenate([pooled, convolved], -1), train=train)
        return self.stem4(x, train=train)


class Stage(nnx.Module):
    """A strided depthwise convolution, except in stage 0, and blocks."""

    def __init__(
        self, in_channels: int, index: int, config: PPHGNetV2Config, *, dtype: jnp.dtype | None
    ) -> None:
        width, out_channels, self.blocks = config.stages[index]
        stride = None if index == 0 else config.strides[index + 1]
        self.downsample = (
            None
            if stride is None
            else ConvNorm(
                in_channels, in_channels, 3, stride=stride, groups=in_channels, dtype=dtype
            )
        )
        kernel_size, is_light = STAGES[index]
        for number in range(self.blocks):
            block = Block(
                in_channels if number == 0 else out_channels,
                width,
                out_channels,
                kernel_size,
                layers=config.layers,
                light=is_light,
                residual=number > 0,
                affine=config.affine,
                dtype=dtype,
            )
            setattr(self, f"block{number}", block)

    def __call__(self, x: Float[Array, "B H W C"], *, train: bool) -> Float[Array, "B h w D"]:
        if self.downsample is not None:
            x = self.downsample(x, train=train)
        for number in range(self.blocks):
            x = getattr(self, f"block{number}")(x, train=train)
        return x


class Block(nnx.Module):
    """Layers in a row; what goes in and what each gives is concatenated and mixed."""

    def __init__(
        self,
        in_channels: int,
        width: int,
        out_channels: int,
        kernel_size: int,
        *,
        layers: int,
        light: bool,
        residual: bool,
        affine: bool,
        dtype: jnp.dtype | None,
    ) -> None:
        layer = LightUnit if light else Unit
        for number in range(layers):
            channels = in_channels if number == 0 else width
            unit = layer(channels, width, kernel_size, affine=affine, dtype=dtype)
            setattr(self, f"layer{number}", unit)
        collected = in_channels + layers * width
        self.squeeze = Unit(collected, out_channels // 2, 1, affine=affine, dtype=dtype)
        self.excite = Unit(out_channels // 2, out_channels, 1, affine=affine, dtype=dtype)
        self.layers, self.residual = layers, residual

    def __call__(self, x: Float[Array, "B H W C"], *, train: bool) -> Float[Array, "B H W D"]:
        maps = [x]
        for number in range(self.layers):
            maps.append(getattr(self, f"layer{number}")(maps[-1], train=train))
        mixed = self.squeeze(jnp.concatenate(maps, -1), train=train)
        mixed = self.excite(mixed, train=train)
        return x + mixed if self.residual else mixed


class LightUnit(nnx.Module):
    """Pointwise convolution without activation, then a depthwise unit."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        affine: bool,
        dtype: jnp.dtype | None,
    ) -> None:
        self.conv1 = ConvNorm(in_channels, out_channels, 1, dtype=dtype)
        self.conv2 = Unit(
            out_channels, out_channels, kernel_size, groups=out_channels, affine=affine, dtype=dtype
        )

    def __call__(self, x: Float[Array, "B H W C"], *, train: bool) -> Float[Array, "B H W D"]:
        return self.conv2(self.conv1(x, train=train), train=train)


def names(backbone: PPHGNetV2, origin: str) -> NameTable:
    """Map each parameter and statistic to its place in a file of `origin`: paddle or timm."""
    config, is_paddle = backbone.config, origin == "paddle"
    table: NameTable = {}
    for ours, theirs, is_activated in _units(config, is_paddle=is_paddle):
        table |= conv_norm_names(ours, f"{theirs}.conv", f"{theirs}.bn", origin=origin)
        if is_activated and config.affine:
            table |= _affine_names(f"{ours}/lab", f"{theirs}.lab")
    last_conv = "last_conv" if is_paddle else "head.last_conv.0"
    table["last_conv/kernel"] = Foreign(f"{last_conv}.weight", "conv")
    if config.affine:
        table |= _affine_names("lab", "lab" if is_paddle else "head.last_conv.2")
    scale = float(np.float32(1.0 - config.dropout)) if is_paddle else 1.0
    table["feature_scale"] = Foreign(None, "scale", scale)
    return table


def _affine_names(ours: str, theirs: str) -> NameTable:
    return {f"{ours}/{name}": Foreign(f"{theirs}.{name}") for name in ("scale", "bias")}


def _units(config: PPHGNetV2Config, *, is_paddle: bool) -> list[tuple[str, str, bool]]:
    """Our path, their prefix, and whether an activation follows, of every convolution with norm."""
    mixers = (
        ("aggregation_squeeze_conv", "aggregation_excitation_conv")
        if is_paddle
        else ("aggregation.0", "aggregation.1")
    )
    units = [
        (f"stem/{name}", f"stem.{name}", True)
        for name in ("stem1", "stem2a", "stem2b", "stem3", "stem4")
    ]
    for index, ((_, _, blocks), (_, is_light)) in enumerate(
        zip(config.stages, STAGES, strict=True)
    ):
        if index > 0:
            units.append((f"stage{index}/downsample", f"stages.{index}.downsample", False))
        for number in range(blocks):
            ours, theirs = f"stage{index}/block{number}", f"stages.{index}.blocks.{number}"
            for layer in range(config.layers):
                unit = (f"{ours}/layer{layer}", f"{theirs}.layers.{layer}")
                if is_light:
                    units.append((f"{unit[0]}/conv1", f"{unit[1]}.conv1", False))
                    units.append((f"{unit[0]}/conv2", f"{unit[1]}.conv2", True))
                else:
                    units.append((*unit, True))
            for mixer, name in zip(("squeeze", "excite"), mixers, strict=True):
                units.append((f"{ours}/{mixer}", f"{theirs}.{name}", True))
    return units


def sources(name: str) -> tuple[Source, ...]:
    """Return the published weights of a variant.

    PaddleClas recommends those of the first stage of its distillation as a start for other tasks.
    """
    size = name.removeprefix("PP-HGNetV2-")
    first, second = "ImageNet-22k and -1k by distillation", "the same, finished on ImageNet"
    return (
        paddle(f"PPHGNetV2_{size}_ssld_stage1_pretrained", trained_on=first),
        paddle(f"PPHGNetV2_{size}_ssld_pretrained", word="ssld_stage2", trained_on=second),
        timm(f"hgnetv2_{size.lower()}.ssld_stage1_in22k_in1k", trained_on=first),
    )


FAMILY = Family(
    variants=VARIANTS,
    build=PPHGNetV2,
    names=names,
    recipes="hgnetv2",
    heads={"paddle": "fc", "timm": "head.fc"},
    official=("PP-HGNetV2-B0", "PP-HGNetV2-B4", "PP-HGNetV2-B6"),
    sources=sources,
    timm_names={f"hgnetv2_{name[-2:].lower()}": name for name in VARIANTS},
)
