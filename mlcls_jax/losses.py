"""Losses on logits: asymmetric loss, binary cross-entropy, softmax cross-entropy.

All losses compute in float32 or wider and match the values of PaddleClas (`ppcls/loss/`).

A target below 0 marks a missing label: the entry contributes neither to the value nor to the
gradient, and means are taken over the annotated entries. The softmax needs the whole row, so
`cross_entropy` leaves out rows with missing labels.

All losses take `mask` [B], bool or float. False or 0 marks a padding row: whatever it holds, NaN
included, contributes neither to the value nor to the gradient, and means are taken over the other
rows. Other floats are per-row weights. When every row is padding the loss is 0.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

__all__ = ["LOSSES", "REDUCTIONS", "asymmetric_loss", "cross_entropy", "multilabel_loss"]

REDUCTIONS = ("sum", "mean", "none")

Given = Array | np.ndarray  # arrays of the device and of the host


def asymmetric_loss(
    logits: Float[Given, "B K"],
    targets: Shaped[Given, "B K"],
    *,
    gamma_pos: float = 0.0,
    gamma_neg: float = 4.0,
    clip: float | None = 0.05,
    stop_focal_gradient: bool = True,
    reduction: str = "sum",
    epsilon: float = 1e-8,
    mask: Shaped[Given, " B"] | None = None,
) -> Float[Array, ""] | Float[Array, "B K"]:
    """Return the asymmetric loss (Ridnik et al., 2021), which discounts easy negatives.

    With p = sigmoid(logit), a positive costs -log(p) · (1-p)^gamma_pos. A negative costs
    -log(1-q) · q^gamma_neg, where q = max(p - clip, 0). Logarithms are cut off at log(epsilon);
    beyond that the gradient is zero. PaddleClas: `MultiLabelAsymmetricLoss`, whose own default for
    gamma_pos is 1 and whose recipes use 0, as here.

    Args:
        logits: [B, K], any float type.
        targets: [B, K], 1 present, 0 absent, -1 missing, of any type. Values in between, as mixup
            makes them, mix the costs of a positive and a negative (the original has no rule for
            them, nor for missing labels).
        gamma_pos: focusing exponent of positives, >= 0; 0 disables focusing.
        gamma_neg: focusing exponent of negatives, >= 0; 0 disables focusing.
        clip: probability in [0, 1) up to which a negative costs nothing; 0 or None disables it.
        stop_focal_gradient: treat the focusing factor as a constant in the gradient.
        reduction: "sum" or "mean" over rows and classes, or "none".
        epsilon: lower bound of the logarithm's argument, in (0, 1).
        mask: [B], bool or float; see the module.

    Returns:
        A scalar, or [B, K] for "none"; float32, or float64 for float64 logits.

    Raises:
        ValueError: unknown reduction, or shapes that do not match.

    Example:
        >>> import jax.numpy as jnp
        >>> logits, targets = jnp.array([[2.0, -1.0, 0.5]]), jnp.array([[1, 0, -1]])
        >>> print(f"{asymmetric_loss(logits, targets):.4f}")
        0.1275
        >>> asymmetric_loss(logits, targets, reduction="none").shape
        (1, 3)
    """
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction is {reduction!r}; it must be one of {', '.join(REDUCTIONS)}")
    logits, targets = jnp.asarray(logits), jnp.asarray(targets)
    _check_shapes(logits, targets, logits.shape)
    weights = _row_weights(logits, mask)
    logits = _drop_padding(_promote(logits), weights)
    known, targets = _split_known(targets.astype(logits.dtype))

    positive, negative = _costs(logits, gamma_pos, gamma_neg, clip, epsilon, stop_focal_gradient)
    loss = targets * positive + (1 - targets) * negative

    if reduction == "mean":
        return _mean_over_known(loss, known, weights)
    loss = _drop_padding(jnp.where(known, loss, 0), weights) * weights[:, None]
    return loss.sum() if reduction == "sum" else loss


def _costs(
    logits: Float[Array, "B K"],
    gamma_pos: float,
    gamma_neg: float,
    clip: float | None,
    epsilon: float,
    stop_focal_gradient: bool,
) -> tuple[Float[Array, "B K"], Float[Array, "B K"]]:
    """Return what a positive and a negative cost in the asymmetric loss."""
    margin = clip or 0.0
    # 1 - sigmoid(x) would lose all digits of a confident prediction; sigmoid(-x) keeps them.
    present, absent = jax.nn.sigmoid(logits), jax.nn.sigmoid(-logits)
    excess = jnp.maximum(present - margin, 0.0)
    spared = jnp.where(excess > 0, absent + margin, 1.0)
    focus_pos, focus_neg = _power(absent, gamma_pos), _power(excess, gamma_neg)
    if stop_focal_gradient:
        focus_pos, focus_neg = jax.lax.stop_gradient((focus_pos, focus_neg))
    positive = -jnp.log(jnp.maximum(present, epsilon)) * focus_pos
    negative = -jnp.log(jnp.maximum(spared, epsilon)) * focus_neg
    return positive, negative


def multilabel_loss(
    logits: Float[Given, "B K"],
    targets: Shaped[Given, "B K"],
    *,
    epsilon: float | None = None,
    size_sum: bool = False,
    positive_ratio: Float[Given, " K"] | Float[Given, "B K"] | None = None,
    mask: Shaped[Given, " B"] | None = None,
) -> Float[Array, ""]:
    """Return binary cross-entropy with optional label smoothing and weights for rare labels.

    PaddleClas: `MultiLabelLoss`, whose gradient at a logit of exactly 0 is wrong (too low by 1);
    ours is right. `positive_ratio` is its `weight_ratio`: with r the share of positives, an entry
    weighs exp(1-r) if its target is above 0.5 and exp(r) otherwise. The original ignores targets of
    -1 only together with `positive_ratio`, and then still takes the mean over all entries; in that
    case ours does the same.

    Args:
        logits: [B, K], any float type.
        targets: [B, K], 1 present, 0 absent, -1 missing, of any type; values in between are soft
            labels.
        epsilon: label smoothing t → (1-epsilon)·t + epsilon/K, in (0, 1); 0 or None disables it.
        size_sum: sum over the classes and mean over the rows; otherwise mean over both.
        positive_ratio: [K] or [B, K], in [0, 1].
        mask: [B], bool or float; see the module.

    Returns:
        A scalar; float32, or float64 for float64 logits.

    Raises:
        ValueError: epsilon outside [0, 1), or shapes that do not match.

    Example:
        >>> import jax.numpy as jnp
        >>> print(f"{multilabel_loss(jnp.array([[2.0, -1.0]]), jnp.array([[1, 0]])):.4f}")
        0.2201
    """
    logits, targets = jnp.asarray(logits), jnp.asarray(targets)
    _check_shapes(logits, targets, logits.shape)
    weights = _row_weights(logits, mask)
    logits = _drop_padding(_promote(logits), weights)
    known, targets = _split_known(targets.astype(logits.dtype))
    targets = _smooth(targets, epsilon)

    loss = -targets * jax.nn.log_sigmoid(logits) - (1 - targets) * jax.nn.log_sigmoid(-logits)
    loss = jnp.where(known, loss, 0)
    if positive_ratio is not None:
        loss = loss * _ratio_weights(targets, jnp.asarray(positive_ratio, loss.dtype))
        known = jnp.ones_like(known)
    if size_sum:
        return _mean_over_rows(loss.sum(axis=-1), weights)
    return _mean_over_known(loss, known, weights)


def cross_entropy(
    logits: Float[Given, "B K"],
    targets: Shaped[Given, " B"] | Shaped[Given, "B K"],
    *,
    epsilon: float | None = None,
    mask: Shaped[Given, " B"] | None = None,
) -> Float[Array, ""]:
    """Return softmax cross-entropy for single-label images, averaged over the rows.

    PaddleClas: `CELoss`, without its softmax over soft targets.

    Args:
        logits: [B, K], any float type.
        targets: [B] class indices in 0..K-1 (an index outside belongs to no class and costs nothing
            without `epsilon`), or [B, K] class probabilities, -1 missing. The rank tells them
            apart.
        epsilon: label smoothing as in `multilabel_loss`.
        mask: [B], bool or float; see the module.

    Returns:
        A scalar; float32, or float64 for float64 logits.

    Raises:
        ValueError: epsilon outside [0, 1), or shapes that do not match.

    Example:
        >>> import jax.numpy as jnp
        >>> print(f"{cross_entropy(jnp.array([[2.0, -1.0]]), jnp.array([0])):.4f}")
        0.0486
    """
    logits, targets = jnp.asarray(logits), jnp.asarray(targets)
    is_hard = targets.ndim == logits.ndim - 1
    _check_shapes(logits, targets, logits.shape[:-1] if is_hard else logits.shape)
    weights = _row_weights(logits, mask)
    if is_hard:
        targets = jax.nn.one_hot(targets, logits.shape[-1])
    known, targets = _split_known(targets.astype(weights.dtype))
    weights = jnp.where(known.all(axis=-1), weights, 0)
    logits = _drop_padding(_promote(logits), weights)
    targets = _smooth(targets, epsilon)
    return _mean_over_rows(-jnp.sum(targets * jax.nn.log_softmax(logits), axis=-1), weights)


LOSSES: dict[str, Callable[..., Array]] = {
    "asymmetric": asymmetric_loss,
    "multilabel": multilabel_loss,
    "cross_entropy": cross_entropy,
}


def _check_shapes(logits: Array, targets: Array, expected: tuple[int, ...]) -> None:
    """Reject shapes that broadcasting would turn into a wrong number."""
    if logits.ndim != 2 or targets.shape != expected:
        raise ValueError(
            f"logits {logits.shape} and targets {targets.shape} do not fit: expected logits of "
            "[batch, classes] and one target for each"
        )


def _promote(logits: Array) -> Array:
    return logits.astype(jnp.promote_types(logits.dtype, jnp.float32))


def _row_weights(logits: Array, mask: Given | None) -> Float[Array, " B"]:
    """Return the weight of each row: 1, or the mask."""
    dtype = jnp.promote_types(logits.dtype, jnp.float32)
    if mask is None:
        return jnp.ones(logits.shape[0], dtype)
    if mask.shape != logits.shape[:1]:
        raise ValueError(f"mask {mask.shape} does not fit logits {logits.shape}: expected [batch]")
    return jnp.asarray(mask, dtype)


def _drop_padding(rows: Float[Array, "B ..."], weights: Array) -> Float[Array, "B ..."]:
    """Set padding rows to zero.

    The logits need it too: a NaN in them would reach the gradient, since 0 · NaN is NaN, if only
    the loss of the row were dropped.
    """
    return jnp.where(weights.reshape(-1, *[1] * (rows.ndim - 1)) != 0, rows, 0)


def _mean_over_rows(rows: Float[Array, " B"], weights: Float[Array, " B"]) -> Float[Array, ""]:
    total = weights.sum()
    return jnp.sum(_drop_padding(rows, weights) * weights) / jnp.where(total != 0, total, 1)


def _split_known(targets: Float[Array, "B K"]) -> tuple[Array, Float[Array, "B K"]]:
    """Return a mask of annotated entries, and the targets with 0 for missing labels."""
    known = targets >= 0
    return known, jnp.where(known, targets, 0)


def _mean_over_known(
    entries: Float[Array, "B K"], known: Array, weights: Float[Array, " B"]
) -> Float[Array, ""]:
    """Return the mean weighted by row, without padding and missing labels."""
    weights = jnp.where(known, weights[:, None], 0)
    total = weights.sum()
    return jnp.sum(jnp.where(weights != 0, entries, 0) * weights) / jnp.where(total != 0, total, 1)


def _power(base: Array, exponent: float) -> Array:
    """Return base^exponent for base >= 0; its gradient at 0 is finite for all exponents."""
    if exponent == 0:
        return jnp.ones_like(base)
    is_positive = base > 0
    return jnp.where(is_positive, jnp.where(is_positive, base, 1.0) ** exponent, 0.0)


def _smooth(targets: Float[Array, "B K"], epsilon: float | None) -> Float[Array, "B K"]:
    if not epsilon:
        return targets
    if not 0 < epsilon < 1:
        raise ValueError(f"epsilon is {epsilon}; label smoothing lies in [0, 1)")
    return (1 - epsilon) * targets + epsilon / targets.shape[-1]


def _ratio_weights(targets: Float[Array, "B K"], ratio: Array) -> Float[Array, "B K"]:
    if ratio.shape not in (targets.shape, targets.shape[1:]):
        raise ValueError(
            f"positive_ratio {ratio.shape} does not fit targets {targets.shape}: expected "
            "[classes] or [batch, classes]"
        )
    return jnp.exp(jnp.where(targets > 0.5, 1 - ratio, ratio))
