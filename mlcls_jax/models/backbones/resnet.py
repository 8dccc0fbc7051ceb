"""ResNet (He et al., 2015), the form with the stride on the 3x3 convolution ("vb", "v1.5").

The form "vd", timm's "d" (He et al., 2018), has three 3x3 convolutions for a stem, and takes means
before the convolutions of shortcuts. With bottlenecks the tensors are the same in Paddle and in
timm; those of 18 and 34 layers are torchvision's and timm's, Paddle's have one more projection, at
the shortcut of the very first block. ResNet200_vd is deeper elsewhere than timm's resnet200d.
"""

from dataclasses import dataclass, replace
from functools import partial

import jax.numpy as jnp
from flax import nnx

from mlcls_jax.models.chain import Chain
from mlcls_jax.models.family import Family
from mlcls_jax.models.initial import small_uniform
from mlcls_jax.models.layers import ConvNorm, MaxPool
from mlcls_jax.models.published import Source, paddle, timm
from mlcls_jax.models.residual import TIMM_RULES, Residual
from mlcls_jax.models.weight_names import NameTable, renamed

STEM_WIDTH = 64
WIDTHS = (64, 128, 256, 512)  # of a stage's 3x3 convolutions


@dataclass(frozen=True, kw_only=True)
class ResNetConfig:
    """Depth and strides; the strides belong to the stem and the four stages."""

    blocks: tuple[int, ...] = (3, 4, 6, 3)  # a stage
    bottleneck: bool = True  # 1x1, 3x3, 1x1 to four times the width; or two 3x3
    is_d: bool = False
    drop_path: float = 0.0
    strides: tuple[int, ...] = (2, 1, 2, 2, 2)  # the max-pool after the stem has always 2


VARIANTS = {
    "ResNet18": ResNetConfig(blocks=(2, 2, 2, 2), bottleneck=False),
    "ResNet34": ResNetConfig(bottleneck=False),
    "ResNet50": ResNetConfig(),
    "ResNet101": ResNetConfig(blocks=(3, 4, 23, 3)),
    "ResNet152": ResNetConfig(blocks=(3, 8, 36, 3)),
}
VARIANTS |= {f"{name}_vd": replace(sizes, is_d=True) for name, sizes in VARIANTS.items()} | {
    "ResNet26_vd": ResNetConfig(blocks=(2, 2, 2, 2), is_d=True),
    "ResNet200_vd": ResNetConfig(blocks=(3, 12, 48, 3), is_d=True),
    "resnet200d": ResNetConfig(blocks=(3, 24, 36, 3), is_d=True),
}


def build(config: ResNetConfig, *, pool: bool = False, dtype: jnp.dtype | None = None) -> Chain:
    """Return a network whose map has 2048 channels with bottlenecks, and 512 without."""
    stem_stride, *stage_strides = config.strides
    unit, half = partial(ConvNorm, activation=nnx.relu, dtype=dtype), STEM_WIDTH // 2
    stem = {"stem": unit(3, STEM_WIDTH, 7, stride=stem_stride)}
    if config.is_d:
        stem = {
            "stem0": unit(3, half, 3, stride=stem_stride),
            "stem1": unit(half, half, 3),
            "stem2": unit(half, STEM_WIDTH, 3),
        }
    channels, blocks = STEM_WIDTH, []
    for width, count, stride in zip(WIDTHS, config.blocks, stage_strides, strict=True):
        for index in range(count):
            out_channels = width * (4 if config.bottleneck else 1)
            block = Residual(
                channels,
                width,
                out_channels,
                stride=stride if index == 0 else 1,
                is_bottleneck=config.bottleneck,
                pooled=config.is_d,
                dtype=dtype,
            )
            blocks.append({f"block{len(blocks)}": block})
            channels = out_channels
    max_pool = MaxPool(3, stride=2)
    return Chain(config, channels=channels, stem=stem, blocks=blocks, max_pool=max_pool)


def names(backbone: Chain, origin: str) -> NameTable:
    """Map each parameter and statistic to its place in a file of `origin`: paddle or timm."""
    if origin == "paddle":
        rules = ((r"^stem(\d?)", lambda m: f"stem.{m[1] or 0}"), (r"^block", "blocks."))
        return renamed(backbone, origin, (*rules, (r"\.norm\.", ".bn.")))
    last, pooled = len(backbone.parts.stem) - 1, int(backbone.config.is_d)
    blocks = [(s, j) for s, n in enumerate(backbone.config.blocks, 1) for j in range(n)]
    rules = (
        (rf"^stem({last}|)\.norm", "bn1"),
        (r"^stem\.conv", "conv1"),
        (r"^stem(\d)\.conv", lambda m: f"conv1.{3 * int(m[1])}"),
        (r"^stem(\d)\.norm", lambda m: f"conv1.{3 * int(m[1]) + 1}"),
        (r"^block(\d+)", lambda m: "layer{}.{}".format(*blocks[int(m[1])])),
        *TIMM_RULES,
        (r"(conv\d)\.conv", r"\1"),
        (r"conv(\d)\.bn", r"bn\1"),
        (r"downsample\.conv", f"downsample.{pooled}"),  # after the pooling
        (r"downsample\.bn", f"downsample.{pooled + 1}"),
    )
    return renamed(backbone, origin, rules)


TIMM_NAMES = {name.lower().replace("_v", ""): name for name in VARIANTS if name != "ResNet200_vd"}


def sources(name: str) -> tuple[Source, ...]:
    """Return the published weights of a variant; Paddle's ResNet18 and 34 are other networks."""
    twin = next((twin for twin, ours in TIMM_NAMES.items() if ours == name), None)
    tag = "ra2_in1k" if VARIANTS[name].is_d else "a1_in1k"
    tag = "bt_in1k" if name == "ResNet26_vd" else tag
    found = (timm(f"{twin}.{tag}"),) if twin else ()
    is_paddles = VARIANTS[name].bottleneck and name not in ("ResNet26_vd", "resnet200d")
    return (paddle(f"{name}_pretrained"), *found) if is_paddles else found


FAMILY = Family(
    variants=VARIANTS,
    build=build,
    names=names,
    heads={"paddle": "fc", "timm": "fc"},
    head_initial=small_uniform,
    official=("ResNet50",),
    sources=sources,
    timm_names=TIMM_NAMES,
)
