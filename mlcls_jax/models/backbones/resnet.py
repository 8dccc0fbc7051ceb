"""ResNet (He et al., 2015), the form with the stride on the 3x3 convolution ("vb", "v1.5").

The form "vd", timm's "d" (He et al., 2018), has three 3x3 convolutions for a stem, and takes means
before the convolutions of shortcuts. With bottlenecks the tensors are the same in Paddle and in
timm; those of 18 and 34 layers are torchvision's and timm's, Paddle's have one more projection, at
the shortcut of the very first block. ResNet200_vd is deeper elsewhere than timm's resnet200d.

Of timm's other forms "c" and "s" have only such a stem, wider in "s", and in "t" its widths rise;
ResNeXt has groups, Wide ResNet more channels in a block, "se" weighs channels, "aa" takes means in
place of strides, and ResNet-RS (Bello et al., 2021) a convolution in place of the max-pool.
"""

import re
from dataclasses import dataclass, replace
from functools import partial

import jax.numpy as jnp
from flax import nnx

from mlcls_jax.models.chain import Chain
from mlcls_jax.models.family import Family
from mlcls_jax.models.initial import small_uniform
from mlcls_jax.models.layers import ConvNorm, MaxPool, SqueezeExcite, scaled
from mlcls_jax.models.published import Source, paddle, timm
from mlcls_jax.models.residual import TIMM_RULES, Residual, mean_pool
from mlcls_jax.models.weight_names import NameTable, renamed

STEM_WIDTH = 64
WIDTHS = (64, 128, 256, 512)  # of a stage's 3x3 convolutions


@dataclass(frozen=True, kw_only=True)
class ResNetConfig:
    """Depth and strides; the strides belong to the stem and the four stages."""

    blocks: tuple[int, ...] = (3, 4, 6, 3)  # a stage
    bottleneck: bool = True  # 1x1, 3x3, 1x1 to four times the width; or two 3x3
    stem: tuple[int, ...] = ()  # widths of three 3x3 convolutions, in place of a 7x7 one
    pooled: bool = False  # shortcuts take means
    groups: int = 1  # of a block's 3x3 convolution,
    width: float = 1.0  # and how many channels it has, by those of ResNet
    squeeze: int = 0  # channels for one in squeeze-and-excitation; 0: without
    smooth: bool = False  # means of 2x2 cells in place of strides and of the max-pool
    stem_pool: bool = True  # a max-pool, or else a convolution
    drop_path: float = 0.0
    strides: tuple[int, ...] = (2, 1, 2, 2, 2)  # the max-pool after the stem has always 2


VARIANTS = {
    "ResNet18": ResNetConfig(blocks=(2, 2, 2, 2), bottleneck=False),
    "ResNet34": ResNetConfig(bottleneck=False),
    "ResNet50": ResNetConfig(),
    "ResNet101": ResNetConfig(blocks=(3, 4, 23, 3)),
    "ResNet152": ResNetConfig(blocks=(3, 8, 36, 3)),
}
STEMS = {"d": (32, 32, 64), "c": (32, 32, 64), "s": (64, 64, 128), "t": (24, 32, 64)}
VD = partial(replace, stem=STEMS["d"], pooled=True)
VARIANTS |= {f"{name}_vd": VD(sizes) for name, sizes in VARIANTS.items()} | {
    "ResNet26_vd": VD(ResNetConfig(blocks=(2, 2, 2, 2))),
    "ResNet200_vd": VD(ResNetConfig(blocks=(3, 12, 48, 3))),
}
# timm's names of others, and the tags of the weights that it takes.
TIMM = {
    "c3_in1k": "resnet10t resnet14t",
    "bt_in1k": "resnet26 resnext50d_32x4d seresnext26d_32x4d seresnext26t_32x4d",
    "ra2_in1k": "resnet26t resnet200d seresnet152d",
    "gluon_in1k": "resnet50c resnet50s resnet101c resnet101s resnet152c resnet152s"
    " seresnext101_32x4d seresnext101_64x4d",
    "a1_in1k": "seresnet50",
    "a1h_in1k": "resnetaa50 resnext50_32x4d",
    "sw_in12k_ft_in1k": "resnetaa50d resnetaa101d",
    "sw_in12k_ft_in1k_288": "seresnextaa101d_32x8d",
    "sw_in12k_ft_in1k_384": "seresnextaa201d_32x8d",
    "tf_in1k": "resnetrs50 resnetrs101 resnetrs152 resnetrs200 resnetrs270 resnetrs350 resnetrs420",
    "racm_in1k": "seresnext50_32x4d wide_resnet50_2",
    "tv_in1k": "resnext101_32x8d wide_resnet101_2",
    "c1_in1k": "resnext101_64x4d",
    "ah_in1k": "seresnext101_32x8d seresnext101d_32x8d",
    "fb_ssl_yfcc100m_ft_in1k": "resnext101_32x4d",
    "fb_wsl_ig1b_ft_in1k": "resnext101_32x16d resnext101_32x32d",
}
TAGS = {name: tag for tag, names in TIMM.items() for name in names.split()}
# Licence and data of the weights with a tag; the others are Apache-2.0, of ImageNet.
FACTS = {
    "tv_in1k": ("BSD-3-Clause", "ImageNet"),
    "fb_ssl_yfcc100m_ft_in1k": ("CC-BY-NC-4.0", "YFCC-100M, ImageNet"),
    "fb_wsl_ig1b_ft_in1k": ("CC-BY-NC-4.0", "Instagram, ImageNet"),
}
BLOCKS = {  # of a stage, by the number in a name
    "10": (1, 1, 1, 1),
    "14": (1, 1, 1, 1),
    "26": (2, 2, 2, 2),
    "50": (3, 4, 6, 3),
    "101": (3, 4, 23, 3),
    "152": (3, 8, 36, 3),
    "200": (3, 24, 36, 3),
    "201": (3, 24, 36, 4),
    "270": (4, 29, 53, 4),
    "350": (4, 36, 72, 4),
    "420": (4, 44, 87, 4),
}


def config_of(twin: str) -> ResNetConfig:
    """Return the sizes of timm's network of this name, as the name tells them."""
    told = r"(wide_)?(se)?resnex?t(aa|rs)?(\d+)([cdst]?)(?:_(\d+)x(\d+)d|_2)?"
    found = re.fullmatch(told, twin)
    assert found, twin
    is_wide, is_se, kind, number, form, groups, width = found.groups()
    is_rs = kind == "rs"
    form = "s" if number == "201" else "d" if is_rs else form
    count, times = int(groups or 1), 2.0 if is_wide else 1.0
    return ResNetConfig(
        blocks=BLOCKS[number],
        bottleneck=number != "10",
        stem=STEMS.get(form, ()),
        pooled=form in ("d", "t") or number == "201",
        groups=count,
        width=count * int(width) / STEM_WIDTH if width else times,
        squeeze=4 if is_rs else 16 if is_se else 0,
        smooth=kind == "aa",
        stem_pool=not is_rs,
    )


VARIANTS |= {name: config_of(name) for name in TAGS}


def build(config: ResNetConfig, *, pool: bool = False, dtype: jnp.dtype | None = None) -> Chain:
    """Return a network whose map has 2048 channels with bottlenecks, and 512 without."""
    stem_stride, *stage_strides = config.strides
    unit = partial(ConvNorm, activation=nnx.relu, dtype=dtype)
    stem, channels = {"stem": unit(3, STEM_WIDTH, 7, stride=stem_stride)}, STEM_WIDTH
    if config.stem:
        before, stem = 3, {}
        for place, channels in enumerate(config.stem):
            stem[f"stem{place}"] = unit(before, channels, 3, stride=1 if place else stem_stride)
            before = channels
    if not config.stem_pool:
        stem["pool"] = unit(channels, channels, 3, stride=2)
    blocks = []
    for width, count, stride in zip(WIDTHS, config.blocks, stage_strides, strict=True):
        for index in range(count):
            out_channels, squeeze = width * (4 if config.bottleneck else 1), None
            if config.squeeze:
                reduced = scaled(out_channels, 1 / config.squeeze, least=0.0)
                squeeze = SqueezeExcite(out_channels, reduced, gate=nnx.sigmoid, dtype=dtype)
            block = Residual(
                channels,
                int(width * config.width),
                out_channels,
                stride=stride if index == 0 else 1,
                is_bottleneck=config.bottleneck,
                groups=config.groups,
                squeeze=squeeze,
                weighs_last=True,
                smooth=mean_pool if config.smooth else None,
                pooled=config.pooled,
                dtype=dtype,
            )
            blocks.append({f"block{len(blocks)}": block})
            channels = out_channels
    after_stem = mean_pool if config.smooth else MaxPool(3, stride=2) if config.stem_pool else None
    return Chain(config, channels=channels, stem=stem, blocks=blocks, max_pool=after_stem)


def names(backbone: Chain, origin: str) -> NameTable:
    """Map each parameter and statistic to its place in a file of `origin`: paddle or timm."""
    if origin == "paddle":
        rules = ((r"^stem(\d?)", lambda m: f"stem.{m[1] or 0}"), (r"^block", "blocks."))
        return renamed(backbone, origin, (*rules, (r"\.norm\.", ".bn.")))
    last, pooled = max(len(backbone.config.stem) - 1, 0), int(backbone.config.pooled)
    blocks = [(s, j) for s, n in enumerate(backbone.config.blocks, 1) for j in range(n)]
    rules = (
        (rf"^stem({last}|)\.norm", "bn1"),
        (r"^pool\.conv", "maxpool.0"),
        (r"^pool\.norm", "maxpool.1"),
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


TIMM_NAMES = {
    name.lower().replace("_v", ""): name
    for name in VARIANTS
    if name not in TAGS and name != "ResNet200_vd"
}


def sources(name: str) -> tuple[Source, ...]:
    """Return the published weights of a variant; Paddle's ResNet18 and 34 are other networks."""
    if tag := TAGS.get(name):
        licence, trained_on = FACTS.get(tag, ("Apache-2.0", "ImageNet"))
        return (timm(f"{name}.{tag}", licence=licence, trained_on=trained_on),)
    twin = next((twin for twin, ours in TIMM_NAMES.items() if ours == name), None)
    tag = "ra2_in1k" if VARIANTS[name].pooled else "a1_in1k"
    tag = "bt_in1k" if name == "ResNet26_vd" else tag
    found = (timm(f"{twin}.{tag}"),) if twin else ()
    is_paddles = VARIANTS[name].bottleneck and name != "ResNet26_vd"
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
