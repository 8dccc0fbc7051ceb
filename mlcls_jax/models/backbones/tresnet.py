"""TResNet (Ridnik et al., 2020) as in timm, and in the files of its authors.

The authors' networks normalise by the absolute value of a scale (in-place ABN), which is what is
stored here.
"""

from dataclasses import dataclass
from functools import partial

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array

from mlcls_jax.models.chain import Chain
from mlcls_jax.models.family import Family
from mlcls_jax.models.initial import Normal
from mlcls_jax.models.layers import ConvNorm, SqueezeExcite, squares_to_channels
from mlcls_jax.models.pixels import UNIT
from mlcls_jax.models.published import Source, timm
from mlcls_jax.models.residual import TIMM_RULES, Residual, blur
from mlcls_jax.models.weight_names import NameTable, renamed

CELL = 4  # pixels each way that become channels


@dataclass(frozen=True, kw_only=True)
class TResNetConfig:
    """Blocks of the four stages, and the width of the stem."""

    blocks: tuple[int, int, int, int]
    width: int = 64
    is_v2: bool = False  # bottlenecks in the first two stages as well
    drop_path: float = 0.0


VARIANTS = {
    "TResNet_M": TResNetConfig(blocks=(3, 4, 11, 3)),
    "TResNet_L": TResNetConfig(blocks=(4, 5, 18, 3), width=76),
    "TResNet_XL": TResNetConfig(blocks=(4, 5, 24, 3), width=83),
    "TResNet_V2_L": TResNetConfig(blocks=(3, 4, 23, 3), is_v2=True),
}


def build(config: TResNetConfig, *, pool: bool = False, dtype: jnp.dtype | None = None) -> Chain:
    """Return a network whose map has 32 times the stem's width in channels."""
    channels, blocks = config.width, []
    stem = ConvNorm(3 * CELL**2, channels, 3, activation=leaky, dtype=dtype)
    for stage, count in enumerate(config.blocks):
        is_bottleneck, width = config.is_v2 or stage >= 2, config.width * 2**stage
        out_channels = width * (4 if is_bottleneck else 1)
        for index in range(count):
            squeeze = None
            if stage < 3:
                reduced = max(width // 2 if is_bottleneck else width // 4, 64)
                squeeze = SqueezeExcite(width, reduced, gate=nnx.sigmoid, dtype=dtype)
            block = Residual(
                channels,
                width,
                out_channels,
                stride=2 if stage > 0 and index == 0 else 1,
                is_bottleneck=is_bottleneck,
                squeeze=squeeze,
                smooth=blur,
                pooled=True,
                activation=slightly_leaky,
                dtype=dtype,
            )
            blocks.append({f"layer{stage + 1}_{index}": block})
            channels = out_channels
    stems = {"stem": stem}
    return Chain(
        config,
        channels=channels,
        stem=stems,
        blocks=blocks,
        before=partial(squares_to_channels, size=CELL),
    )


def leaky(x: Array) -> Array:
    """Return x, or a hundredth of it where it is negative."""
    return jnp.maximum(x, 1e-2 * x)


def slightly_leaky(x: Array) -> Array:
    """Return x, or a thousandth of it where it is negative."""
    return jnp.maximum(x, 1e-3 * x)


def names(backbone: Chain, origin: str) -> NameTable:
    """Map each parameter and statistic to its place in a file of timm, or of the authors: abn."""
    rules = (
        *TIMM_RULES,
        (r"^stem", "body.conv1"),
        (r"^layer(\d)_", r"body.layer\1."),
        (r"downsample", "downsample.1"),  # after the pooling
        (r"(layer1.*downsample)\.1", r"\1.0"),  # where there is none
    )
    if origin == "timm":
        return renamed(backbone, origin, rules)
    rules = (
        *rules,
        # A blurring comes after the last 3 x 3 of a block that halves the map, under the same name.
        (rf"(layer2\.0\.conv{1 + backbone.config.is_v2}|layer[34]\.0\.conv2)", r"\1.0"),
        (r"\.conv\.", ".0."),
        (r"\.bn\.", ".1."),
    )
    return renamed(backbone, origin, rules, layouts={"norm/scale$": "absolute"})


def sources(name: str) -> tuple[Source, ...]:
    """Return the published weights of a variant."""
    tag = "miil_in1k" if name in ("TResNet_L", "TResNet_XL") else "miil_in21k_ft_in1k"
    trained_on = "ImageNet-21k" if "21k" in tag else "ImageNet"
    return (timm(f"{name.lower()}.{tag}", trained_on=trained_on, pixels=UNIT.name),)


FAMILY = Family(
    variants=VARIANTS,
    build=build,
    names=names,
    heads={"timm": "head.fc", "abn": "head.fc"},
    head_initial=lambda channels: Normal(0.01),
    sources=sources,
    timm_names={name.lower(): name for name in VARIANTS},
    pixels=lambda name: UNIT,
)
