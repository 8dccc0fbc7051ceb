"""Losses that treat positives and negatives differently: asymmetric, asymmetric angular."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from mlcls_jax.losses.entries import Given, entries_of, mix_costs, power, reduce


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
    class_weights: Float[Given, " K"] | None = None,
    positive_weight: float | Float[Given, " K"] | None = None,
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
        class_weights, positive_weight: see the module.
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
    entries = entries_of(logits, targets, mask, class_weights, positive_weight)
    margin = clip or 0.0
    # 1 - sigmoid(x) would lose all digits of a confident prediction; sigmoid(-x) keeps them.
    present, absent = jax.nn.sigmoid(entries.logits), jax.nn.sigmoid(-entries.logits)
    excess = jnp.maximum(present - margin, 0.0)
    spared = jnp.where(excess > 0, absent + margin, 1.0)
    focus_pos, focus_neg = power(absent, gamma_pos), power(excess, gamma_neg)
    if stop_focal_gradient:
        focus_pos, focus_neg = jax.lax.stop_gradient((focus_pos, focus_neg))
    costs = mix_costs(
        entries,
        -jnp.log(jnp.maximum(present, epsilon)) * focus_pos,
        -jnp.log(jnp.maximum(spared, epsilon)) * focus_neg,
    )
    return reduce(costs, entries, reduction)


def angular_loss(
    logits: Float[Given, "B K"],
    targets: Shaped[Given, "B K"],
    *,
    gamma_pos: float = 0.0,
    gamma_neg: float = 1.0,
    clip: float = 0.05,
    k: float = 0.8,
    reduction: str = "sum",
    epsilon: float = 1e-8,
    class_weights: Float[Given, " K"] | None = None,
    positive_weight: float | Float[Given, " K"] | None = None,
    mask: Shaped[Given, " B"] | None = None,
) -> Float[Array, ""] | Float[Array, "B K"]:
    """Return the asymmetric angular loss, AAM (Prokofiev and Sovrasov, 2022).

    With p = sigmoid(logit), a positive costs -k · log(p) · (1-p)^gamma_pos and a negative
    -(1-k) · log(min(1-p+clip, 1)) · p^gamma_neg. In contrast to `asymmetric_loss` the focus is on
    the unclipped p, and the gradient runs through it. The paper's logits are cosines times a scale;
    other logits may be given as well. OpenVINO Training Extensions:
    `AsymmetricAngularLossWithIgnore`.

    Args:
        logits: [B, K], any float type.
        targets: [B, K], as in `asymmetric_loss`.
        gamma_pos, gamma_neg: focusing exponents, >= 0.
        clip: added to the probability of absence, in [0, 1).
        k: share of positives in the loss, in [0, 1].
        reduction, epsilon: as in `asymmetric_loss`.
        class_weights, positive_weight, mask: see the module.

    Returns:
        A scalar, or [B, K] for "none"; float32, or float64 for float64 logits.

    Raises:
        ValueError: unknown reduction, or shapes that do not match.
    """
    entries = entries_of(logits, targets, mask, class_weights, positive_weight)
    present, absent = jax.nn.sigmoid(entries.logits), jax.nn.sigmoid(-entries.logits)
    spared = jnp.minimum(absent + clip, 1.0)
    costs = mix_costs(
        entries,
        -k * jnp.log(jnp.maximum(present, epsilon)) * power(absent, gamma_pos),
        -(1 - k) * jnp.log(jnp.maximum(spared, epsilon)) * power(present, gamma_neg),
    )
    return reduce(costs, entries, reduction)
