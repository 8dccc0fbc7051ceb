"""Losses for labels that nobody looked at: Hill, entropy, and what a missing label counts as."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from mlcls_jax.losses.entries import Given, entries_of, mix_costs, per_class, power, reduce

UNKNOWN = ("ignore", "negative", "selective")


def hill_loss(
    logits: Float[Given, "B K"],
    targets: Shaped[Given, "B K"],
    *,
    lam: float = 1.5,
    margin: float = 1.0,
    gamma: float = 2.0,
    reduction: str = "sum",
    class_weights: Float[Given, " K"] | None = None,
    positive_weight: float | Float[Given, " K"] | None = None,
    mask: Shaped[Given, " B"] | None = None,
) -> Float[Array, ""] | Float[Array, "B K"]:
    """Return the Hill loss (Zhang et al., 2021), for positives that were taken for negatives.

    With p = sigmoid(logit), a negative costs (lam - p) · p², whose gradient falls again where the
    model is sure of the label. A positive costs -log(q) · (1-q)^gamma, q = sigmoid(logit - margin).

    Args:
        logits: [B, K], any float type.
        targets: [B, K], 1 present, 0 absent or not looked at, -1 left out; values in between mix.
        lam: turning point of the negatives, > 0.
        margin: of positives, in logits.
        gamma: focusing exponent of positives, >= 0.
        reduction: "sum" or "mean" over entries that are not left out, or "none".
        class_weights, positive_weight, mask: see the module.

    Returns:
        A scalar, or [B, K] for "none"; float32, or float64 for float64 logits.

    Raises:
        ValueError: unknown reduction, or shapes that do not match.

    Example:
        >>> import jax.numpy as jnp
        >>> print(f"{hill_loss(jnp.array([[2.0, -1.0]]), jnp.array([[1, 0]])):.4f}")
        0.1117
    """
    entries = entries_of(logits, targets, mask, class_weights, positive_weight)
    shifted, present = entries.logits - margin, jax.nn.sigmoid(entries.logits)
    costs = mix_costs(
        entries,
        -jax.nn.log_sigmoid(shifted) * power(jax.nn.sigmoid(-shifted), gamma),
        (lam - present) * present**2,
    )
    return reduce(costs, entries, reduction)


def entropy_loss(
    logits: Float[Given, "B K"],
    targets: Shaped[Given, "B K"],
    *,
    alpha: float = 0.1,
    reduction: str = "sum",
    class_weights: Float[Given, " K"] | None = None,
    positive_weight: float | Float[Given, " K"] | None = None,
    mask: Shaped[Given, " B"] | None = None,
) -> Float[Array, ""] | Float[Array, "B K"]:
    """Return cross-entropy plus entropy of missing labels (Zhou et al., 2022), to be maximised.

    The loss for images with a single positive, everything else unknown. A known label costs
    cross-entropy. A missing one, p = sigmoid(logit), costs alpha · (p log p + (1-p) log(1-p)): at
    least at p = 1/2, so it is pulled to "don't know", the less so the surer the model is. The
    paper's pseudo-labels, which need earlier epochs, are not here.

    Args:
        logits: [B, K], any float type.
        targets: [B, K], 1 present, 0 absent, -1 missing; values in between mix the costs.
        alpha: weight of the entropy, >= 0.
        reduction: "sum" or "mean" over all entries, missing ones included, or "none".
        class_weights, positive_weight, mask: see the module.

    Returns:
        A scalar, or [B, K] for "none"; float32, or float64 for float64 logits.

    Raises:
        ValueError: unknown reduction, or shapes that do not match.
    """
    entries = entries_of(logits, targets, mask, class_weights, positive_weight)
    positive, negative = -jax.nn.log_sigmoid(entries.logits), -jax.nn.log_sigmoid(-entries.logits)
    present, absent = jax.nn.sigmoid(entries.logits), jax.nn.sigmoid(-entries.logits)
    unsure = -alpha * (present * positive + absent * negative)
    costs = mix_costs(entries, positive, negative)
    costs = jnp.where(entries.known, costs, unsure)
    return reduce(costs, entries._replace(known=jnp.ones_like(entries.known)), reduction)


def count_unknown(
    logits: Float[Given, "B K"],
    targets: Shaped[Given, "B K"],
    how: str,
    *,
    prior: Float[Given, " K"] | None = None,
    likely: int = 5,
    common: float = 0.05,
) -> Array:
    """Return targets in which missing labels count as a loss shall count them.

    "ignore" leaves them out, "negative" takes them for absent. "selective" (Ben-Baruch et al.,
    2022) takes them for absent unless that is probably wrong: the label is common, or among the
    likeliest missing ones of its image. The original chooses the likeliest of a whole batch, as
    many as `likely` per image; here each image has its own, so that images stay independent.

    Args:
        logits: [B, K], by which "selective" ranks; no gradient passes.
        targets: [B, K], -1 missing.
        how: one of `UNKNOWN`.
        prior: [K], share of the images with each label, for "selective"; None: no label is common.
        likely: missing labels per image that are left out.
        common: prior above which a missing label is left out.

    Returns:
        [B, K], -1 where a label is still left out.

    Raises:
        ValueError: there is no such way.

    Example:
        >>> import jax.numpy as jnp
        >>> logits, targets = jnp.array([[3.0, -1.0, 0.5]]), jnp.array([[-1, -1, 1]])
        >>> count_unknown(logits, targets, "selective", likely=1).tolist()
        [[-1, 0, 1]]
    """
    if how not in UNKNOWN:
        raise ValueError(f"unknown labels are {how!r}; it must be one of {', '.join(UNKNOWN)}")
    targets = jnp.asarray(targets)
    missing = targets < 0
    if how == "ignore":
        return targets
    if how == "negative":
        return jnp.where(missing, 0, targets)
    ranked = jnp.where(missing, jax.lax.stop_gradient(jnp.asarray(logits)), -jnp.inf)
    classes = ranked.shape[1]
    _, likeliest = jax.lax.top_k(ranked, min(likely, classes))  # [B, likely]
    doubtful = (likeliest[:, :, None] == jnp.arange(classes)).any(1)
    if prior is not None:
        doubtful |= per_class("prior", prior, ranked) > common
    return jnp.where(missing & ~doubtful, 0, targets)
