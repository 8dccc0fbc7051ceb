"""The lowest and the highest average precision that labels nobody looked at leave possible."""

import math

import numpy as np

from mlcls_jax.metrics.blocks import check, columns_of, labels_of


def precision_bounds(scores: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the least and the greatest average precision of each class, float64 [K] each.

    They are taken over all ways to make each missing label present or absent, and are exact: among
    ways with as many present, the highest scores give the greatest and the lowest the least
    precision (changing a present one with an absent one above it gains), and every number is tried.

    Args:
        scores: [N, K], by which images are ranked; as in `average_precision`, equal ones together.
        targets: [N, K], below 0 for missing labels.

    Returns:
        NaN for classes in which no way has a positive. A class without a known positive counts
        only if it gets one.

    Example:
        >>> import numpy as np
        >>> scores, targets = np.array([[0.9], [0.6], [0.3]]), np.array([[-1], [1], [0]])
        >>> low, high = precision_bounds(scores, targets)
        >>> low.tolist(), high.tolist()
        ([0.5], [1.0])
    """
    scores, targets = check(scores, targets)
    low, high = np.full((2, scores.shape[1]), np.nan)
    for k, column, present, known in columns_of(scores, targets):
        if present.any() or not known.all():
            low[k], high[k] = _of_class(column, present, ~known)
    return low, high


def mean_precision_bounds(scores: np.ndarray, targets: np.ndarray) -> tuple[float, float]:
    """Return the least and the greatest `mean_average_precision`; NaN if none has a positive.

    A class without a known positive counts in the mean only if it gets one, which lowers the least
    mean or raises the greatest.
    """
    low, high = precision_bounds(scores, targets)
    has_positives = np.asarray(labels_of(np.asarray(targets))[0].any(0))
    return _mean(low, has_positives), -_mean(-high, has_positives)


def _mean(values: np.ndarray, needed: np.ndarray) -> float:
    """Return the least mean of the needed values and any of the others; NaN without any."""
    total, count = float(values[needed].sum()), int(needed.sum())
    for value in np.sort(values[~needed & ~np.isnan(values)]):
        if count and value * count >= total:
            break
        total, count = total + float(value), count + 1
    return total / count if count else math.nan


def _of_class(scores: np.ndarray, present: np.ndarray, missing: np.ndarray) -> tuple[float, float]:
    """Return both bounds of one class.

    The average precision of P positives is the sum, over pairs of them of which the second ranks
    no lower, of 1 / rank of the first, divided by P. One positive more adds its pairs to the sum.
    """
    taken = np.sort(scores)
    found = np.sort(scores[present])
    unknown = np.sort(scores[missing])[::-1]

    def rank(values: np.ndarray) -> np.ndarray:  # of the last of those with the same score
        return taken.size - np.searchsorted(taken, values)

    above = found.size - np.searchsorted(found, found)
    total = float((above / rank(found)).sum())  # of the known positives
    if not unknown.size:
        return total / found.size, total / found.size
    ranks = rank(unknown)  # rising
    shares = 1 / ranks
    # Of the known positives: how many rank no lower, and the sum of 1 / rank of those no higher.
    above = found.size - np.searchsorted(found, unknown)
    sums = np.append(0, np.cumsum(1 / rank(found)))
    below = sums[np.searchsorted(found, unknown, "right")]
    first = np.searchsorted(ranks, ranks)  # of those with the same score
    last = np.searchsorted(ranks, ranks, "right")
    number = np.arange(ranks.size)
    counts = found.size + 1 + number
    # From the top down: all chosen before rank no lower.
    from_top = shares * (1 + above + number) + below + (number - first) * shares
    # From the bottom up: all chosen before rank no higher.
    later = np.append(np.cumsum(shares[::-1])[::-1][1:], 0)
    from_bottom = shares * (1 + above + last - 1 - number) + below + later
    highest = (total + np.cumsum(from_top)) / counts
    lowest = (total + np.cumsum(from_bottom[::-1])) / counts
    if found.size:  # or none of them is present
        none = total / found.size
        return min(none, float(lowest.min())), max(none, float(highest.max()))
    return float(lowest.min()), float(highest.max())
