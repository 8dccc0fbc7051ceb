"""Metrics of each class that average precision does not tell: ROC and Matthews' correlation."""

import numpy as np

from mlcls_jax.metrics.blocks import annotated_columns, check
from mlcls_jax.metrics.decisions import count_decisions


def roc_auc(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return the area under each class' ROC curve, float64 [K]; NaN without positives or negatives.

    The probability that a positive has a higher score than a negative; equal scores count half.
    scikit-learn: `roc_auc_score`.

    Args:
        scores: [N, K].
        targets: [N, K].

    Example:
        >>> import numpy as np
        >>> scores = np.array([[0.9, 0.2], [0.4, 0.8], [0.6, 0.3]])
        >>> roc_auc(scores, np.array([[1, 0], [1, 1], [0, 0]])).tolist()
        [0.5, 1.0]
    """
    scores, targets = check(scores, targets)
    values = np.full(scores.shape[1], np.nan)
    for k, column, positives in annotated_columns(scores, targets):
        found, others = np.sort(column[positives]), np.sort(column[~positives])
        if found.size and others.size:
            below = np.searchsorted(others, found, "left").sum(dtype=np.float64)
            not_above = np.searchsorted(others, found, "right").sum(dtype=np.float64)
            values[k] = (below + not_above) / 2 / (float(found.size) * others.size)
    return values


def matthews_correlation(
    scores: np.ndarray, targets: np.ndarray, *, threshold: float | np.ndarray = 0.5
) -> np.ndarray:
    """Return Matthews' correlation of each class' decisions, float64 [K] in [-1, 1]; 0 for 0/0.

    scikit-learn: `matthews_corrcoef`.

    Args:
        scores: [N, K].
        targets: [N, K].
        threshold: a label is predicted if its score > threshold; one number, or one per class [K].

    Example:
        >>> import numpy as np
        >>> scores = np.array([[0.9, 0.2], [0.4, 0.8], [0.6, 0.3]])
        >>> matthews_correlation(scores, np.array([[1, 0], [1, 1], [0, 0]])).round(2).tolist()
        [-0.5, 1.0]
    """
    return count_decisions(scores, targets, threshold).matthews_correlation()
