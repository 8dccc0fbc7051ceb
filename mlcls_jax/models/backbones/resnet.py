"""ResNet (He et al., 2015), the form with the stride on the 3x3 convolution ("vb", "v1.5").

ResNet50, 101 and 152 have the same tensors in Paddle and in timm. ResNet18 and 34 have those of
torchvision and timm; Paddle's have one more projection, at the shortcut of the very first block.
"""

from dataclasses import dataclass

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from mlcls_jax.models.dropout import Draws
from mlcls_jax.models.family import Family, Parts
from mlcls_jax.models.initial import small_uniform
from mlcls_jax.models.layers import ConvNorm, MaxPool
from mlcls_jax.models.published import Source, paddle, timm
from mlcls_jax.models.weight_names import NameTable, conv_norm_names

STEM_WIDTH = 64
WIDTHS = (64, 128, 256, 512)  # of a stage's 3x3 convolutions


@dataclass(frozen=True, kw_only=True)
class ResNetConfig:
    """Depth and strides; the strides belong to the stem and the four stages."""

    blocks: tuple[int, ...] = (3, 4, 6, 3)  # a stage
    bottleneck: bool = True  # 1x1, 3x3, 1x1 to four times the width; or two 3x3
    strides: tuple[int, ...] = (2, 1, 2, 2, 2)  # the max-pool after the stem has always 2


VARIANTS = {
    "ResNet18": ResNetConfig(blocks=(2, 2, 2, 2), bottleneck=False),
    "ResNet34": ResNetConfig(bottleneck=False),
    "ResNet50": ResNetConfig(),
    "ResNet101": ResNetConfig(blocks=(3, 4, 23, 3)),
    "ResNet152": ResNetConfig(blocks=(3, 8, 36, 3)),
}


class ResNet(nnx.Module):
    """images [B, H, W, 3] → features [B, H / 32, W / 32, C], for the default strides.

    C is 2048 with bottlenecks and 512 without. The map is the same whether a head pools it or not.
    """

    def __init__(
        self, config: ResNetConfig, *, pool: bool = False, dtype: jnp.dtype | None = None
    ) -> None:
        stem_stride, *stage_strides = config.strides
        self.stem = ConvNorm(3, STEM_WIDTH, 7, stride=stem_stride, activation=nnx.relu, dtype=dtype)
        self.max_pool = MaxPool(3, stride=2)
        block = Bottleneck if config.bottleneck else BasicBlock
        channels, paths = STEM_WIDTH, []
        for width, blocks, stride in zip(WIDTHS, config.blocks, stage_strides, strict=True):
            for index in range(blocks):
                module = block(channels, width, stride=stride if index == 0 else 1, dtype=dtype)
                paths.append(f"block{len(paths)}")
                setattr(self, paths[-1], module)
                channels = width * block.expansion
        self.channels, self.config = channels, config
        self.parts = Parts(stem=("stem",), stages=tuple((path,) for path in paths))

    def __call__(
        self, images: Float[Array, "B H W 3"], *, train: bool = False, draws: Draws | None = None
    ) -> Float[Array, "B h w C"]:
        x = self.max_pool(self.stem(images, train=train))
        for (path,) in self.parts.stages:
            x = getattr(self, path)(x, train=train)
        return x


class Bottleneck(nnx.Module):
    """1x1 to `width`, 3x3 with the stride, 1x1 to four times the width; added to the shortcut."""

    expansion = 4

    def __init__(
        self, in_channels: int, width: int, *, stride: int, dtype: jnp.dtype | None
    ) -> None:
        self.conv0 = ConvNorm(in_channels, width, 1, activation=nnx.relu, dtype=dtype)
        self.conv1 = ConvNorm(width, width, 3, stride=stride, activation=nnx.relu, dtype=dtype)
        self.conv2 = ConvNorm(width, width * self.expansion, 1, dtype=dtype)
        self.short = _shortcut(in_channels, width * self.expansion, stride, dtype)

    def __call__(self, x: Float[Array, "B H W C"], *, train: bool) -> Float[Array, "B h w D"]:
        branch = self.conv1(self.conv0(x, train=train), train=train)
        branch = self.conv2(branch, train=train)
        return nnx.relu(branch + (x if self.short is None else self.short(x, train=train)))


class BasicBlock(nnx.Module):
    """3x3 with the stride, 3x3; added to the shortcut."""

    expansion = 1

    def __init__(
        self, in_channels: int, width: int, *, stride: int, dtype: jnp.dtype | None
    ) -> None:
        self.conv0 = ConvNorm(
            in_channels, width, 3, stride=stride, activation=nnx.relu, dtype=dtype
        )
        self.conv1 = ConvNorm(width, width, 3, dtype=dtype)
        self.short = _shortcut(in_channels, width, stride, dtype)

    def __call__(self, x: Float[Array, "B H W C"], *, train: bool) -> Float[Array, "B h w D"]:
        branch = self.conv1(self.conv0(x, train=train), train=train)
        return nnx.relu(branch + (x if self.short is None else self.short(x, train=train)))


def _shortcut(
    in_channels: int, out_channels: int, stride: int, dtype: jnp.dtype | None
) -> ConvNorm | None:
    """The projection of the shortcut, where the shape changes; None: the identity."""
    if stride == 1 and in_channels == out_channels:
        return None
    return ConvNorm(in_channels, out_channels, 1, stride=stride, dtype=dtype)


def names(backbone: ResNet, origin: str) -> NameTable:
    """Map each parameter and statistic to its place in a file of `origin`: paddle or timm."""
    is_paddle = origin == "paddle"
    units = [("stem", "stem.0.conv", "stem.0.bn") if is_paddle else ("stem", "conv1", "bn1")]
    blocks = [(s, j) for s, count in enumerate(backbone.config.blocks, 1) for j in range(count)]
    for number, (stage, index) in enumerate(blocks):
        block = getattr(backbone, f"block{number}")
        convs = [f"conv{i}" for i in range(3 if backbone.config.bottleneck else 2)]
        for i, conv in enumerate(convs if block.short is None else [*convs, "short"], 1):
            ours, theirs = f"block{number}/{conv}", f"layer{stage}.{index}"
            if is_paddle:
                theirs = f"blocks.{number}.{conv}"
                units.append((ours, f"{theirs}.conv", f"{theirs}.bn"))
            elif conv == "short":
                units.append((ours, f"{theirs}.downsample.0", f"{theirs}.downsample.1"))
            else:
                units.append((ours, f"{theirs}.conv{i}", f"{theirs}.bn{i}"))
    table: NameTable = {}
    for ours, conv, norm in units:
        table |= conv_norm_names(ours, conv, norm, origin=origin)
    return table


def sources(name: str) -> tuple[Source, ...]:
    """Return the published weights of a variant; Paddle's ResNet18 and 34 are other networks."""
    ours = timm(f"{name.lower()}.a1_in1k")
    return (paddle(f"{name}_pretrained"), ours) if VARIANTS[name].bottleneck else (ours,)


FAMILY = Family(
    variants=VARIANTS,
    build=ResNet,
    names=names,
    heads={"paddle": "fc", "timm": "fc"},
    head_initial=small_uniform,
    official=("ResNet50",),
    sources=sources,
    timm_names={name.lower(): name for name in VARIANTS},
)
