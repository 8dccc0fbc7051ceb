"""Which vision transformers there are: names, options, and where their weights are published."""

import dataclasses
from typing import Any

from mlcls_jax.config import Model
from mlcls_jax.models import pixels
from mlcls_jax.models.backbones.vit import ViT
from mlcls_jax.models.backbones.vit_names import names
from mlcls_jax.models.backbones.vit_rows import Row, make_family, make_rows
from mlcls_jax.models.family import Family
from mlcls_jax.models.published import PADDLE, Source, words

_VIT = ("ViT_{size}_patch{patch}_{rest}", "vit_{size}_patch{patch}_{rest}")
_MEAN: dict[str, Any] = {"pooling": "mean", "norm_after_pooling": True}
_GAP: dict[str, Any] = {"class_token": False, "pooling": "mean"}
_SBB: dict[str, Any] = {**_GAP, "norm_after_pooling": True, "layer_scale": 1e-5}
_TOKENS = {
    "augreg_in21k_ft_in1k": "tiny_patch16_224 tiny_patch16_384 small_patch32_224"
    " small_patch32_384 small_patch16_224 small_patch16_384 base_patch32_224"
    " base_patch32_384 base_patch16_384 large_patch16_224 large_patch16_384",
    "augreg2_in21k_ft_in1k": "base_patch16_224 base_patch8_224",
    "orig_in21k": "large_patch32_224 huge_patch14_224",
    "orig_in21k_ft_in1k": "large_patch32_384",
    "dino": "small_patch8_224",
}
_FLEXI = {"1200ep_in1k": "small_patch16_240 base_patch16_240 large_patch16_240"}
_SW = {
    "sw_in12k": "medium_patch16_gap_240",
    "sw_in12k_ft_in1k": "medium_patch16_gap_256 medium_patch16_gap_384",
}
_IJEPA = {
    "in1k_ijepa": "huge_patch14_gap_224 huge_patch16_gap_448",
    "in22k_ijepa": "giant_patch16_gap_224",
}
_REG = {
    "sbb_in1k": "wee_patch16_reg1_gap_256 little_patch16_reg4_gap_256 medium_patch16_reg1_gap_256"
    " betwixt_patch16_reg1_gap_256",
    "sbb_in12k_ft_in1k": "little_patch16_reg1_gap_256 medium_patch16_reg4_gap_256",
    "sbb2_e200_in12k_ft_in1k": "mediumd_patch16_reg4_gap_256 mediumd_patch16_reg4_gap_384"
    " betwixt_patch16_reg4_gap_256 betwixt_patch16_reg4_gap_384",
}
_ROPE_BIAS = {
    "sbb_in1k": "medium_patch16_rope_reg1_gap_256 betwixt_patch16_rope_reg4_gap_256"
    " base_patch16_rope_reg1_gap_256"
}
_ROPE = {"sbb_in1k": "mediumd_patch16_rope_reg1_gap_256"}
_SO150M = {"sbb_e250_in12k_ft_in1k": "so150m_patch16_reg4_gap_256 so150m_patch16_reg4_gap_384"}
_SO150M2 = {
    "sbb_e200_in12k_ft_in1k": "so150m2_patch16_reg1_gap_256 so150m2_patch16_reg1_gap_384"
    " so150m2_patch16_reg1_gap_448"
}
_SBB_ROPE: dict[str, Any] = {**_SBB, "embedded": "none", "rope": "eva02"}
_MIIL = (f"{_VIT[0]}_miil", f"{_VIT[1]}_miil")
_JEPA_NAMES = [f"vit_{text}" for texts in _IJEPA.values() for text in texts.split()]
AUGREG = make_family(
    make_rows(*_VIT, _TOKENS)
    + make_rows("FlexiViT_{size}", "flexivit_{size}", _FLEXI, embedded="patches")
    + make_rows(*_MIIL, {"in21k_ft_in1k": "base_patch16_224"}, qkv_bias="none")
    + make_rows(*_VIT, _SW, **_GAP, qkv_bias="none", layer_scale=1e-6)
    + make_rows(*_VIT, _IJEPA, **_GAP)
    + make_rows(*_VIT, _REG, **_SBB, embedded="patches")
    + make_rows(*_VIT, _SO150M, **_GAP)
    + make_rows(*_VIT, _SO150M2, **_SBB, qkv_bias="none")
    + make_rows(*_VIT, _ROPE_BIAS, **_SBB_ROPE, qkv_bias="query_value")
    + make_rows(*_VIT, _ROPE, **_SBB_ROPE, qkv_bias="none"),
    trained_on="ImageNet, -12k or -21k, most then ImageNet",
    statistics=pixels.HALVES,
    other_statistics={
        "vit_small_patch8_224": pixels.IMAGENET,
        "vit_base_patch16_224_miil": pixels.UNIT,
        "vit_betwixt_patch16_rope_reg4_gap_256": pixels.CLIP,
        **dict.fromkeys(_JEPA_NAMES, pixels.IMAGENET),
    },
)
DEIT = make_family(
    make_rows(
        "DeiT_{size}_patch{patch}_{rest}",
        "deit_{size}_patch{patch}_{rest}",
        {"fb_in1k": "tiny_patch16_224 small_patch16_224 base_patch16_224 base_patch16_384"},
    )
    + make_rows(
        "DeiT3_{size}_patch{patch}_{rest}",
        "deit3_{size}_patch{patch}_{rest}",
        {
            "fb_in22k_ft_in1k": "small_patch16_224 small_patch16_384 medium_patch16_224"
            " base_patch16_224 base_patch16_384 large_patch16_224 large_patch16_384"
            " huge_patch14_224"
        },
        embedded="patches",
        layer_scale=1e-6,
    ),
    trained_on="ImageNet, DeiT3 before that on ImageNet-22k",
)

_DINOV2: dict[str, Any] = {"layer_scale": 1e-5}
_REGISTERS: dict[str, Any] = {**_DINOV2, "registers": 4, "embedded": "patches"}
_GIANT: dict[str, Any] = {"width": 1536, "num_heads": 24, "hidden": 4096, "gated": True}
_LVD142M = {"lvd142m": "small_patch14_518 base_patch14_518 large_patch14_518"}
_LVD142M_GIANT = {"lvd142m": "giant_patch14_518"}
_V2, _V2_REG4 = "DINOv2_vit_{size}_patch{patch}", "DINOv2_vit_{size}_patch{patch}_reg4"
_V2_TIMM, _V2_REG4_TIMM = "vit_{size}_patch{patch}_dinov2", "vit_{size}_patch{patch}_reg4_dinov2"
DINOV2 = make_family(
    make_rows(_V2, _V2_TIMM, _LVD142M, **_DINOV2)
    + make_rows(_V2, _V2_TIMM, _LVD142M_GIANT, **_DINOV2 | _GIANT)
    + make_rows(_V2_REG4, _V2_REG4_TIMM, _LVD142M, **_REGISTERS)
    + make_rows(_V2_REG4, _V2_REG4_TIMM, _LVD142M_GIANT, **_REGISTERS | _GIANT),
    trained_on="LVD-142M, without labels",
)

_TIPS = {"webli": "base_patch14_448 large_patch14_448 so400m_patch14_448"}
_TIPS_NAMES = ("TIPSv2_vit_{size}_patch{patch}", "vit_{size}_patch{patch}_reg1_tipsv2")
_TIPS_OPTIONS: dict[str, Any] = {**_REGISTERS, "registers": 1, "layer_scale": 1.0}
TIPSV2 = make_family(
    make_rows(*_TIPS_NAMES, _TIPS, **_TIPS_OPTIONS)
    + make_rows(*_TIPS_NAMES, {"webli": "giant_patch14_448"}, **_TIPS_OPTIONS | _GIANT),
    trained_on="WebLI's pairs of images and texts",
    statistics=pixels.UNIT,
)
_RADIO3_NAMES = ("RADIO_vit_{size}_patch{patch}_v3", "vit_{size}_patch{patch}_radio_v3")
_RADIO4_NAMES = ("RADIO_vit_{size}_patch{patch}_v4", "vit_{size}_patch{patch}_radio_v4")
_RADIO: dict[str, Any] = {"embedded": "patches", "final_norm": False}
_RADIO3: dict[str, Any] = {**_RADIO, "registers": 7}
_RADIO3_GIANT: dict[str, Any] = {**_RADIO3, "width": 1536, "num_heads": 24}
_V3_SCALED = {"c_radio": "base_patch16_512 large_patch16_512"}
_V3_HUGE, _V3_GIANT = {"c_radio": "huge_patch16_512"}, {"c_radio": "giant_patch16_512"}
_V4 = {"c_radio": "so400m_patch16_512 huge_patch16_512"}
RADIO = make_family(
    make_rows(*_RADIO3_NAMES, _V3_SCALED, **_RADIO3, layer_scale=1e-5)
    + make_rows(*_RADIO3_NAMES, _V3_HUGE, **_RADIO3)
    + make_rows(*_RADIO3_NAMES, _V3_GIANT, **_RADIO3_GIANT)
    + make_rows(*_RADIO4_NAMES, _V4, **_RADIO, registers=9)
    + make_rows(*_VIT, {"ogvl_dist": "intern300m_patch14_448"}, final_norm=False, layer_scale=0.1),
    trained_on="other networks' features",
    licence="NVIDIA Open Model Licence",
    statistics=pixels.CLIP,
    other_statistics={"vit_intern300m_patch14_448": pixels.IMAGENET},
)

_DINOV3: dict[str, Any] = {
    "epsilon": 1e-5,
    "registers": 4,
    "embedded": "none",
    "rope": "dinov3",
    "layer_scale": 1e-5,
    "pooling": "mean",
}
_PLUS: dict[str, Any] = {**_DINOV3, "gated": True, "gate_apart": True}
_V3, _V3_TIMM = "DINOv3_vit_{size}_patch{patch}", "vit_{size}_patch{patch}_dinov3"
_V3_QKVB = (f"{_V3}_qkvb", f"{_V3_TIMM}_qkvb")
_LVD1689M = {"lvd1689m": "small_patch16_256 base_patch16_256 large_patch16_256"}
_LVD1689M_PLUS = {"lvd1689m": "small_plus_patch16_256 huge_plus_patch16_256"}
_7B, _EUPE = {"lvd1689m": "7b_patch16_256"}, {"eupe_lvd1689m": "tiny_patch16_256"}
DINOV3 = make_family(
    make_rows(_V3, _V3_TIMM, _LVD1689M, **_DINOV3, qkv_bias="none")
    + make_rows(_V3, _V3_TIMM, _LVD1689M_PLUS, **_PLUS, qkv_bias="none")
    + make_rows(_V3, _V3_TIMM, _7B, **_PLUS, qkv_bias="none")
    + make_rows(*_V3_QKVB, _LVD1689M | _EUPE, **_DINOV3, qkv_bias="query_value")
    + make_rows(*_V3_QKVB, _LVD1689M_PLUS, **_PLUS, qkv_bias="query_value"),
    trained_on="LVD-1689M, without labels",
    licence="DINOv3 licence",
)
_BOT_NAMES = ("LingBot_vit_{size}_patch{patch}", "vit_{size}_patch{patch}_lingbot")
_BOT = {"robbyant": "small_patch16_512 base_patch16_512 large_patch16_512"}
_BOT_GIANT = {"robbyant": "giant_patch16_512"}
LINGBOT = make_family(
    make_rows(*_BOT_NAMES, _BOT, **_DINOV3 | {"pooling": "token"}, qkv_bias="query_value")
    + make_rows(*_BOT_NAMES, _BOT_GIANT, **_PLUS | _GIANT | {"pooling": "token"}, qkv_bias="none"),
    trained_on="pictures without labels",
)

_SIGLIP: dict[str, Any] = {"class_token": False, "embedded": "patches"}
_TANH: dict[str, Any] = {**_SIGLIP, "activation": "tanh_gelu"}
_WEBLI = {
    "v2_webli": "base_patch16_{0}224 base_patch16_{0}256 base_patch16_{0}384 base_patch16_{0}512"
    " large_patch16_{0}256 large_patch16_{0}384 so400m_patch14_{0}224 so400m_patch14_{0}378",
    "webli": "so400m_patch14_{0}384",
}
_WEBLI_TANH = {
    "v2_webli": "base_patch32_{0}256 large_patch16_{0}512 so400m_patch16_{0}256"
    " so400m_patch16_{0}384 so400m_patch16_{0}512 giantopt_patch16_{0}256 giantopt_patch16_{0}384"
}
_PALI = {"pali_mix": "so400m_patch14_gap_448", "pali_pt": "so400m_patch14_gap_896"}
_SIG, _SIG_TIMM = "SigLIP_vit_{size}_patch{patch}_{rest}", "vit_{size}_patch{patch}_siglip_{rest}"


def _siglip_rows(gap: str, pooling: str) -> list[Row]:
    plain, tanh = (
        {tag: texts.format(gap) for tag, texts in table.items()} for table in (_WEBLI, _WEBLI_TANH)
    )
    rows = make_rows(_SIG, _SIG_TIMM, plain, **_SIGLIP, pooling=pooling)
    return rows + make_rows(_SIG, _SIG_TIMM, tanh, **_TANH, pooling=pooling)


def _adapt_siglip(model: Model, origin: str, *, has_decoder: bool) -> Model:
    """Return the options with the activation of the originals, which timm replaces in some."""
    if origin == "huggingface" and model.activation is None:
        return dataclasses.replace(model, activation="tanh_gelu")
    return model


def _siglip_pairs(row: Row) -> tuple[Source, ...]:
    """Return both towers, as Google publishes them; others are not trained with their pooling."""
    if row.config.pooling != "attention":
        return ()
    size = row.name.removeprefix("SigLIP_vit_").replace("_", "-").replace("giantopt", "giant-opt")
    form = "siglip" if row.tag == "webli" else "siglip2"
    address = f"google/{form}-{size.replace('378', '384')}"
    return (words(address, "Apache-2.0", "WebLI's pairs of images and texts", "-1…1"),)


SIGLIP = make_family(
    _siglip_rows("", "attention")
    + _siglip_rows("gap_", "mean")
    + make_rows(_SIG, _SIG_TIMM, _PALI, **_SIGLIP, pooling="mean"),
    trained_on="WebLI's pairs of images and texts",
    statistics=pixels.HALVES,
    heads={"timm": "head", "huggingface": "classifier"},
    adapt=_adapt_siglip,
    pairs=_siglip_pairs,
)

_EVA: dict[str, Any] = {"qkv_bias": "query_value"}
_EVA02: dict[str, Any] = {**_EVA, "rope": "eva02", "gated": True, "hidden_ratio": 8 / 3}
_APART: dict[str, Any] = {"qkv_apart": True, "gate_apart": True, "hidden_norm": True}
_E, _E_TIMM = "EVA02_vit_{size}_patch{patch}_{rest}", "eva02_{size}_patch{patch}_{rest}"
_E_CLIP = "EVA02_CLIP_vit_{size}_patch{patch}_{rest}"
_E_CLIP_TIMM = "eva02_{size}_patch{patch}_clip_{rest}"
_MIM = {
    "mim_in22k": "tiny_patch14_224 small_patch14_224",
    "mim_in22k_ft_in1k": "tiny_patch14_336 small_patch14_336",
}
_MIM_LARGE = {
    "mim_in22k": "base_patch14_224 large_patch14_224",
    "mim_in22k_ft_in22k_in1k": "base_patch14_448 large_patch14_448",
}
_MERGED = {"merged2b": "base_patch16_224 large_patch14_224 large_patch14_336"}
_EVA_GIANT = {
    "clip_ft_in1k": "giant_patch14_224 giant_patch14_336",
    "m30m_ft_in22k_in1k": "giant_patch14_560",
}
_EVA_LARGE = {"in22k_ft_in22k_in1k": "large_patch14_196 large_patch14_336"}
_EVA_CLIP = {"laion400m": "giant_patch14_224"}
EVA = make_family(
    make_rows(_E, _E_TIMM, _MIM, **_EVA02 | _MEAN)
    + make_rows(_E, _E_TIMM, _MIM_LARGE, **_EVA02 | _MEAN | _APART)
    + make_rows(_E_CLIP, _E_CLIP_TIMM, _MERGED, **_EVA02 | _APART, attention_norm=True)
    + make_rows(_E_CLIP, _E_CLIP_TIMM, {"laion2b": "enormous_patch14_224"}, **_EVA, post_norm=True)
    + make_rows(_E.replace("02", ""), _E_TIMM.replace("02", ""), _EVA_GIANT, **_EVA | _MEAN)
    + make_rows(_E.replace("02", ""), _E_TIMM.replace("02", ""), _EVA_LARGE, **_MEAN)
    + make_rows(_E_CLIP.replace("02", ""), _E_CLIP_TIMM.replace("02", ""), _EVA_CLIP, **_EVA),
    trained_on="ImageNet-22k, or pairs of images and texts",
    licence="MIT",
    statistics=pixels.CLIP,
    other_statistics={"eva_giant_patch14_560": pixels.IMAGENET},
)


def adapt(model: Model, origin: str, *, has_decoder: bool) -> Model:
    """The options under which weights of `origin` mean what they meant there, where left open.

    Paddle's ML-Decoder was trained on the first patch token alone; OpenAI's towers on QuickGELU.
    """
    if origin == "paddle" and has_decoder and model.memory is None:
        model = dataclasses.replace(model, memory="first_patch")
    if origin in ("openai", "huggingface") and model.quick_gelu is None:
        model = dataclasses.replace(model, quick_gelu=True)
    return model


_CLIP: dict[str, Any] = {"pre_norm": True, "epsilon": 1e-5}
_C_TIMM = "vit_{size}_patch{patch}_clip_{rest}"
_C_PLUS = "vit_base_patch{patch}_plus_clip_{rest}"
_LAION_LARGE = ("vit_large_patch14_clip_224", "vit_large_patch14_clip_336")
_CLIP_TAGS = {
    "openai": "base_patch16_224",
    "laion2b": "base_patch32_224 large_patch14_224 huge_patch14_224 giant_patch14_224"
    " gigantic_patch14_224",
    "laion2b_ft_in12k_in1k": "base_patch16_384 base_patch32_384 base_patch32_448"
    " large_patch14_336 huge_patch14_336",
    "datacompxl": "base_patch32_256",
    "dfn5b": "huge_patch14_378",
    "metaclip2_worldwide": "gigantic_patch14_378",
    "tinyclip_yfcc15m": "xsmall_patch16_224 medium_patch16_224",
    "tinyclip_laion400m": "medium_patch32_224 betwixt_patch32_224",
}
_QUICK_TAGS = {
    "openai": "base_patch16_{0}224 base_patch32_{0}224 large_patch14_{0}224 large_patch14_{0}336",
    "dfn5b": "huge_patch14_{0}224 huge_patch14_{0}378",
    "metaclip_2pt5b": "gigantic_patch14_{0}224",
}
_QUICK = {tag: texts.format("quickgelu_") for tag, texts in _QUICK_TAGS.items()}
_PAIRS = "pairs of images and texts"
_TOWERS = {
    "heads": {
        "paddle": "head.fc_head",
        "timm": "head",
        "openai": "head",
        "huggingface": "classifier",
    },
    "adapt": adapt,
}
# PaddleClas' networks have its names. timm's have timm's: other pixels and positions.
TIMM_CLIP = make_family(
    make_rows(_C_TIMM, _C_TIMM, _CLIP_TAGS, **_CLIP)
    + make_rows(_C_TIMM, _C_TIMM, _QUICK, **_CLIP, quick_gelu=True)
    + make_rows(_C_PLUS, _C_PLUS, {"laion400m_e32": "base_plus_patch16_240"}, **_CLIP),
    trained_on=_PAIRS,
    statistics=pixels.CLIP,
    other_statistics=dict.fromkeys(_LAION_LARGE, pixels.HALVES),
    **_TOWERS,
)
_SMALLEST = {"": "base_patch16_224 base_patch32_224 large_patch14_224"}
_B16, _B32, _L14 = (r.config for r in make_rows("", "", _SMALLEST, **_CLIP, resampling="paddle"))


def _clip_sources(name: str) -> tuple[Source, ...]:
    """Return the published weights of the vision tower, at 224 x 224, and of both towers."""
    file = f"{PADDLE}/foundation_models/CLIP_vit_base_patch16_224.pdparams"
    paddle = Source("backbone", file, "MIT", f"OpenAI's {_PAIRS}", "CLIP")
    size = name.removeprefix("CLIP_vit_").removesuffix("_224").removesuffix("_448")
    both = words(f"openai/clip-vit-{size.replace('_', '-')}", "MIT", f"OpenAI's {_PAIRS}", "CLIP")
    return (paddle, *TIMM_CLIP.sources("vit_base_patch16_clip_224"), both)


def _openai_name(name: str) -> str:
    """Return timm's name, which has OpenAI's activation, pixels and positions."""
    tower = name.removeprefix("CLIP_").replace("448", "224")
    return f"{tower[:-4]}_clip_quickgelu{tower[-4:]}"


CLIP = Family(
    variants={
        "CLIP_vit_base_patch16_224": _B16,
        "CLIP_vit_base_patch16_448": _B16,
        "CLIP_vit_base_patch32_224": _B32,
        "CLIP_vit_base_patch32_448": _B32,
        "CLIP_vit_large_patch14_224": _L14,
        "CLIP_vit_large_patch14_336": _L14,
    },
    build=ViT,
    names=names,
    recipes="clip_vit",
    decoder="head",
    stride=lambda sizes: sizes.patch_size,
    official=("CLIP_vit_base_patch16_448",),
    sources=_clip_sources,
    words=_openai_name,
    **_TOWERS,
)
