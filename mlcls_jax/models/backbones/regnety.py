"""RegNetY (Radosavovic et al., 2020) as in timm."""

from dataclasses import dataclass

import jax.numpy as jnp
from flax import nnx

from mlcls_jax.models.chain import Chain
from mlcls_jax.models.family import Family
from mlcls_jax.models.initial import Normal
from mlcls_jax.models.layers import ConvNorm, SqueezeExcite
from mlcls_jax.models.published import Source, timm
from mlcls_jax.models.residual import TIMM_RULES, Residual
from mlcls_jax.models.weight_names import NameTable, renamed

STEM_WIDTH = 32


@dataclass(frozen=True)
class RegNetYConfig:
    """Blocks and widths of the four stages, and the channels that a 3 x 3 convolution mixes."""

    blocks: tuple[int, int, int, int]
    widths: tuple[int, int, int, int]
    group: int
    drop_path: float = 0.0


# By timm's number, which is a hundredth of millions of multiply-accumulates: sizes, and the tag of
# the weights that timm takes. torchvision rounds the widths of two in another way.
SIZES = {
    "002": (RegNetYConfig((1, 1, 4, 7), (24, 56, 152, 368), 8), "pycls_in1k"),
    "004": (RegNetYConfig((1, 3, 6, 6), (48, 104, 208, 440), 8), "tv2_in1k"),
    "006": (RegNetYConfig((1, 3, 7, 4), (48, 112, 256, 608), 16), "pycls_in1k"),
    "008": (RegNetYConfig((1, 3, 8, 2), (64, 128, 320, 768), 16), "pycls_in1k"),
    "008_tv": (RegNetYConfig((1, 3, 8, 2), (64, 144, 320, 784), 16), "tv2_in1k"),
    "016": (RegNetYConfig((2, 6, 17, 2), (48, 120, 336, 888), 24), "tv2_in1k"),
    "032": (RegNetYConfig((2, 5, 13, 1), (72, 216, 576, 1512), 24), "ra_in1k"),
    "040": (RegNetYConfig((2, 6, 12, 2), (128, 192, 512, 1088), 64), "ra3_in1k"),
    "064": (RegNetYConfig((2, 7, 14, 2), (144, 288, 576, 1296), 72), "ra3_in1k"),
    "080": (RegNetYConfig((2, 4, 10, 1), (168, 448, 896, 2016), 56), "ra3_in1k"),
    "080_tv": (RegNetYConfig((2, 4, 10, 1), (224, 448, 896, 2016), 56), "tv2_in1k"),
    "120": (RegNetYConfig((2, 5, 11, 1), (224, 448, 896, 2240), 112), "sw_in12k_ft_in1k"),
    "160": (RegNetYConfig((2, 4, 11, 1), (224, 448, 1232, 3024), 112), "sw_in12k_ft_in1k"),
    "320": (RegNetYConfig((2, 5, 12, 1), (232, 696, 1392, 3712), 232), "tv2_in1k"),
    "640": (RegNetYConfig((2, 5, 12, 1), (328, 984, 1968, 4920), 328), "seer_ft_in1k"),
    "1280": (RegNetYConfig((2, 7, 17, 1), (528, 1056, 2904, 7392), 264), "swag_ft_in1k"),
    "2560": (RegNetYConfig((2, 7, 17, 1), (746, 1492, 4103, 10444), 373), "seer_ft_in1k"),
}
# Licence and data of the weights with a tag; the others are Apache-2.0, of ImageNet.
FACTS = {
    "pycls_in1k": ("MIT", "ImageNet"),
    "tv2_in1k": ("BSD-3-Clause", "ImageNet"),
    "sw_in12k_ft_in1k": ("Apache-2.0", "ImageNet-12k"),
    "seer_ft_in1k": ("SEER licence", "Instagram"),
    "swag_ft_in1k": ("CC-BY-NC-4.0", "Instagram"),
}


def build(config: RegNetYConfig, *, pool: bool = False, dtype: jnp.dtype | None = None) -> Chain:
    """Return a network whose map has widths[3] channels."""
    stem = ConvNorm(3, STEM_WIDTH, 3, stride=2, activation=nnx.relu, dtype=dtype)
    channels, blocks = STEM_WIDTH, []
    for stage, (count, width) in enumerate(zip(config.blocks, config.widths, strict=True), 1):
        for index in range(count):
            reduced = round(channels / 4)
            block = Residual(
                channels,
                width,
                width,
                stride=2 if index == 0 else 1,
                groups=width // config.group,
                squeeze=SqueezeExcite(width, reduced, gate=nnx.sigmoid, dtype=dtype),
                dtype=dtype,
            )
            blocks.append({f"stage{stage}_{index}": block})
            channels = width
    return Chain(config, channels=channels, stem={"stem": stem}, blocks=blocks)


def names(backbone: Chain, origin: str) -> NameTable:
    """Map each parameter and statistic to its place in a file of timm."""
    rules = ((r"^stage(\d)_(\d+)", lambda m: f"s{m[1]}.b{int(m[2]) + 1}"), *TIMM_RULES)
    return renamed(backbone, origin, rules)


def _name(size: str) -> str:
    """Return the name in PaddleClas' style: RegNetY_400MF for 004, RegNetY_4GF for 040."""
    number, _, rest = size.partition("_")
    flops = 100 * int(number)
    power = f"{flops // 1000}GF" if flops >= 4000 and flops % 1000 == 0 else f"{flops}MF"
    return f"RegNetY_{power}{'_' * bool(rest)}{rest}"


def sources(name: str) -> tuple[Source, ...]:
    """Return the published weights of a variant."""
    size = next(size for size in SIZES if _name(size) == name)
    tag = SIZES[size][1]
    licence, trained_on = FACTS.get(tag, ("Apache-2.0", "ImageNet"))
    return (timm(f"regnety_{size}.{tag}", licence=licence, trained_on=trained_on),)


FAMILY = Family(
    variants={_name(size): sizes for size, (sizes, _) in SIZES.items()},
    build=build,
    names=names,
    heads={"timm": "head.fc"},
    head_initial=lambda channels: Normal(0.01),
    sources=sources,
    timm_names={f"regnety_{size}": _name(size) for size in SIZES},
)
