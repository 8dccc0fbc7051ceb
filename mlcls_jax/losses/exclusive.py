"""Cross-entropy of labels that exclude each other: an image has one of the group, or none."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from mlcls_jax.losses.entries import Given, entries_of, mean_over_rows

_LEAST = (
    1e-6  # of a chance; below it costs go on rising in a straight line, so that they are learnt
)


def exclusive_loss(
    logits: Float[Given, "B K"],
    targets: Shaped[Given, "B K"],
    members: Sequence[np.ndarray],
    *,
    mean: bool = False,
    mask: Shaped[Given, " B"] | None = None,
) -> Float[Array, ""]:
    """Return the cross-entropy within groups of which an image has one label, or none.

    With p = sigmoid(logit), which in a group add up to at most 1, an image with label k of a group
    costs -log p_k. One with none of those that are annotated costs -log(1 - sum of their p): what
    is left are the labels that nobody looked at, and "none". Two labels of a group cost half each.

    Args:
        logits: [B, K], as `groups.consistent` makes them.
        targets: [B, K], 1 present, 0 absent, -1 missing; values in between are shares.
        members: the labels of each group.
        mean: over rows and groups, instead of the sum.
        mask: see the module.

    Raises:
        ValueError: shapes that do not match.

    Example:
        >>> import jax.numpy as jnp
        >>> logits = jnp.array([[0.0, -1.1]])  # 1/2 and 1/4; the rest is "none"
        >>> print(f"{exclusive_loss(logits, jnp.array([[1, -1]]), [np.arange(2)]):.4f}")
        0.6931
    """
    entries = entries_of(logits, targets, mask)
    chances = jnp.where(entries.known, jax.nn.sigmoid(entries.logits), 0)
    absent = jnp.where(entries.known, jax.nn.sigmoid(-entries.logits), 1)
    found = entries.targets * -jax.nn.log_sigmoid(entries.logits)
    costs = []
    for group in members:
        share = entries.targets[:, group].sum(1)
        # 1 - the largest by its logit: a difference of numbers near 1 would have no gradient.
        largest = entries.logits[:, group].argmax(1)[:, None] == jnp.arange(len(group))
        left = jnp.where(largest, absent[:, group], -chances[:, group]).sum(1)
        none = -jnp.log(jnp.maximum(left, _LEAST)) + jnp.maximum(_LEAST - left, 0) / _LEAST
        one = found[:, group].sum(1) / jnp.maximum(share, 1)
        costs.append(one + jnp.maximum(1 - share, 0) * none)
    rows = jnp.stack(costs, axis=1)  # [B, groups]
    if mean:
        return mean_over_rows(rows.mean(1), entries.weights)
    return (rows.sum(1) * entries.weights).sum()
