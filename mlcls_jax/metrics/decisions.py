"""Metrics of decisions: accuracy, precision, recall and F1 at thresholds."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from mlcls_jax.metrics.blocks import check, harmonic_mean, labels_of, ratio, row_blocks, wide


def hamming_distance(
    scores: np.ndarray, targets: np.ndarray, *, threshold: float | np.ndarray = 0.5
) -> float:
    """Return the share of wrong decisions; a label is predicted if its score > threshold."""
    return count_decisions(scores, targets, threshold).hamming_distance


def label_accuracy(
    scores: np.ndarray, targets: np.ndarray, *, threshold: float | np.ndarray = 0.5
) -> float:
    """Return the share of right decisions. PaddleClas: AccuracyScore with base "label"."""
    return count_decisions(scores, targets, threshold).label_accuracy


def sample_accuracy(
    scores: np.ndarray, targets: np.ndarray, *, threshold: float | np.ndarray = 0.5
) -> float:
    """Return the share of images with all decisions right. PaddleClas: AccuracyScore "sample"."""
    return count_decisions(scores, targets, threshold).sample_accuracy


def best_mean_accuracy(scores: np.ndarray, targets: np.ndarray) -> tuple[float, float]:
    """Return the threshold of 0.4, 0.45, … 0.85 with the best label accuracy, and that accuracy.

    Of equal accuracies the highest threshold wins. PaddleClas: MultilabelMeanAccuracy, for person
    attributes.
    """
    thresholds = [0.4 + 0.05 * i for i in range(10)]
    accuracies = [label_accuracy(scores, targets, threshold=t) for t in thresholds]
    accuracy, threshold = max(zip(accuracies, thresholds, strict=True))
    return threshold, accuracy


def precision_recall_f1(
    scores: np.ndarray, targets: np.ndarray, *, threshold: float | np.ndarray = 0.5
) -> dict[str, Any]:
    """Return overall (micro), class-averaged (macro) and per-class precision, recall and F1.

    A label is predicted if its score > threshold, which is one number or one per class [K]. 0/0
    counts as 0, and every class counts in the averages, including those without positives.

    Returns:
        "OP", "OR", "OF1": overall (micro). "CP", "CR": means over the classes (macro). "CF1": the
        harmonic mean 2·CP·CR / (CP + CR), as papers on multi-label classification report it; it
        is *not* the mean of the per-class F1. "precision", "recall", "f1": float64 [K].

    Example:
        >>> import numpy as np
        >>> scores = np.array([[0.9, 0.2], [0.4, 0.8], [0.6, 0.3]])
        >>> result = precision_recall_f1(scores, np.array([[1, 0], [1, 1], [0, 0]]))
        >>> round(result["OF1"], 4), result["precision"].tolist(), result["recall"].tolist()
        (0.6667, [0.5, 1.0], [0.5, 1.0])
    """
    return count_decisions(scores, targets, threshold).precision_recall_f1()


class Counts(NamedTuple):
    """Counts of decisions and images, missing labels left out."""

    hits: np.ndarray  # int64 [K]: predicted and present
    claims: np.ndarray  # int64 [K]: predicted
    present: np.ndarray  # int64 [K]
    annotated: np.ndarray  # int64 [K]
    wrong: int  # decisions
    images: int  # with any label annotated
    exact: int  # images with all decisions right

    @property
    def known(self) -> int:
        """The number of decisions."""
        return int(self.annotated.sum())

    @property
    def hamming_distance(self) -> float:
        return float(ratio(self.wrong, self.known))

    @property
    def label_accuracy(self) -> float:
        return float(ratio(self.known - self.wrong, self.known))

    @property
    def sample_accuracy(self) -> float:
        return float(ratio(self.exact, self.images))

    def precision_recall_f1(self) -> dict[str, Any]:
        """Return the result of the function of this name."""
        hits, claims, present = self.hits, self.claims, self.present
        precision, recall = ratio(hits, claims), ratio(hits, present)
        overall = float(ratio(hits.sum(), claims.sum())), float(ratio(hits.sum(), present.sum()))
        by_class = float(precision.mean()), float(recall.mean())
        return {
            "OP": overall[0],
            "OR": overall[1],
            "OF1": float(harmonic_mean(*overall)),
            "CP": by_class[0],
            "CR": by_class[1],
            "CF1": float(harmonic_mean(*by_class)),
            "precision": precision,
            "recall": recall,
            "f1": harmonic_mean(precision, recall),
        }

    def matthews_correlation(self) -> np.ndarray:
        """Return the result of the function of this name."""
        hits, claims, present, known = (
            array.astype(np.float64)
            for array in (self.hits, self.claims, self.present, self.annotated)
        )
        spread = np.sqrt(claims * (known - claims)) * np.sqrt(present * (known - present))
        covariance = hits * known - claims * present
        return np.divide(covariance, spread, out=np.zeros_like(spread), where=spread > 0)


def top_k_f1(scores: np.ndarray, targets: np.ndarray, *, k: int = 3) -> tuple[float, float]:
    """Return OF1 and CF1 if each image's `k` highest annotated labels are predicted.

    As papers report "top-3" numbers. Of equal scores the first class wins.

    Args:
        scores: [N, K].
        targets: [N, K].
        k: labels per image, at least 1.

    Example:
        >>> import numpy as np
        >>> scores = np.array([[0.9, 0.2, 0.4], [0.4, 0.8, 0.1]])
        >>> found = top_k_f1(scores, np.array([[1, 1, 0], [0, 1, 0]]), k=1)
        >>> [round(value, 3) for value in found]
        [0.8, 0.571]
    """

    def decide(rows: slice, known: np.ndarray) -> np.ndarray:
        ranked = np.where(known, wide(scores[rows]), -np.inf)
        best = np.argsort(-ranked, axis=1, kind="stable")[:, :k]
        chosen = np.zeros(known.shape, bool)
        np.put_along_axis(chosen, best, True, axis=1)
        return chosen

    scores, targets = check(scores, targets)
    found = _count(scores, targets, decide).precision_recall_f1()
    return found["OF1"], found["CF1"]


def count_decisions(
    scores: np.ndarray, targets: np.ndarray, threshold: float | np.ndarray
) -> Counts:
    """Return the counts behind every metric of decisions, in one pass."""
    scores, targets = check(scores, targets)
    limits = limits_of(threshold, scores)
    return _count(scores, targets, lambda rows, _: wide(scores[rows]) > limits)


def limits_of(threshold: float | np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Return thresholds in the type of the scores: 0.3 in one type is above 0.3 in another.

    Raises:
        ValueError: neither one number nor one per class.
    """
    limits = np.asarray(threshold, dtype=wide(scores[:0]).dtype)
    if limits.shape not in ((), scores.shape[1:]):
        raise ValueError(
            f"threshold {limits.shape} must be a number or [{scores.shape[1]}], one per class"
        )
    return limits


def _count(
    scores: np.ndarray,
    targets: np.ndarray,
    decide: Callable[[slice, np.ndarray], np.ndarray],
) -> Counts:
    """Count the decisions `decide(rows, known)`, bool [n, K], about checked arrays."""
    hits, claims, present, annotated = (np.zeros(scores.shape[1], np.int64) for _ in range(4))
    wrong = images = exact = 0
    for rows in row_blocks(scores):
        positives, known = labels_of(targets[rows])
        predicted = decide(rows, known) & known
        is_wrong = predicted != positives  # neither holds what is not annotated
        is_annotated = known.any(axis=1)
        hits += (predicted & positives).sum(axis=0)
        claims += predicted.sum(axis=0)
        present += positives.sum(axis=0)
        annotated += known.sum(axis=0)
        wrong += int(np.count_nonzero(is_wrong))
        images += int(np.count_nonzero(is_annotated))
        exact += int(np.count_nonzero(is_annotated & ~is_wrong.any(axis=1)))
    return Counts(hits, claims, present, annotated, wrong, images, exact)
