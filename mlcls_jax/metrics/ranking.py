"""Average precision, by which images are ranked."""

import math
from collections.abc import Callable

import numpy as np

from mlcls_jax.metrics.blocks import annotated_columns, check


def mean_average_precision(
    scores: np.ndarray, targets: np.ndarray, method: str = "integral"
) -> float:
    """Return the mean of `average_precision` over classes with positives; NaN if there are none.

    Example:
        >>> import numpy as np
        >>> scores = np.array([[0.9, 0.2], [0.4, 0.8], [0.6, 0.3]])
        >>> round(mean_average_precision(scores, np.array([[1, 0], [1, 1], [0, 0]])), 4)
        0.9167
    """
    values = average_precision(scores, targets, method=method)
    has_positives = ~np.isnan(values)
    return float(values[has_positives].mean()) if has_positives.any() else math.nan


def average_precision(
    scores: np.ndarray, targets: np.ndarray, method: str = "integral"
) -> np.ndarray:
    """Return per-class average precision, float64 [K] in [0, 1]; NaN without positives.

    Equal scores form one threshold, as in scikit-learn's `average_precision_score`: precision and
    recall are evaluated only where the score changes, so the order of images does not matter.

    Args:
        scores: [N, K].
        targets: [N, K].
        method: "integral", the sum of precision times the gain in recall, without interpolation; or
            "11point", the mean over recalls 0, 0.1, …, 1 of the best precision at that recall or
            a higher one (PASCAL VOC 2007).

    Raises:
        ValueError: unknown method, or see the module.

    Example:
        >>> import numpy as np
        >>> scores = np.array([[0.9, 0.2], [0.4, 0.8], [0.6, 0.3]])
        >>> average_precision(scores, np.array([[1, 0], [1, 1], [0, 0]])).round(4).tolist()
        [0.8333, 1.0]
    """
    if method not in _METHODS:
        raise ValueError(f"method is {method!r}; it must be one of {', '.join(_METHODS)}")
    summarise = _METHODS[method]
    scores, targets = check(scores, targets)
    values = np.full(scores.shape[1], np.nan)
    for k, column, positives in annotated_columns(scores, targets):
        if positives.any():
            values[k] = summarise(*_precision_recall(column, positives))
    return values


def _precision_recall(scores: np.ndarray, positives: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return precision and recall [P] of one class at each positive's score, lowest first.

    Thresholds in between add no recall and lower the precision, so no method needs them. Counting
    in two sorted lists of scores puts positives of equal score on the same threshold.
    """
    found = np.sort(scores[positives])
    taken = np.sort(scores)
    num_found = found.size - np.searchsorted(found, found)
    num_taken = taken.size - np.searchsorted(taken, found)
    return num_found / num_taken, num_found / found.size


def _area(precision: np.ndarray, recall: np.ndarray) -> float:
    """Return the area under the curve: each of P positives adds 1/P of recall."""
    return float(precision.mean())


def _eleven_points(precision: np.ndarray, recall: np.ndarray) -> float:
    levels = np.arange(11) / 10
    reached = recall >= levels[:, None]  # [11, P]
    return float(np.where(reached, precision, 0.0).max(axis=1).mean())


_METHODS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "integral": _area,
    "11point": _eleven_points,
}
