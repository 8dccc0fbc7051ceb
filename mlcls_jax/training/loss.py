"""The training loss of a configuration, with what it takes from the data."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from mlcls_jax import config as schema
from mlcls_jax.data.label_counts import LabelCounts, needed
from mlcls_jax.errors import ConfigError
from mlcls_jax.files import regular
from mlcls_jax.groups import NO_GROUPS, Groups
from mlcls_jax.losses import (
    CLASS_WEIGHTS,
    LOSSES,
    count_unknown,
    exclusive_loss,
    weights_of_classes,
)
from mlcls_jax.losses.entries import Given
from mlcls_jax.parsing import parse_json

LossFunction = Callable[..., Float[Array, ""]]  # (logits, targets, mask=)

# Arguments of a loss that have a key of their own in the configuration; the others are set by
# `loss.options`.
_KEYS = {
    "asymmetric": {
        key: key for key in ("gamma_pos", "gamma_neg", "clip", "stop_focal_gradient", "reduction")
    },
    "multilabel": {"epsilon": "label_smoothing", "size_sum": "size_sum"},
    "cross_entropy": {"epsilon": "label_smoothing"},
}
_REDUCED = {"reduction": "reduction"}
_OF_DATA = ("positives", "images", "positive_ratio", "class_weights", "positive_weight", "mask")


def make_loss(
    config: schema.Loss,
    *,
    unknown: str = "ignore",
    labels: Sequence[str] = (),
    counts: LabelCounts | None = None,
    groups: Groups = NO_GROUPS,
) -> LossFunction:
    """Return the loss (logits, targets, mask=) that `config` describes.

    Args:
      config: which loss, with its options.
      unknown: as `data.unknown`.
      labels: of the data, for a file of class weights.
      counts: of the training data; None: they are not known.
      groups: of the labels; those that exclude each other have a cross-entropy of their own.

    Raises:
      ConfigError: there is no such loss, it has no such option, what it needs to know of the data
        is not known, or the file of class weights is malformed.
    """
    if config.name not in LOSSES:
        raise ConfigError(f"loss.name={config.name}: there are {', '.join(LOSSES)}")
    function = LOSSES[config.name]
    takes = inspect.signature(function).parameters
    keys = _KEYS.get(config.name, _REDUCED if "reduction" in takes else {})
    options = {argument: getattr(config, key) for argument, key in keys.items()}
    options |= dict(_given(config, takes, keys))
    if "positives" in takes:
        found = needed(counts, f"loss.name={config.name}")
        options |= {"positives": found.positives.astype(np.float32), "images": found.images}
    options |= dict(_weights(config, takes, labels, counts))
    loss = partial(function, **options)
    if groups.members:
        if config.name == "entropy":
            raise ConfigError("loss.name=entropy: is not for labels that exclude each other")
        sums_labels = config.name == "multilabel" and config.size_sum
        weight = len(groups.members) if sums_labels else 1
        loss = partial(_with_groups, loss, groups, not is_summed(config), weight)
    if unknown == "ignore":
        return loss
    prior = None
    if unknown == "selective":
        prior = needed(counts, f"data.unknown={unknown}").shares()
    return partial(_with_unknown, loss, unknown, prior)


def is_summed(config: schema.Loss) -> bool:
    """Return whether the loss is the sum over images and labels, rather than a mean."""
    takes = inspect.signature(LOSSES[config.name]).parameters
    return "reduction" in takes and config.reduction == "sum"


def _with_groups(
    loss: LossFunction,
    groups: Groups,
    mean: bool,
    weight: int,
    logits: Float[Given, "B K"],
    targets: Shaped[Given, "B K"],
    **options: Any,
) -> Float[Array, ""]:
    """Return `loss` of the labels in no exclusive group, plus the cross-entropy of the groups."""
    within = weight * exclusive_loss(logits, targets, groups.members, mean=mean, **options)
    is_grouped = groups.is_grouped(targets.shape[1])
    if is_grouped.all():
        return within
    return loss(logits, jnp.where(is_grouped, -1, targets), **options) + within


def _with_unknown(
    loss: LossFunction,
    unknown: str,
    prior: np.ndarray | None,
    logits: Float[Given, "B K"],
    targets: Shaped[Given, "B K"],
    **options: Any,
) -> Float[Array, ""]:
    return loss(logits, count_unknown(logits, targets, unknown, prior=prior), **options)


def _given(
    config: schema.Loss, takes: Mapping[str, inspect.Parameter], keys: Mapping[str, str]
) -> Iterator[tuple[str, Any]]:
    """Yield the arguments that `loss.options` sets."""
    free = {
        name: parameter.default
        for name, parameter in takes.items()
        if parameter.kind is parameter.KEYWORD_ONLY and name not in (*keys, *_OF_DATA)
    }
    for text in config.options:
        name, is_set, value = text.partition("=")
        if name not in free or not is_set:
            usual = ", ".join(f"{name}={value}" for name, value in free.items()) or "none"
            raise ConfigError(
                f"loss.options has {text!r}: loss.name={config.name} has no such option",
                f"Its options and their usual values: {usual}.",
            )
        kind = str if isinstance(free[name], str) else float
        try:
            yield name, kind(value)
        except ValueError as error:
            raise ConfigError(f"loss.options has {text!r}: must be a number") from error


def _weights(
    config: schema.Loss,
    takes: Mapping[str, inspect.Parameter],
    labels: Sequence[str],
    counts: LabelCounts | None,
) -> Iterator[tuple[str, Any]]:
    """Yield the arguments that weigh classes and positives."""
    asked = {}
    if config.positive_weight is not None:
        asked["positive_weight"] = config.positive_weight
    how = config.class_weights
    if how in CLASS_WEIGHTS[1:]:
        positives = needed(counts, f"loss.class_weights={how}").positives
        asked["class_weights"] = weights_of_classes(how, positives).astype(np.float32)
    elif how != CLASS_WEIGHTS[0]:
        asked["class_weights"] = _of_file(Path(how), labels)
    for argument, value in asked.items():
        if argument not in takes:
            raise ConfigError(f"loss.{argument}: loss.name={config.name} does not take it")
        yield argument, value


def _of_file(file: Path, labels: Sequence[str]) -> np.ndarray:
    """Return the weights of a JSON file, {label: factor}; a label that it leaves out has 1."""
    try:
        content = regular(file).read_bytes()
    except OSError as error:
        raise ConfigError(
            f"loss.class_weights={file}: cannot be read: {error.strerror}",
            f"It must be {', '.join(CLASS_WEIGHTS)} or a JSON file of weights by label.",
        ) from error
    given = parse_json(content, file, ConfigError)
    if not isinstance(given, dict):
        raise ConfigError(f'{file}: must be weights by label, {{"cat": 2, "dog": 0.5}}')
    if wrong := [label for label in given if label not in labels]:
        raise ConfigError(f"{file}: the data has no label {wrong[0]!r}")
    for label, factor in given.items():
        if isinstance(factor, bool) or not isinstance(factor, int | float) or not factor >= 0:
            raise ConfigError(f"{file}: the weight of {label!r} is {factor!r}: must be >= 0")
    return np.array([given.get(label, 1.0) for label in labels], np.float32)
