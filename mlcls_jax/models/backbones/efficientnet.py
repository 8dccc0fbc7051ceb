"""EfficientNet (Tan and Le, 2019) and V2 (Tan and Le, 2021) as in timm and PaddleClas.

PaddleClas' networks are those of TensorFlow, which timm calls `tf_*`: padding where an even side
is halved is not alike on both sides, and norms have an epsilon of 1e-3. PaddleClas pads for the
side that a network was trained with, whatever it is given; here, as in timm, the true side counts.
EfficientNet-Lite is TensorFlow's form for phones, without weighing of channels.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array

from mlcls_jax.models.chain import Chain
from mlcls_jax.models.family import Family
from mlcls_jax.models.inverted_residual import InvertedResidual, timm_rules
from mlcls_jax.models.layers import ConvNorm, SqueezeExcite, scaled
from mlcls_jax.models.pixels import HALVES, IMAGENET, Pixels
from mlcls_jax.models.published import Source, paddle, timm
from mlcls_jax.models.weight_names import NameTable, Rule, renamed


@dataclass(frozen=True)
class Stage:
    """Blocks at scale 1, of which the first has the stride.

    A `depthwise` block weighs channels; a `fused` one widens with its kernel instead; a `plain` one
    is one convolution.
    """

    kind: str
    blocks: int
    kernel_size: int
    stride: int
    expansion: int
    width: int


V1 = (
    Stage("depthwise", 1, 3, 1, 1, 16),
    Stage("depthwise", 2, 3, 2, 6, 24),
    Stage("depthwise", 2, 5, 2, 6, 40),
    Stage("depthwise", 3, 3, 2, 6, 80),
    Stage("depthwise", 3, 5, 1, 6, 112),
    Stage("depthwise", 4, 5, 2, 6, 192),
    Stage("depthwise", 1, 3, 1, 6, 320),
)


def _v2(blocks: tuple[int, ...], widths: tuple[int, ...]) -> tuple[Stage, ...]:
    """Return the stages of V2: three without depthwise convolutions, three or four with."""
    kinds = (
        ("plain", 1, 1),
        ("fused", 2, 4),
        ("fused", 2, 4),
        ("depthwise", 2, 4),
        ("depthwise", 1, 6),
        ("depthwise", 2, 6),
        ("depthwise", 1, 6),
    )
    return tuple(
        Stage(kind, count, 3, stride, expansion, width)
        for (kind, stride, expansion), count, width in zip(kinds, blocks, widths, strict=False)
    )


@dataclass(frozen=True, kw_only=True)
class EfficientNetConfig:
    """Stages at scale 1, scales of width and depth, and whose padding and norms."""

    stages: tuple[Stage, ...] = V1
    width: float = 1.0
    depths: tuple[float, ...] = (1.0,)  # of each stage; the last counts for those after it too
    stem: int = 32
    out_channels: int = 1280  # at scale 1
    least: float = 0.9  # of a scaled width, what rounding may leave
    is_tensorflow: bool = True
    is_lite: bool = False  # ReLU6, no weighing of channels; stem and last convolution never scaled
    drop_path: float = 0.0


def build(
    config: EfficientNetConfig, *, pool: bool = False, dtype: jnp.dtype | None = None
) -> Chain:
    """Return a network whose map has `out_channels` at its scale."""
    epsilon = 1e-3 if config.is_tensorflow else 1e-5
    activation = nnx.relu6 if config.is_lite else nnx.silu
    unit = partial(ConvNorm, same=config.is_tensorflow, epsilon=epsilon, dtype=dtype)
    block = partial(_block, unit=unit, activation=activation, is_lite=config.is_lite)
    rounded = partial(scaled, scale=config.width, least=config.least)
    fixed = (config.stem, config.out_channels)
    width, channels = fixed if config.is_lite else map(rounded, fixed)
    stem, blocks = unit(3, width, 3, stride=2, activation=activation), []
    for number, stage in enumerate(config.stages):
        depth = config.depths[min(number, len(config.depths) - 1)]
        for index in range(math.ceil(stage.blocks * depth)):
            stride = stage.stride if index == 0 else 1
            name = f"block{number}_{index}"
            blocks.append({name: block(width, rounded(stage.width), stage, stride)})
            width = rounded(stage.width)
    outputs = {"last_conv": unit(width, channels, 1, activation=activation)}
    return Chain(config, channels=channels, stem={"stem": stem}, blocks=blocks, outputs=outputs)


def _block(
    in_channels: int,
    width: int,
    stage: Stage,
    stride: int,
    *,
    unit: partial[ConvNorm],
    activation: Callable[[Array], Array],
    is_lite: bool,
) -> InvertedResidual:
    expanded, size, squeeze = in_channels * stage.expansion, stage.kernel_size, None
    sizes = {"depthwise": (int(stage.expansion > 1), size, 1), "fused": (size, 0, 1)}
    if stage.kind == "depthwise" and not is_lite:
        gated = partial(SqueezeExcite, activation=nnx.silu, gate=nnx.sigmoid)
        squeeze = gated(expanded, in_channels // 4, dtype=unit.keywords["dtype"])
    return InvertedResidual(
        in_channels,
        expanded,
        width,
        sizes=sizes.get(stage.kind, (0, 0, size)),
        stride=stride,
        activation=activation,
        squeeze=squeeze,
        unit=unit,
    )


def names(backbone: Chain, origin: str) -> NameTable:
    """Map each parameter and statistic to its place in a file of `origin`.

    It is paddle, timm, or efficientnet_pytorch, the names of TensorFlow's weights in PyTorch from
    before timm had them.
    """
    if origin == "efficientnet_pytorch":
        return renamed(backbone, origin, _numbered(backbone))
    if origin == "paddle":
        rules = _paddle_v1 if backbone.config.stages == V1 else _paddle_v2
        return renamed(backbone, origin, rules(backbone))
    rules = (
        (r"^stem\.conv", "conv_stem"),
        (r"^stem\.norm", "bn1"),
        (r"^last_conv\.conv", "conv_head"),
        (r"^last_conv\.norm", "bn2"),
        *timm_rules(backbone),
        (r"^block(\d+)_", r"blocks.\1."),
    )
    return renamed(backbone, origin, rules)


def _paddle_v1(backbone: Chain) -> tuple[Rule, ...]:
    """Return the places in PaddleClas' files of V1, which number the blocks throughout."""
    blocks = [path for (path,) in backbone.parts.stages]

    def place(found: re.Match[str]) -> str:
        owner = "_blocks" if found[0].endswith("_0") else "block"
        return f"_ef.{owner}.{blocks.index(found[0])}."

    return (
        (r"^stem\.", "_ef._conv_stem._conv."),
        (r"^last_conv\.", "_conv."),
        (r"^block\w+", place),
        (r"mid_se\.conv(\d)", r"_se._conv\1._conv"),
        (r"expand_conv", "_ecn._conv"),
        (r"bottleneck_conv", "_dcn._conv"),
        (r"linear_conv", "_pcn._conv"),
        (r"_conv\.conv\.", "_conv._conv._conv."),
        (r"_conv\.norm\.", "_conv._bn."),
    )


def _paddle_v2(backbone: Chain) -> tuple[Rule, ...]:
    """Return the same for V2, whose norms are numbered."""
    blocks = [path for (path,) in backbone.parts.stages]

    def last_norm(found: re.Match[str]) -> str:
        block: InvertedResidual = getattr(backbone, found[1])
        return f"{found[1]}._norm{1 if block.bottleneck_conv is None else 2}"

    return (
        (r"^stem\.conv", "_stem._conv_stem._conv"),
        (r"^last_conv\.conv", "_head._conv_head"),  # the only one without a wrapper
        (r"^stem\.norm", "_stem._norm"),
        (r"^last_conv\.norm", "_head._norm"),
        (r"mid_se\.conv1", "_se._se_reduce._conv"),
        (r"mid_se\.conv2", "_se._se_expand._conv"),
        (r"expand_conv\.conv", "_expand_conv._conv"),
        (r"bottleneck_conv\.conv", "_depthwise_conv._conv"),
        (r"linear_conv\.conv", "_project_conv._conv"),
        (r"expand_conv\.norm", "_norm0"),
        (r"bottleneck_conv\.norm", "_norm1"),
        (r"^(block\w+)\.linear_conv\.norm", last_norm),
        (r"^block\w+", lambda found: f"_blocks.{blocks.index(found[0])}"),
    )


def _numbered(backbone: Chain) -> tuple[Rule, ...]:
    """Return the places in files of the package efficientnet_pytorch and its followers."""
    blocks = [path for (path,) in backbone.parts.stages]
    return (
        (r"^stem\.conv", "_conv_stem"),
        (r"^stem\.norm", "_bn0"),
        (r"^last_conv\.conv", "_conv_head"),
        (r"^last_conv\.norm", "_bn1"),
        (r"expand_conv\.conv", "_expand_conv"),
        (r"expand_conv\.norm", "_bn0"),
        (r"bottleneck_conv\.conv", "_depthwise_conv"),
        (r"bottleneck_conv\.norm", "_bn1"),
        (r"linear_conv\.conv", "_project_conv"),
        (r"linear_conv\.norm", "_bn2"),
        (r"^block\w+", lambda found: f"_blocks.{blocks.index(found[0])}"),
    )


# Scales of width and depth, and the tag of the weights that timm takes for its own network.
SCALES = {
    "B0": (1.0, 1.0, "ra_in1k"),
    "B1": (1.0, 1.1, "ra4_e3600_r240_in1k"),
    "B2": (1.1, 1.2, "ra_in1k"),
    "B3": (1.2, 1.4, "ra2_in1k"),
    "B4": (1.4, 1.8, "ra2_in1k"),
    "B5": (1.6, 2.2, "sw_in12k_ft_in1k"),
    "B6": (1.8, 2.6, None),
    "B7": (2.0, 3.1, None),
    "B8": (2.2, 3.6, None),
    "L2": (4.3, 5.3, None),
}
V2_B = _v2((1, 2, 2, 3, 5, 8), (16, 32, 48, 96, 112, 192))
V2_S = _v2((2, 4, 4, 6, 9, 15), (24, 48, 64, 128, 160, 256))
V2_M = _v2((3, 5, 5, 7, 14, 18, 5), (24, 48, 80, 160, 176, 304, 512))
V2_L = _v2((4, 7, 7, 10, 19, 25, 7), (32, 64, 96, 192, 224, 384, 640))
V2_XL = _v2((4, 8, 8, 16, 24, 32, 8), (32, 64, 96, 192, 256, 512, 640))
# timm's own, from before the authors' code was public.
V2_RW = (Stage("fused", 2, 3, 1, 1, 24), *V2_S[1:-1], Stage("depthwise", 15, 3, 2, 6, 272))

VARIANTS = {
    **{
        f"EfficientNet{size}": EfficientNetConfig(width=w, depths=(d,))
        for size, (w, d, _) in SCALES.items()
    },
    **{
        f"EfficientNetV2_{size}": EfficientNetConfig(stages=V2_B, width=w, depths=(d,), least=0.0)
        for size, (w, d, _) in [*SCALES.items()][:4]
    },
    "EfficientNetV2_S": EfficientNetConfig(stages=V2_S, stem=24),
    "EfficientNetV2_M": EfficientNetConfig(stages=V2_M, stem=24),
    "EfficientNetV2_L": EfficientNetConfig(stages=V2_L),
    "EfficientNetV2_XL": EfficientNetConfig(stages=V2_XL),
}
# Padded and normalised as PyTorch does it.
_own = partial(EfficientNetConfig, is_tensorflow=False)
TIMM_VARIANTS = {
    **{
        f"efficientnet_{size.lower()}": _own(width=w, depths=(d,))
        for size, (w, d, tag) in SCALES.items()
        if tag
    },
    "efficientnetv2_rw_t": _own(stages=V2_S, stem=24, width=0.8, depths=(0.9,)),
    "efficientnetv2_rw_s": _own(stages=V2_RW, stem=24, out_channels=1792),
    "efficientnetv2_rw_m": _own(
        stages=V2_RW, stem=24, out_channels=1792, width=1.2, depths=(1.2, 1.2, 1.2, 1.2, 1.6)
    ),
}
# The first and the last stage never get deeper.
LITE_VARIANTS = {
    f"tf_efficientnet_lite{size}": EfficientNetConfig(
        width=w, depths=(1.0, *(d,) * 5, 1.0), is_lite=True
    )
    for size, (w, d) in enumerate([(1.0, 1.0), (1.0, 1.1), (1.1, 1.2), (1.2, 1.4), (1.4, 1.8)])
} | {"efficientnet_lite0": _own(is_lite=True)}
TIMM_NAMES = {"tf_" + re.sub(r"(?<=Net)(?=[BL])", "_", name).lower(): name for name in VARIANTS}
ONLY_TIMM = ("EfficientNetB8", "EfficientNetL2", *(f"EfficientNetV2_B{n}" for n in range(4)))


def _tag(name: str) -> str:
    """Return the tag of the weights that timm takes for a variant."""
    if name in TIMM_VARIANTS:
        own = SCALES.get(name[-2:].upper(), (0, 0, None))[2]
        return own or ("agc_in1k" if name == "efficientnetv2_rw_m" else "ra2_in1k")
    if "V2" not in name:
        return "ap_in1k" if name.endswith("B8") else "ns_jft_in1k"
    return "in1k" if name.endswith(("B0", "B1", "B2")) else "in21k_ft_in1k"


def pixels(name: str) -> Pixels:
    """Return the statistics of the pixels that the weights of a network were trained with."""
    tag = _tag(TIMM_NAMES.get(name, name))
    return HALVES if "21k" in tag or tag.startswith(("ra4", "ap")) else IMAGENET


def sources(name: str) -> tuple[Source, ...]:
    """Return the published weights of a variant."""
    tag, statistics = _tag(name), pixels(name).name
    twin = next((twin for twin, ours in TIMM_NAMES.items() if ours == name), name)
    data = {"21k": "ImageNet-21k", "12k": "ImageNet-12k", "jft": "JFT"}
    trained_on = next((told for sign, told in data.items() if sign in tag), "ImageNet")
    found = timm(f"{twin}.{tag}", trained_on=trained_on, pixels=statistics)
    if name in (*TIMM_VARIANTS, *ONLY_TIMM):
        return (found,)
    return found, replace(paddle(f"{name}_pretrained", folder=""), pixels=statistics)


FAMILY = Family(
    variants=VARIANTS,
    build=build,
    names=names,
    heads={"paddle": "_fc", "timm": "classifier"},
    sources=sources,
    timm_names=TIMM_NAMES,
    pixels=pixels,
)
TIMM_FAMILY = Family(
    variants=TIMM_VARIANTS,
    build=build,
    names=names,
    heads={"timm": "classifier"},
    sources=sources,
    pixels=pixels,
)
LITE_FAMILY = Family(
    variants=LITE_VARIANTS,
    build=build,
    names=names,
    heads={"timm": "classifier", "efficientnet_pytorch": "_fc"},
    sources=lambda name: (
        (timm(f"{name}.in1k", pixels=HALVES.name),)
        if name.startswith("tf_")
        else (timm(f"{name}.ra_in1k"),)
    ),
    pixels=lambda name: HALVES if name.startswith("tf_") else IMAGENET,
)
