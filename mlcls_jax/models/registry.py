"""Names that users type → architectures. A new backbone is one file and one line here."""

import dataclasses
import fnmatch
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from mlcls_jax.config import Model
from mlcls_jax.errors import ConfigError, nearest, unknown
from mlcls_jax.files import regular
from mlcls_jax.models.backbones import (
    convnext,
    efficientnet,
    mobilenetv3,
    pphgnetv2,
    pplcnet,
    regnety,
    resnet,
    swin,
    tresnet,
    vit_variants,
)
from mlcls_jax.models.classifier import Classifier, PoolingHead
from mlcls_jax.models.csra import CSRA
from mlcls_jax.models.family import Family, Head
from mlcls_jax.models.ml_decoder import MLDecoder, MLDecoderConfig
from mlcls_jax.models.pixels import Pixels, of_tag
from mlcls_jax.models.query2label import Query2Label
from mlcls_jax.models.weight_names import NameTable, with_prefix
from mlcls_jax.models.words_head import WordsHead

FAMILIES: dict[str, Family] = {
    "PP-LCNet": pplcnet.FAMILY,
    "PP-HGNetV2": pphgnetv2.FAMILY,
    "MobileNetV3": mobilenetv3.FAMILY,
    "mobilenetv3": mobilenetv3.TIMM_FAMILY,
    "ResNet": resnet.FAMILY,
    "CLIP": vit_variants.CLIP,
    "ConvNeXt": convnext.FAMILY,
    "ConvNeXtV2": convnext.V2_FAMILY,
    "SwinTransformer": swin.FAMILY,
    "SwinTransformerV2": swin.V2_FAMILY,
    "EfficientNet": efficientnet.FAMILY,
    "efficientnet": efficientnet.TIMM_FAMILY,
    "tf_efficientnet_lite": efficientnet.LITE_FAMILY,
    "RegNetY": regnety.FAMILY,
    "TResNet": tresnet.FAMILY,
    "ViT": vit_variants.AUGREG,
    "DeiT": vit_variants.DEIT,
    "DINOv2": vit_variants.DINOV2,
    "TIPSv2": vit_variants.TIPSV2,
    "RADIO": vit_variants.RADIO,
    "DINOv3": vit_variants.DINOV3,
    "LingBot": vit_variants.LINGBOT,
    "SigLIP": vit_variants.SIGLIP,
    "EVA": vit_variants.EVA,
    "vit_clip": vit_variants.TIMM_CLIP,
}

ML_SUFFIX, WORDS_SUFFIX = "_ML", "_Words"
# What a name ends in → (channels, options, *, dtype) → the head; without any of them the mean is
# pooled. A new head is one file and one line here.
HEADS: dict[str, Callable[..., Head]] = {
    ML_SUFFIX: lambda channels, model, *, dtype: MLDecoder(
        channels, model.num_classes, MLDecoderConfig.of(model), dtype=dtype
    ),
    "_CSRA": CSRA,
    "_Q2L": Query2Label,
    WORDS_SUFFIX: WordsHead,
}


def split_name(name: str) -> tuple[str, str]:
    """Return the name of a model's backbone, and the suffix that says which head it has."""
    suffix = next((suffix for suffix in HEADS if name.endswith(suffix)), "")
    return name.removesuffix(suffix), suffix


def split_tag(name: str) -> tuple[str, str]:
    """Return the name of a model's backbone, and timm's tag of its weights, or nothing."""
    backbone, _, tag = split_name(name)[0].partition(".")
    return backbone, tag


def list_models(pattern: str = "*") -> list[str]:
    """Return the names of all models that match a shell pattern.

    Those with another head than the ML-Decoder or pooling are told if the pattern ends in its name:
    `*_CSRA`, `*_Q2L`.

    Example:
      >>> list_models("ResNet1??_ML")
      ['ResNet101_ML', 'ResNet152_ML']
    """
    names = [name for family in FAMILIES.values() for name in family.variants]
    suffix = split_name(pattern)[1] or ML_SUFFIX
    return [n for n in (*(n + suffix for n in names), *names) if fnmatch.fnmatch(n, pattern)]


def default_size(name: str) -> int:
    """Side of the images that the model `name` is meant for, unless one says otherwise."""
    return 448 if split_name(name)[1] not in ("", WORDS_SUFFIX) else 224


def find_variant(name: str) -> tuple[Family, str]:
    """Return the family of the model `name`, and the name of its backbone there.

    timm's name of a backbone means the same, with the suffix of the head or without, and with the
    tag of published weights, `convnext_tiny.fb_in22k`, or without.

    Raises:
      ConfigError: no such model; proposes the nearest name.
    """
    whole, suffix = split_name(name)
    for backbone in (whole, split_tag(name)[0]):
        for family in FAMILIES.values():
            variant = family.timm_names.get(backbone, backbone)
            if variant in family.variants:
                return family, variant
    twins = [f"{twin}{suffix}" for family in FAMILIES.values() for twin in family.timm_names]
    known = [*list_models(), *twins]
    asked = name if nearest(name, known) else f"{split_tag(name)[0]}{suffix}"
    raise ConfigError(unknown(f"model.name={name}", "model", asked, known))


def build(model: Model) -> Classifier:
    """Build the untrained module that `model` describes.

    `num_classes` must be set, and `text_dim` if there are text embeddings.

    Raises:
      ConfigError: unknown name, or an option the architecture does not have.
    """
    if model.num_classes is None:
        raise ConfigError("model.num_classes=None: the number of labels is not known")
    family, variant = find_variant(model.name)
    suffix = split_name(model.name)[1]
    config = _with_options(family.variants[variant], model)
    dtype = jnp.dtype(model.dtype) if model.dtype != "float32" else None
    backbone = family.build(config, pool=suffix in ("", WORDS_SUFFIX), dtype=dtype)
    statistics = pixels(model.name)
    if suffix != ML_SUFFIX and model.text_embeddings:
        raise ConfigError(
            f"model.text_embeddings={model.text_embeddings}: {model.name} has no ML-Decoder;"
            f" {split_name(model.name)[0]}{ML_SUFFIX} has"
        )
    if suffix:
        head = HEADS[suffix](backbone.channels, model, dtype=dtype)
    else:
        initial = family.head_initial(backbone.channels)
        head = PoolingHead(backbone.channels, model.num_classes, initial=initial)
    return Classifier(backbone, head, pixels=statistics)


def stride(name: str) -> int:
    """Return the pixels to a cell of a network's feature map, of which sides are best multiples.

    Raises:
      ConfigError: there is no such network.
    """
    family, variant = find_variant(name)
    return family.stride(family.variants[variant])


def pixels(name: str) -> Pixels:
    """Return mean and standard deviation of the pixels that a network, by this name, is given.

    Raises:
      ConfigError: there is no such network.
    """
    family, _ = find_variant(name)
    backbone, tag = split_tag(name)
    usual = family.pixels(backbone)
    return of_tag(f"{backbone}.{tag}", usual) if tag else usual


def text_dim(model: Model) -> int | None:
    """Size of the labels' text embeddings; None: the queries are not made from text.

    Raises:
      ConfigError: the file is missing, or does not hold one embedding a label.
    """
    if model.text_embeddings is None:
        return model.text_dim
    what = f"model.text_embeddings={model.text_embeddings}"
    try:
        found = np.load(regular(model.text_embeddings), mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ConfigError(f"{what}: is not a readable .npy file: {error}") from error
    if not isinstance(found, np.ndarray) or found.dtype.kind not in "fiu":
        raise ConfigError(f"{what}: holds no array of numbers")
    shape = found.shape
    if len(shape) != 2 or shape[0] != model.num_classes:
        raise ConfigError(f"{what}: is {shape}, but must be ({model.num_classes}, size)")
    return shape[1]


def _with_options(config: Any, model: Model) -> Any:
    """The backbone's config with the options that `model` sets."""
    options = {
        "strides": ("strides", model.strides),
        "backbone_dropout": ("dropout", model.backbone_dropout),
        "drop_path": ("drop_path", model.drop_path),
        "memory": ("memory", model.memory),
        "quick_gelu": ("quick_gelu", model.quick_gelu),
        "activation": ("activation", model.activation),
        "position_grid": ("grid", model.position_grid),
    }
    given = {option: pair for option, pair in options.items() if pair[1] is not None}
    for option, (field, value) in given.items():
        if not hasattr(config, field):
            raise ConfigError(f"model.{option}={value}: {model.name} has no such option")
    if model.strides and len(model.strides) != len(config.strides):
        raise ConfigError(
            f"model.strides={model.strides}: {model.name} has {len(config.strides)} strides"
        )
    return dataclasses.replace(config, **dict(given.values()))


def foreign_names(model: Model, module: Classifier) -> dict[str, NameTable]:
    """Return, by origin, where each parameter and statistic of `module` is found in such a file."""
    family, _ = find_variant(model.name)
    tables = {}
    for origin, classifier in family.heads.items():
        head = family.decoder if split_name(model.name)[1] else classifier
        tables[origin] = with_prefix(family.names(module.backbone, origin), "backbone")
        tables[origin] |= with_prefix(module.head.names(origin), "head", f"{head}.")
    return tables
