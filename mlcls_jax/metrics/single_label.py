"""Metrics of single-label tasks: accuracy and recall of the best score."""

import math

import numpy as np

from mlcls_jax.metrics.blocks import check, labels_of, row_blocks, wide


def single_label_metrics(scores: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """Return top-1 and top-5 accuracy, and mean `class_recall` over the classes with images.

    Without any annotated image all are NaN.

    Raises:
        ValueError: an image without exactly one label, or see the module.

    Example:
        >>> import numpy as np
        >>> single_label_metrics(np.array([[0.9, 0.1], [0.7, 0.3]]), np.eye(2))
        {'Top1': 0.5, 'Top5': 1.0, 'BalancedAccuracy': 0.5}
    """
    scores, labels = _one_label(scores, targets)
    recall = _recall(scores, labels)
    has_images = ~np.isnan(recall)
    return {
        "Top1": top_k_accuracy(scores, labels, k=1),
        "Top5": top_k_accuracy(scores, labels, k=5),
        "BalancedAccuracy": float(recall[has_images].mean()) if has_images.any() else math.nan,
    }


def class_recall(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return the share of each class's images that score highest for that class, float64 [K].

    A class without images has NaN. Images with missing labels are left out.

    Raises:
        ValueError: an image without exactly one label, or see the module.
    """
    return _recall(*_one_label(scores, targets))


def top_k_accuracy(scores: np.ndarray, labels: np.ndarray, *, k: int = 1) -> float:
    """Return the share of images whose true label is among the `k` best scores; 1 if K < k.

    Without images it is NaN.

    Args:
        scores: [N, K]; logits will do. Of equal scores the one with the lower index ranks higher.
        labels: true class indices, [N] or [N, 1].
        k: scores that count.

    Raises:
        ValueError: the lengths differ.

    Example:
        >>> import numpy as np
        >>> top_k_accuracy(np.array([[0.2, 0.5, 0.3], [0.6, 0.3, 0.1]]), np.array([2, 2]), k=2)
        0.5
    """
    scores, labels = np.asarray(scores), np.asarray(labels).reshape(-1)
    if scores.ndim != 2 or len(scores) != len(labels):
        raise ValueError(f"scores {scores.shape} and labels {labels.shape} do not fit")
    if not len(labels):
        return math.nan
    if scores.shape[1] < k:
        return 1.0
    hits = 0
    for rows in row_blocks(scores):
        best = np.argsort(-wide(scores[rows]), axis=1, kind="stable")[:, :k]
        hits += int((best == labels[rows, None]).any(axis=1).sum())
    return hits / len(labels)


def _one_label(scores: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scores [n, K] and the true label [n] of the images that are annotated."""
    scores, targets = check(scores, targets)
    is_annotated = np.empty(len(scores), bool)
    counts, labels = (np.empty(len(scores), np.int64) for _ in range(2))
    for rows in row_blocks(scores):
        positives, known = labels_of(targets[rows])
        is_annotated[rows] = known.all(axis=1)
        counts[rows], labels[rows] = positives.sum(axis=1), positives.argmax(axis=1)
    if (wrong := np.flatnonzero(is_annotated & (counts != 1))).size:
        raise ValueError(
            f"{wrong.size} of {len(counts)} images do not have exactly one label; the first is "
            f"image {wrong[0]} with {counts[wrong[0]]}"
        )
    if is_annotated.all():
        return scores, labels
    return scores[is_annotated], labels[is_annotated]


def _recall(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    best = np.empty(len(labels), np.int64)
    for rows in row_blocks(scores):
        best[rows] = wide(scores[rows]).argmax(axis=1)
    hits = np.bincount(labels[best == labels], minlength=scores.shape[1])
    present = np.bincount(labels, minlength=scores.shape[1])
    return np.where(present > 0, hits / np.maximum(present, 1), np.nan)
