"""PP-HGNetV2 B0 to B6 as in PaddleClas: blocks that aggregate the outputs of all their layers."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from mlcls_jax.models.chain import LastConvChain
from mlcls_jax.models.family import Family
from mlcls_jax.models.initial import ONES, ZEROS, param
from mlcls_jax.models.layers import Conv, ConvNorm, MaxPool
from mlcls_jax.models.published import Source, paddle, timm
from mlcls_jax.models.weight_names import NameTable, renamed

# A stage's kernel size, and whether its layers are light: pointwise, then depthwise.
STAGES = ((3, False), (3, False), (5, True), (5, True))


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


def build(
    config: PPHGNetV2Config, *, pool: bool = False, dtype: jnp.dtype | None = None
) -> LastConvChain:
    """Return a network whose map has 2048 channels and, for the default strides, 1/32 of a side."""
    unit = partial(Unit, affine=config.affine, dtype=dtype)
    blocks: list[dict[str, nnx.Module]] = []
    channels = config.stem[1]
    for stage, (width, out_channels, count) in enumerate(config.stages):
        kernel_size, is_light = STAGES[stage]
        layer = partial(LightUnit, unit) if is_light else unit
        for index in range(count):
            group: dict[str, nnx.Module] = {}
            if stage and not index:
                stride = config.strides[stage + 1]
                down = ConvNorm(channels, channels, 3, stride=stride, groups=channels, dtype=dtype)
                group[f"stage{stage}/downsample"] = down
            layers = [
                layer(width if number else channels, width, kernel_size)
                for number in range(config.layers)
            ]
            block = Block(
                channels, layers, out_channels, width=width, unit=unit, residual=index > 0
            )
            blocks.append(group | {f"stage{stage}/block{index}": block})
            channels = out_channels
    return LastConvChain(
        config,
        stem={"stem": Stem(*config.stem, config.strides[:2], unit=unit)},
        blocks=blocks,
        last_conv=Conv(channels, config.out_channels, 1, dtype=dtype),
        activation=nnx.relu,
        lab=Affine() if config.affine else None,
        pool=pool,
    )


class Affine(nnx.Module):
    """One learnable scale and one learnable shift for the whole map."""

    def __init__(self) -> None:
        self.scale, self.bias = param((1,), ONES), param((1,), ZEROS)

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        return x * self.scale[...].astype(x.dtype) + self.bias[...].astype(x.dtype)


class Unit(ConvNorm):
    """Convolution, batch normalisation, ReLU, optional learnable affine ("lab")."""

    def __init__(self, *sizes: int, affine: bool, **options: Any) -> None:
        super().__init__(*sizes, activation=nnx.relu, **options)
        self.lab = Affine() if affine else None

    def __call__(self, x: Float[Array, "B H W C"], *, train: bool) -> Float[Array, "B h w D"]:
        x = super().__call__(x, train=train)
        return x if self.lab is None else self.lab(x)


class LightUnit(nnx.Module):
    """Pointwise convolution without activation, then a depthwise unit."""

    def __init__(
        self, unit: partial[Unit], in_channels: int, out_channels: int, kernel_size: int
    ) -> None:
        self.conv1 = ConvNorm(in_channels, out_channels, 1, dtype=unit.keywords["dtype"])
        self.conv2 = unit(out_channels, out_channels, kernel_size, groups=out_channels)

    def __call__(self, x: Float[Array, "B H W C"], *, train: bool) -> Float[Array, "B H W D"]:
        return self.conv2(self.conv1(x, train=train), train=train)


class Stem(nnx.Module):
    """A strided convolution, two branches (max-pool, 2x2 convolutions), a strided convolution."""

    def __init__(
        self, width: int, out_channels: int, strides: tuple[int, ...], *, unit: partial[Unit]
    ) -> None:
        self.stem1 = unit(3, width, 3, stride=strides[0])
        self.max_pool = MaxPool(2, stride=1)
        self.stem2a = unit(width, width // 2, 2)
        self.stem2b = unit(width // 2, width, 2)
        self.stem3 = unit(2 * width, width, 3, stride=strides[1])
        self.stem4 = unit(width, out_channels, 1)

    def __call__(self, images: Float[Array, "B H W 3"], *, train: bool) -> Float[Array, "B h w C"]:
        x = self.stem1(images, train=train)
        # Affines make values negative: the missing neighbours of the last row and column are -inf.
        pooled = self.max_pool(x)
        convolved = self.stem2b(self.stem2a(x, train=train), train=train)
        x = self.stem3(jnp.concatenate([pooled, convolved], -1), train=train)
        return self.stem4(x, train=train)


class Block(nnx.Module):
    """Layers in a row; what goes in and what each gives is concatenated and mixed."""

    def __init__(
        self,
        in_channels: int,
        layers: Sequence[Unit | LightUnit],
        out_channels: int,
        *,
        width: int,
        unit: partial[Unit],
        residual: bool,
    ) -> None:
        self.layers, self.residual = len(layers), residual
        for number, layer in enumerate(layers):
            setattr(self, f"layer{number}", layer)
        self.squeeze = unit(in_channels + len(layers) * width, out_channels // 2, 1)
        self.excite = unit(out_channels // 2, out_channels, 1)

    def __call__(self, x: Float[Array, "B H W C"], *, train: bool) -> Float[Array, "B H W D"]:
        maps = [x]
        for number in range(self.layers):
            maps.append(getattr(self, f"layer{number}")(maps[-1], train=train))
        mixed = self.squeeze(jnp.concatenate(maps, -1), train=train)
        mixed = self.excite(mixed, train=train)
        return x + mixed if self.residual else mixed


RULES = (
    (r"^stage(\d)\.", r"stages.\1."),
    (r"\.block(\d+)", r".blocks.\1"),
    (r"\.layer(\d)", r".layers.\1"),
    (r"\.norm\.", ".bn."),
    (r"lab\.weight", "lab.scale"),
)
MIXERS = {
    "paddle": (
        (r"\.squeeze\.", ".aggregation_squeeze_conv."),
        (r"\.excite\.", ".aggregation_excitation_conv."),
    ),
    "timm": (
        (r"\.squeeze\.", ".aggregation.0."),
        (r"\.excite\.", ".aggregation.1."),
        (r"^last_conv", "head.last_conv.0"),
        (r"^lab", "head.last_conv.2"),
    ),
}


def names(backbone: LastConvChain, origin: str) -> NameTable:
    """Map each parameter and statistic to its place in a file of `origin`: paddle or timm."""
    return renamed(backbone, origin, RULES + MIXERS[origin]) | backbone.scale_name(origin)


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
    build=build,
    names=names,
    recipes="hgnetv2",
    heads={"paddle": "fc", "timm": "head.fc"},
    official=("PP-HGNetV2-B0", "PP-HGNetV2-B4", "PP-HGNetV2-B6"),
    sources=sources,
    timm_names={f"hgnetv2_{name[-2:].lower()}": name for name in VARIANTS},
)
