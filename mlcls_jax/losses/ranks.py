"""A loss of ranks: no negative above a positive, per image and per class."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Shaped

from mlcls_jax.losses.entries import Given, entries_of, mean_over_rows


def two_way_loss(
    logits: Float[Given, "B K"],
    targets: Shaped[Given, "B K"],
    *,
    positive_temperature: float = 4.0,
    negative_temperature: float = 1.0,
    mask: Shaped[Given, " B"] | None = None,
) -> Float[Array, ""]:
    """Return the two-way loss (Kobayashi, 2023): the hardest negative against the hardest positive.

    softplus(softmax-like maximum of the negatives' logits - the same minimum of the positives'),
    within each image that has positives, and within each class of the batch that has some; the
    means of both are added. Rows thus depend on each other. Scores rank well and are not
    probabilities: choose thresholds from data.

    Args:
        logits: [B, K], any float type.
        targets: [B, K], above 0.5 present, 0 to 0.5 absent, -1 missing.
        positive_temperature, negative_temperature: > 0; the lower, the harder the extreme.
        mask: [B], bool or float; see the module. Weights of rows count among the images, not
            within classes.

    Returns:
        A scalar; float32, or float64 for float64 logits.

    Raises:
        ValueError: shapes that do not match.

    Example:
        >>> import jax.numpy as jnp
        >>> print(f"{two_way_loss(jnp.array([[2.0, -1.0]]), jnp.array([[1, 0]])):.4f}")
        0.0486
    """
    entries = entries_of(logits, targets, mask)
    is_real = (entries.weights != 0)[:, None]
    is_positive = (entries.targets > 0.5) & is_real
    is_negative = (entries.targets <= 0.5) & entries.known & is_real

    def gaps(axis: int) -> tuple[Array, Bool[Array, " N"]]:
        low = _log_sum_exp(-entries.logits / positive_temperature, is_positive, axis)
        high = _log_sum_exp(entries.logits / negative_temperature, is_negative, axis)
        gap = high * negative_temperature + low * positive_temperature
        counted = is_positive.any(axis)
        compared = counted & is_negative.any(axis)
        return jnp.where(compared, jax.nn.softplus(jnp.where(compared, gap, 0)), 0), counted

    by_image, images = gaps(1)
    by_class, classes = gaps(0)
    of_images = mean_over_rows(by_image, jnp.where(images, entries.weights, 0))
    return of_images + mean_over_rows(by_class, classes.astype(by_class.dtype))


def _log_sum_exp(values: Float[Array, "B K"], where: Bool[Array, "B K"], axis: int) -> Array:
    """Return log Σ exp of the values where `where`; 0 where there is none."""
    some = where.any(axis, keepdims=True)
    total = jax.nn.logsumexp(values, axis=axis, where=where | ~some)
    return jnp.where(some.squeeze(axis), total, 0)
