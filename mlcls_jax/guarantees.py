"""Thresholds whose recall is guaranteed with a confidence, whatever the scores are worth.

The images that the thresholds are chosen on and those to come must be of the same kind, drawn
independently; nothing else is assumed. If a share `1 - recall` of all positives lay below a
threshold, the number of misses among P positives would be binomial. A threshold is taken if as few
misses as it has would then be unlikely: learn then test (Angelopoulos et al., 2021), which for
recall is the order statistic of Wilks (1941).
"""

import math
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float


class Promise(NamedTuple):
    """What a bundle promises of its thresholds."""

    recall: float
    confidence: float  # for each label by itself
    labels: tuple[str, ...]


def promised(calibration: Any) -> Promise | None:
    """Return the promise in a bundle's facts about its calibration, if there is one."""
    match calibration:
        case {"target": float(recall), "confidence": float(confidence), "guaranteed": [*labels]}:
            return Promise(recall, confidence, tuple(map(str, labels)))
    return None


def guarantee_recall(
    scores: Float[np.ndarray, "N K"],
    targets: Float[np.ndarray, "N K"],
    *,
    recall: float,
    confidence: float,
) -> Float[np.ndarray, " K"]:
    """Return the highest threshold per class with at least this recall, with this confidence.

    The confidence is that of each class by itself. Of `1 / (1 - confidence)` classes one is
    expected to fall short.

    Args:
      scores: float32, in 0…1; a label is reported if its score > threshold.
      targets: 1 present, 0 absent, -1 not annotated.
      recall: to be reached, in (0, 1).
      confidence: in (0, 1).

    Returns:
      float32; NaN, no guarantee, for classes with fewer than `positives_needed`, or with too many
      positives at 0.
    """
    thresholds = np.full(scores.shape[1], np.nan, np.float32)
    for k, (column, truth) in enumerate(zip(scores.T, targets.T, strict=True)):
        found = np.sort(column[truth >= 1])
        misses = allowed_misses(len(found), recall, confidence)
        if misses >= 0 and found[misses] > 0:
            # In the middle of the gap below, so that rounding moves no image across it.
            upper = found[misses]
            lower = column[(truth >= 0) & (column < upper)].max(initial=0)
            middle = np.float32((float(upper) + float(lower)) / 2)
            thresholds[k] = middle if middle < upper else lower
    return thresholds


def allowed_misses(positives: int, recall: float, confidence: float) -> int:
    """Return how many of the positives may be missed; -1 if they are too few for a guarantee.

    Example:
        >>> [allowed_misses(positives, 0.95, 0.9) for positives in (44, 45, 500)]
        [-1, 0, 18]
    """
    chances = np.cumsum(_binomial(positives, 1 - recall))
    return int(np.searchsorted(chances, 1 - confidence, "right")) - 1


def positives_needed(recall: float, confidence: float) -> int:
    """Return the number of positives from which on a guarantee can be given.

    Example:
        >>> positives_needed(0.95, 0.9), positives_needed(0.9, 0.95)
        (45, 29)
    """
    return math.ceil(math.log(1 - confidence) / math.log(recall))


def chance_of_misses(misses: int, positives: int, recall: float) -> float:
    """Return the chance of so many misses or more if the recall just holds.

    Example:
        >>> round(chance_of_misses(3, 20, 0.95), 4)
        0.0755
    """
    return float(min(1.0, _binomial(positives, 1 - recall)[misses:].sum()))


def _binomial(count: int, share: float) -> np.ndarray:
    """Return the chances of 0, 1, … `count` successes."""
    steps = np.arange(1, count + 1)
    logs = np.log(count - steps + 1) - np.log(steps) + math.log(share) - math.log1p(-share)
    return np.exp(count * math.log1p(-share) + np.append(0, np.cumsum(logs)))
