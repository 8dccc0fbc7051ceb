"""Exact multi-label and single-label metrics in NumPy.

`scores` are probabilities [N, K] in [0, 1] (after the sigmoid, or after the softmax in single-label
tasks). `targets` are [N, K] with 1 for a label that is present. As in PaddleClas, any other integer
part counts as absent, except that values below 0 mark missing labels, which no metric counts. All
functions raise ValueError for arrays that are empty, not 2-D or of different shapes, and for scores
that are NaN or infinite. Definitions follow PaddleClas (`ppcls/metric/metrics.py`) except for ties.

Arrays of any float, integer or bool type are processed in blocks, so that little memory is needed
besides their own.
"""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

_BLOCK = 2**23  # entries per block

_F1_KEYS = ("OF1", "CF1", "OP", "OR", "CP", "CR")

# model.task → metrics shown during training; the first decides which weights are the best
SHOWN_METRICS = {
    "multilabel": ("MultiLabelMAP", "OF1", "CF1", "HammingDistance"),
    "single": ("Top1", "Top5", "BalancedAccuracy"),
}
MAIN_METRIC = {task: shown[0] for task, shown in SHOWN_METRICS.items()}


def metrics_of(
    task: str,
    scores: np.ndarray,
    targets: np.ndarray,
    *,
    threshold: float | np.ndarray = 0.5,
    method: str = "integral",
    ranking: np.ndarray | None = None,
) -> dict[str, float]:
    """Return the metrics of `model.task`; "single" uses only `scores` and `targets`."""
    if task == "single":
        return single_label_metrics(scores, targets)
    return multilabel_metrics(scores, targets, threshold=threshold, method=method, ranking=ranking)


def multilabel_metrics(
    scores: np.ndarray,
    targets: np.ndarray,
    *,
    threshold: float | np.ndarray = 0.5,
    method: str = "integral",
    ranking: np.ndarray | None = None,
) -> dict[str, float]:
    """Return all multi-label metrics of an evaluation, as fractions in [0, 1].

    Args:
        scores: [N, K].
        targets: [N, K].
        threshold: one number, or one per class [K].
        method: that of `average_precision`.
        ranking: [N, K], what average precision ranks images by; None: the scores. Logits rank
            better, since different logits may have equal scores in float32.

    Example:
        >>> import numpy as np
        >>> scores = np.array([[0.9, 0.2], [0.4, 0.8], [0.6, 0.3]])
        >>> metrics = multilabel_metrics(scores, np.array([[1, 0], [1, 1], [0, 0]]))
        >>> {name: round(metrics[name], 4) for name in ("MultiLabelMAP", "OF1", "HammingDistance")}
        {'MultiLabelMAP': 0.9167, 'OF1': 0.6667, 'HammingDistance': 0.3333}
    """
    counts = _count(scores, targets, threshold)
    f1 = _f1(counts)
    return {
        "MultiLabelMAP": mean_average_precision(
            scores if ranking is None else ranking, targets, method=method
        ),
        "HammingDistance": _hamming_distance(counts),
        "LabelAccuracy": _label_accuracy(counts),
        "SampleAccuracy": _sample_accuracy(counts),
        **{key: float(f1[key]) for key in _F1_KEYS},
    }


def single_label_metrics(scores: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """Return top-1 and top-5 accuracy, and mean `class_recall` over the classes with images.

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
        "BalancedAccuracy": float(recall[has_images].mean()) if has_images.any() else 0.0,
    }


def for_json(metrics: dict[str, float]) -> dict[str, float | None]:
    """Return metrics for JSON: None (null) for undefined ones, such as mAP without positives."""
    return {name: None if math.isnan(value) else value for name, value in metrics.items()}


def as_text(value: float | None) -> str:
    """Return a metric with four digits."""
    return "undefined" if value is None or math.isnan(value) else f"{value:.4f}"


def class_recall(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return the share of each class's images that score highest for that class, float64 [K].

    A class without images has NaN. Images with missing labels are left out.

    Raises:
        ValueError: an image without exactly one label, or see the module.
    """
    return _recall(*_one_label(scores, targets))


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
    scores, targets = _check(scores, targets)
    values = np.full(scores.shape[1], np.nan)
    width = max(1, _BLOCK // len(scores))
    for start in range(0, scores.shape[1], width):
        # One class at a time, its entries contiguous for sorting.
        columns = (np.ascontiguousarray(a[:, start : start + width].T) for a in (scores, targets))
        for k, (column, truth) in enumerate(zip(*columns, strict=True), start=start):
            positives, known = _labels(truth)
            if positives.any():
                rows = slice(None) if known.all() else known
                values[k] = summarise(*_precision_recall(_wide(column[rows]), positives[rows]))
    return values


def hamming_distance(
    scores: np.ndarray, targets: np.ndarray, *, threshold: float | np.ndarray = 0.5
) -> float:
    """Return the share of wrong decisions; a label is predicted if its score > threshold."""
    return _hamming_distance(_count(scores, targets, threshold))


def label_accuracy(
    scores: np.ndarray, targets: np.ndarray, *, threshold: float | np.ndarray = 0.5
) -> float:
    """Return the share of right decisions. PaddleClas: AccuracyScore with base "label"."""
    return _label_accuracy(_count(scores, targets, threshold))


def sample_accuracy(
    scores: np.ndarray, targets: np.ndarray, *, threshold: float | np.ndarray = 0.5
) -> float:
    """Return the share of images with all decisions right. PaddleClas: AccuracyScore "sample"."""
    return _sample_accuracy(_count(scores, targets, threshold))


def best_mean_accuracy(scores: np.ndarray, targets: np.ndarray) -> tuple[float, float]:
    """Return the threshold of 0.4, 0.45, … 0.85 with the best label accuracy, and that accuracy.

    Of equal accuracies the highest threshold wins. PaddleClas: MultilabelMeanAccuracy, for person
    attributes.
    """
    thresholds = [0.4 + 0.05 * i for i in range(10)]
    accuracies = [label_accuracy(scores, targets, threshold=t) for t in thresholds]
    accuracy, threshold = max(zip(accuracies, thresholds, strict=True))
    return threshold, accuracy


def top_k_accuracy(scores: np.ndarray, labels: np.ndarray, *, k: int = 1) -> float:
    """Return the share of images whose true label is among the `k` best scores; 1 if K < k.

    Without images it is 0.

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
        return 0.0
    if scores.shape[1] < k:
        return 1.0
    hits = 0
    for rows in _row_blocks(scores):
        best = np.argsort(-_wide(scores[rows]), axis=1, kind="stable")[:, :k]
        hits += int((best == labels[rows, None]).any(axis=1).sum())
    return hits / len(labels)


def precision_recall_f1(
    scores: np.ndarray, targets: np.ndarray, *, threshold: float | np.ndarray = 0.5
) -> dict[str, float | np.ndarray]:
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
    return _f1(_count(scores, targets, threshold))


class _Counts(NamedTuple):
    """Counts of decisions and images, missing labels left out."""

    hits: np.ndarray  # int64 [K]: predicted and present
    claims: np.ndarray  # int64 [K]: predicted
    present: np.ndarray  # int64 [K]
    known: int  # decisions
    wrong: int  # decisions
    images: int  # with any label annotated
    exact: int  # images with all decisions right


def _count(scores: np.ndarray, targets: np.ndarray, threshold: float | np.ndarray) -> _Counts:
    """Return the counts behind every metric of decisions, in one pass."""
    scores, targets = _check(scores, targets)
    # In the type of the scores, so that a score of 0.3 is not above a threshold of 0.3.
    limits = np.asarray(threshold, dtype=_wide(scores[:0]).dtype)
    if limits.shape not in ((), scores.shape[1:]):
        raise ValueError(
            f"threshold {limits.shape} must be a number or [{scores.shape[1]}], one per class"
        )
    hits, claims, present = (np.zeros(scores.shape[1], np.int64) for _ in range(3))
    num_known = wrong = images = exact = 0
    for rows in _row_blocks(scores):
        positives, known = _labels(targets[rows])
        predicted = (_wide(scores[rows]) > limits) & known
        is_wrong = predicted != positives  # neither holds what is not annotated
        is_annotated = known.any(axis=1)
        hits += (predicted & positives).sum(axis=0)
        claims += predicted.sum(axis=0)
        present += positives.sum(axis=0)
        num_known += int(np.count_nonzero(known))
        wrong += int(np.count_nonzero(is_wrong))
        images += int(np.count_nonzero(is_annotated))
        exact += int(np.count_nonzero(is_annotated & ~is_wrong.any(axis=1)))
    return _Counts(hits, claims, present, num_known, wrong, images, exact)


def _hamming_distance(counts: _Counts) -> float:
    return float(_ratio(counts.wrong, counts.known))


def _label_accuracy(counts: _Counts) -> float:
    return float(_ratio(counts.known - counts.wrong, counts.known))


def _sample_accuracy(counts: _Counts) -> float:
    return float(_ratio(counts.exact, counts.images))


def _f1(counts: _Counts) -> dict[str, float | np.ndarray]:
    """See `precision_recall_f1`."""
    hits, claims, present = counts.hits, counts.claims, counts.present
    precision, recall = _ratio(hits, claims), _ratio(hits, present)
    overall = float(_ratio(hits.sum(), claims.sum())), float(_ratio(hits.sum(), present.sum()))
    by_class = float(precision.mean()), float(recall.mean())
    return {
        "OP": overall[0],
        "OR": overall[1],
        "OF1": float(_harmonic_mean(*overall)),
        "CP": by_class[0],
        "CR": by_class[1],
        "CF1": float(_harmonic_mean(*by_class)),
        "precision": precision,
        "recall": recall,
        "f1": _harmonic_mean(precision, recall),
    }


def _one_label(scores: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scores [n, K] and the true label [n] of the images that are annotated."""
    scores, targets = _check(scores, targets)
    is_annotated = np.empty(len(scores), bool)
    counts, labels = (np.empty(len(scores), np.int64) for _ in range(2))
    for rows in _row_blocks(scores):
        positives, known = _labels(targets[rows])
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
    for rows in _row_blocks(scores):
        best[rows] = _wide(scores[rows]).argmax(axis=1)
    hits = np.bincount(labels[best == labels], minlength=scores.shape[1])
    present = np.bincount(labels, minlength=scores.shape[1])
    return np.where(present > 0, hits / np.maximum(present, 1), np.nan)


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


def _check(scores: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return both as arrays; reject wrong shapes and non-finite scores."""
    scores, targets = np.asarray(scores), np.asarray(targets)
    if scores.ndim != 2 or scores.shape != targets.shape or scores.size == 0:
        raise ValueError(
            f"scores {scores.shape} and targets {targets.shape} must both be "
            "[images, classes], alike and not empty"
        )
    count, first = 0, None
    for rows in _row_blocks(scores):
        is_finite = np.isfinite(_wide(scores[rows]))
        if not is_finite.all():
            if first is None:
                row, column = np.argwhere(~is_finite)[0]
                first = row + rows.start, column
            count += is_finite.size - np.count_nonzero(is_finite)
    if first is not None:
        raise ValueError(
            f"{count} of {scores.size} scores are not finite; the first "
            f"is {_wide(scores[first])} of image {first[0]}, class {first[1]}"
        )
    return scores, targets


def _row_blocks(array: np.ndarray) -> Iterator[slice]:
    """Yield slices of rows of [N, K] with at most `_BLOCK` entries each, and at least one row."""
    height = max(1, _BLOCK // max(1, array.shape[1]))
    return (slice(start, start + height) for start in range(0, len(array), height))


def _wide(scores: np.ndarray) -> np.ndarray:
    """Return scores as float32 or float64; no copy if they are already."""
    return scores if scores.dtype in (np.float32, np.float64) else scores.astype(np.float64)


def _labels(targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return bool masks, shaped like `targets`, of the labels present and of those annotated."""
    return (targets >= 1) & (targets < 2), targets >= 0


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    return np.where(denominator > 0, numerator / np.maximum(denominator, 1), 0.0)


def _harmonic_mean(a: float | np.ndarray, b: float | np.ndarray) -> np.ndarray:
    total = np.add(a, b)
    return np.where(total > 0, 2 * np.multiply(a, b) / np.where(total > 0, total, 1.0), 0.0)
