"""A loss of sets: how far the labels of an image and its scores overlap."""

from typing import Literal

import jax
from jaxtyping import Array, Float, Shaped

from mlcls_jax.losses.entries import Given, entries_of, mean_over_rows


def overlap_loss(
    logits: Float[Given, "B K"],
    targets: Shaped[Given, "B K"],
    *,
    of: Literal["f1", "jaccard"] = "f1",
    smooth: float = 1.0,
    mask: Shaped[Given, " B"] | None = None,
) -> Float[Array, ""]:
    """Return 1 - the soft F1 (Dice) or Jaccard of each image's labels, averaged over the images.

    With p = sigmoid(logit), t the targets and I = Σ p·t: F1 is (2·I + smooth) / (Σ p + Σ t +
    smooth), Jaccard (I + smooth) / (Σ p + Σ t - I + smooth).

    Args:
        logits: [B, K], any float type.
        targets: [B, K], in [0, 1]; -1 missing.
        of: which of the two.
        smooth: > 0; spares images without labels a division by nothing.
        mask: [B], bool or float; see the module.

    Returns:
        A scalar; float32, or float64 for float64 logits.

    Raises:
        ValueError: shapes that do not match.

    Example:
        >>> import jax.numpy as jnp
        >>> print(f"{overlap_loss(jnp.array([[2.0, -1.0]]), jnp.array([[1, 0]])):.4f}")
        0.1232
    """
    logits, targets, known, weights, *_ = entries_of(logits, targets, mask)
    scores = jax.nn.sigmoid(logits) * known
    common = (scores * targets).sum(1)
    total = scores.sum(1) + targets.sum(1)
    if of == "f1":
        overlap = (2 * common + smooth) / (total + smooth)
    else:
        overlap = (common + smooth) / (total - common + smooth)
    return mean_over_rows(1 - overlap, weights * known.any(1))
