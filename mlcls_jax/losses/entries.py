"""What all losses share: rows and entries that count, weights, and sums of costs."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Shaped

REDUCTIONS = ("sum", "mean", "none")

Given = Array | np.ndarray  # arrays of the device and of the host


class Entries(NamedTuple):
    """Logits and targets of a batch, ready for arithmetic.

    Attributes:
        logits: [B, K], float32 or float64; 0 in padding rows.
        targets: [B, K], of the same type; 0 for missing labels.
        known: [B, K], whether the label is annotated.
        weights: [B], of each row; 0 for padding.
        class_weights: a number or [K], factor of the costs of each class.
        positive_weight: a number or [K], further factor of those of positives.
    """

    logits: Float[Array, "B K"]
    targets: Float[Array, "B K"]
    known: Bool[Array, "B K"]
    weights: Float[Array, " B"]
    class_weights: Array | None = None
    positive_weight: Array | None = None


def entries_of(
    logits: Given,
    targets: Given,
    mask: Given | None,
    class_weights: Given | None = None,
    positive_weight: float | Given | None = None,
) -> Entries:
    """Check the shapes, and set aside what does not count.

    Raises:
        ValueError: the shapes do not match.
    """
    logits, targets = jnp.asarray(logits), jnp.asarray(targets)
    check_shapes(logits, targets, logits.shape)
    weights = row_weights(logits, mask)
    logits = drop_padding(promote(logits), weights)
    known, targets = split_known(targets.astype(logits.dtype))
    factors = {"class_weights": class_weights, "positive_weight": positive_weight}
    given = {name: per_class(name, f, targets) for name, f in factors.items() if f is not None}
    return Entries(logits, targets, known, weights, **given)


def mix_costs(
    entries: Entries, positive: Float[Array, "B K"], negative: Float[Array, "B K"]
) -> Float[Array, "B K"]:
    """Return the cost of each entry from what a positive and a negative would cost at its logit.

    A target between 0 and 1 mixes both.
    """
    if entries.positive_weight is not None:
        positive = positive * entries.positive_weight
    costs = entries.targets * positive + (1 - entries.targets) * negative
    return costs if entries.class_weights is None else costs * entries.class_weights


def reduce(
    costs: Float[Array, "B K"], entries: Entries, reduction: str
) -> Float[Array, ""] | Float[Array, "B K"]:
    """Return the sum or the mean of the entries that count, or all with 0 for the others."""
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction is {reduction!r}; it must be one of {', '.join(REDUCTIONS)}")
    if reduction == "mean":
        return mean_over_known(costs, entries.known, entries.weights)
    costs = drop_padding(jnp.where(entries.known, costs, 0), entries.weights)
    costs = costs * entries.weights[:, None]
    return costs.sum() if reduction == "sum" else costs


def per_class(name: str, values: float | Given, targets: Float[Array, "B K"]) -> Array:
    """Return a number or one per class as an array; ValueError for any other shape."""
    values = jnp.asarray(values, targets.dtype)
    if values.shape not in ((), targets.shape[1:]):
        raise ValueError(f"{name} {values.shape} does not fit targets {targets.shape}: [classes]")
    return values


def check_shapes(logits: Array, targets: Array, expected: tuple[int, ...]) -> None:
    """Reject shapes that broadcasting would turn into a wrong number."""
    if logits.ndim != 2 or targets.shape != expected:
        raise ValueError(
            f"logits {logits.shape} and targets {targets.shape} do not fit: expected logits of "
            "[batch, classes] and one target for each"
        )


def promote(logits: Array) -> Array:
    """Return logits as float32, or wider as they are."""
    return logits.astype(jnp.promote_types(logits.dtype, jnp.float32))


def row_weights(logits: Array, mask: Shaped[Given, " B"] | None) -> Float[Array, " B"]:
    """Return the weight of each row: 1, or the mask."""
    dtype = jnp.promote_types(logits.dtype, jnp.float32)
    if mask is None:
        return jnp.ones(logits.shape[0], dtype)
    if mask.shape != logits.shape[:1]:
        raise ValueError(f"mask {mask.shape} does not fit logits {logits.shape}: expected [batch]")
    return jnp.asarray(mask, dtype)


def drop_padding(rows: Float[Array, "B ..."], weights: Array) -> Float[Array, "B ..."]:
    """Set padding rows to zero.

    The logits need it too: a NaN in them would reach the gradient, since 0 · NaN is NaN, if only
    the loss of the row were dropped.
    """
    return jnp.where(weights.reshape(-1, *[1] * (rows.ndim - 1)) != 0, rows, 0)


def split_known(targets: Float[Array, "B K"]) -> tuple[Array, Float[Array, "B K"]]:
    """Return a mask of annotated entries, and the targets with 0 for missing labels."""
    known = targets >= 0
    return known, jnp.where(known, targets, 0)


def mean_over_rows(rows: Float[Array, "..."], weights: Float[Array, "..."]) -> Float[Array, ""]:
    """Return the weighted mean of rows, or of entries; 0 without weights."""
    total = weights.sum()
    return jnp.sum(jnp.where(weights != 0, rows, 0) * weights) / jnp.where(total != 0, total, 1)


def mean_over_known(
    entries: Float[Array, "B K"], known: Array, weights: Float[Array, " B"]
) -> Float[Array, ""]:
    """Return the mean weighted by row, without padding and missing labels."""
    return mean_over_rows(entries, jnp.where(known, weights[:, None], 0))


def power(base: Array, exponent: float) -> Array:
    """Return base^exponent for base >= 0; its gradient at 0 is finite for all exponents."""
    if exponent == 0:
        return jnp.ones_like(base)
    is_positive = base > 0
    return jnp.where(is_positive, jnp.where(is_positive, base, 1.0) ** exponent, 0.0)
