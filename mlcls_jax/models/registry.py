"""Names that users type → architectures. A new backbone is one file and one line here."""

import dataclasses
import difflib
import fnmatch
from types import ModuleType

import jax.numpy as jnp

from mlcls_jax.config import Model
from mlcls_jax.errors import ConfigError
from mlcls_jax.models import ml_decoder
from mlcls_jax.models.backbones import pplcnet
from mlcls_jax.models.classifier import Classifier, PoolingHead
from mlcls_jax.models.ml_decoder import MLDecoder, MLDecoderConfig
from mlcls_jax.models.weights.names import (
    NameTable,
    affine_names,
    linear_layout,
    with_prefix,
)

# Each module offers VARIANTS (name → its config), build(config, dtype=), HEAD (origin → the name of
# the classifier there), and names(backbone, origin), its table for files of that origin.
BACKBONES: tuple[ModuleType, ...] = (pplcnet,)

ML_SUFFIX = "_ML"


def list_models(pattern: str = "*") -> list[str]:
    """Names of all models that match a shell pattern, `PP-LCNet*_ML` for instance."""
    names = [name for module in BACKBONES for name in module.VARIANTS]
    return [n for n in (*(n + ML_SUFFIX for n in names), *names) if fnmatch.fnmatch(n, pattern)]


def find_backbone(name: str) -> ModuleType:
    """The module of the backbone in the model `name`.

    Raises:
      ConfigError: no such model; proposes the nearest name.
    """
    for module in BACKBONES:
        if name.removesuffix(ML_SUFFIX) in module.VARIANTS:
            return module
    close = difflib.get_close_matches(name, list_models(), n=1)
    hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(list_models())}."
    raise ConfigError(f"model.name={name}: there is no such model; {hint}")


def build(model: Model) -> Classifier:
    """The untrained module that `model` describes; `num_classes` must be set.

    Raises:
      ConfigError: unknown name, or an option the architecture does not have.
    """
    if model.num_classes is None:
        raise ConfigError("model.num_classes=None: the number of labels is not known")
    module = find_backbone(model.name)
    has_decoder = model.name.endswith(ML_SUFFIX)
    changes = {"pool": not has_decoder, "strides": model.strides, "dropout": model.backbone_dropout}
    config = module.VARIANTS[model.name.removesuffix(ML_SUFFIX)]
    config = dataclasses.replace(config, **{k: v for k, v in changes.items() if v is not None})
    if len(config.strides) != (count := len(type(config)().strides)):
        raise ConfigError(f"model.strides={config.strides}: {model.name} has {count} strides")
    dtype = jnp.dtype(model.dtype) if model.dtype != "float32" else None
    backbone = module.build(config, dtype=dtype)
    if not has_decoder:
        return Classifier(backbone, PoolingHead(backbone.channels, model.num_classes))
    head_config = MLDecoderConfig(
        query_num=model.query_num,
        embed_dim=model.embed_dim,
        hidden_dim=model.hidden_dim,
        num_heads=model.num_heads,
        depth=model.decoder_depth,
        dropout=model.head_dropout,
    )
    head = MLDecoder(backbone.channels, model.num_classes, head_config, dtype=dtype)
    return Classifier(backbone, head)


def foreign_names(model: Model, module: Classifier) -> dict[str, NameTable]:
    """By origin, where each parameter and statistic of `module` is found in such a file."""
    family = find_backbone(model.name)
    tables = {}
    for origin, head_name in family.HEAD.items():
        if isinstance(module.head, PoolingHead):
            head = affine_names("fc", "", linear_layout(origin))
            head = {path: f._replace(key=f.key.lstrip(".")) for path, f in head.items()}
        else:
            # PyTorch zoos have no ML-Decoder of this form: their backbones are taken alone.
            head = ml_decoder.paddle_names(module.head)
        backbone = with_prefix(family.names(module.backbone, origin), "backbone")
        tables[origin] = backbone | with_prefix(head, "head", f"{head_name}.")
    return tables
