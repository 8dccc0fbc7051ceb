"""Losses for rare labels: focal and distribution-balanced."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from mlcls_jax.losses.entries import Entries, Given, entries_of, mix_costs, per_class, power, reduce


def focal_loss(
    logits: Float[Given, "B K"],
    targets: Shaped[Given, "B K"],
    *,
    gamma: float = 2.0,
    alpha: float | None = None,
    reduction: str = "sum",
    class_weights: Float[Given, " K"] | None = None,
    positive_weight: float | Float[Given, " K"] | None = None,
    mask: Shaped[Given, " B"] | None = None,
) -> Float[Array, ""] | Float[Array, "B K"]:
    """Return the focal loss (Lin et al., 2017): cross-entropy that discounts easy entries.

    With p = sigmoid(logit), a positive costs -alpha · log(p) · (1-p)^gamma and a negative
    -(1-alpha) · log(1-p) · p^gamma. torchvision: `sigmoid_focal_loss`.

    Args:
        logits: [B, K], any float type.
        targets: [B, K], 1 present, 0 absent, -1 missing; values in between mix the costs.
        gamma: focusing exponent, >= 0.
        alpha: share of positives, in [0, 1]; None: both costs whole.
        reduction: "sum" or "mean" over annotated entries, or "none".
        class_weights, positive_weight, mask: see the module.

    Returns:
        A scalar, or [B, K] for "none"; float32, or float64 for float64 logits.

    Raises:
        ValueError: unknown reduction, or shapes that do not match.

    Example:
        >>> import jax.numpy as jnp
        >>> print(f"{focal_loss(jnp.array([[2.0, -1.0]]), jnp.array([[1, 0]])):.4f}")
        0.0245
    """
    entries = entries_of(logits, targets, mask, class_weights, positive_weight)
    positive, negative = _focused(entries.logits, gamma)
    if alpha is not None:
        positive, negative = alpha * positive, (1 - alpha) * negative
    costs = mix_costs(entries, positive, negative)
    return reduce(costs, entries, reduction)


def distribution_balanced_loss(
    logits: Float[Given, "B K"],
    targets: Shaped[Given, "B K"],
    *,
    positives: Float[Given, " K"],
    images: float,
    gamma: float = 2.0,
    balance: float = 2.0,
    alpha: float = 0.1,
    beta: float = 10.0,
    mu: float = 0.2,
    neg_scale: float = 2.0,
    bias: float = 0.05,
    reduction: str = "sum",
    class_weights: Float[Given, " K"] | None = None,
    positive_weight: float | Float[Given, " K"] | None = None,
    mask: Shaped[Given, " B"] | None = None,
) -> Float[Array, ""] | Float[Array, "B K"]:
    """Return the distribution-balanced loss (Wu et al., 2020) for long-tailed labels.

    Focal loss whose entries are weighed by how much rarer their label is than the image's labels
    together, alpha + sigmoid(beta · (rarity - mu)), and whose logits are shifted by the labels'
    frequencies and, of negatives, multiplied by neg_scale, so that negatives of rare labels are
    soon satisfied. The originals' `ResampleLoss` with `rebalance` and the defaults for COCO-LT.

    Args:
        logits: [B, K], any float type.
        targets: [B, K], 1 present, 0 absent, -1 missing; values in between mix the costs.
        positives: [K], images of the training set with each label; less than 1 counts as 1.
        images: of the training set; more than any of `positives`.
        gamma: focusing exponent, >= 0.
        balance: factor of the whole.
        alpha, beta, mu: map of an entry's rarity to its weight.
        neg_scale: factor of the logits of negatives, > 0; their costs are divided by it.
        bias: strength of the shift by frequencies.
        reduction: "sum" or "mean" over annotated entries, or "none".
        class_weights, positive_weight, mask: see the module.

    Returns:
        A scalar, or [B, K] for "none"; float32, or float64 for float64 logits.

    Raises:
        ValueError: unknown reduction, or shapes that do not match.
    """
    entries = entries_of(logits, targets, mask, class_weights, positive_weight)
    counts = jnp.maximum(per_class("positives", positives, entries.targets), 1)
    weights = balance * (alpha + jax.nn.sigmoid(beta * (_rarity(entries, counts) - mu)))
    shift = -jnp.log(jnp.maximum(images / counts - 1, 1e-6)) * bias / neg_scale
    positive, _ = _focused(entries.logits + shift, gamma)
    _, negative = _focused((entries.logits + shift) * neg_scale, gamma)
    costs = mix_costs(
        entries,
        weights * positive,
        weights / neg_scale * negative,
    )
    return reduce(costs, entries, reduction)


def _rarity(entries: Entries, counts: Float[Array, " K"]) -> Float[Array, "B K"]:
    """Return 1/count of each label, relative to the sum over the image's labels.

    An image without labels leaves all of them at their rarest.
    """
    inverse = 1 / counts
    total = (entries.targets * inverse).sum(axis=1, keepdims=True)
    return jnp.where(total > 0, inverse / jnp.where(total > 0, total, 1), jnp.inf)


def _focused(logits: Float[Array, "B K"], gamma: float) -> tuple[Array, Array]:
    """Return the focused costs of a positive and a negative."""
    positive = -jax.nn.log_sigmoid(logits) * power(jax.nn.sigmoid(-logits), gamma)
    negative = -jax.nn.log_sigmoid(-logits) * power(jax.nn.sigmoid(logits), gamma)
    return positive, negative
