"""Cross-entropies as in PaddleClas: of independent labels, and softmax for a single one."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from mlcls_jax.losses.entries import (
    Given,
    check_shapes,
    drop_padding,
    entries_of,
    mean_over_known,
    mean_over_rows,
    mix_costs,
    promote,
    row_weights,
    split_known,
)


def multilabel_loss(
    logits: Float[Given, "B K"],
    targets: Shaped[Given, "B K"],
    *,
    epsilon: float | None = None,
    size_sum: bool = False,
    positive_ratio: Float[Given, " K"] | Float[Given, "B K"] | None = None,
    class_weights: Float[Given, " K"] | None = None,
    positive_weight: float | Float[Given, " K"] | None = None,
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
        class_weights, positive_weight: see the module.
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
    entries = entries_of(logits, targets, mask, class_weights, positive_weight)
    logits, targets, known, weights, *_ = entries
    targets = _smooth(targets, epsilon)

    costs = -jax.nn.log_sigmoid(logits), -jax.nn.log_sigmoid(-logits)
    loss = mix_costs(entries._replace(targets=targets), *costs)
    loss = jnp.where(known, loss, 0)
    if positive_ratio is not None:
        loss = loss * _ratio_weights(targets, jnp.asarray(positive_ratio, loss.dtype))
        known = jnp.ones_like(known)
    if size_sum:
        return mean_over_rows(loss.sum(axis=-1), weights)
    return mean_over_known(loss, known, weights)


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
    check_shapes(logits, targets, logits.shape[:-1] if is_hard else logits.shape)
    weights = row_weights(logits, mask)
    if is_hard:
        targets = jax.nn.one_hot(targets, logits.shape[-1])
    known, targets = split_known(targets.astype(weights.dtype))
    weights = jnp.where(known.all(axis=-1), weights, 0)
    logits = drop_padding(promote(logits), weights)
    targets = _smooth(targets, epsilon)
    return mean_over_rows(-jnp.sum(targets * jax.nn.log_softmax(logits), axis=-1), weights)


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
