"""Metrics of decisions: accuracy, precision, recall and F1 at thresholds."""

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
    known: int  # decisions
    wrong: int  # decisions
    images: int  # with any label annotated
    exact: int  # images with all decisions right

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


def count_decisions(
    scores: np.ndarray, targets: np.ndarray, threshold: float | np.ndarray
) -> Counts:
    """Return the counts behind every metric of decisions, in one pass."""
    scores, targets = check(scores, targets)
    # In the type of the scores, so that a score of 0.3 is not above a threshold of 0.3.
    limits = np.asarray(threshold, dtype=wide(scores[:0]).dtype)
    if limits.shape not in ((), scores.shape[1:]):
        raise ValueError(
            f"threshold {limits.shape} must be a number or [{scores.shape[1]}], one per class"
        )
    hits, claims, present = (np.zeros(scores.shape[1], np.int64) for _ in range(3))
    num_known = wrong = images = exact = 0
    for rows in row_blocks(scores):
        positives, known = labels_of(targets[rows])
        predicted = (wide(scores[rows]) > limits) & known
        is_wrong = predicted != positives  # neither holds what is not annotated
        is_annotated = known.any(axis=1)
        hits += (predicted & positives).sum(axis=0)
        claims += predicted.sum(axis=0)
        present += positives.sum(axis=0)
        num_known += int(np.count_nonzero(known))
        wrong += int(np.count_nonzero(is_wrong))
        images += int(np.count_nonzero(is_annotated))
        exact += int(np.count_nonzero(is_annotated & ~is_wrong.any(axis=1)))
    return Counts(hits, claims, present, num_known, wrong, images, exact)
