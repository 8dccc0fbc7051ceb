"""Metrics on scores, exact, in NumPy: of several labels an image, and of one.

`scores` are probabilities [N, K] in [0, 1] (after the sigmoid; after the softmax where there is one
label an image), `targets` are [N, K] with 1 for a label that is present; as in PaddleClas any other
integer part counts as absent, but for those below 0: such a label is not annotated, and the entry
is left out of every count. All functions raise ValueError for arrays that are not 2-D, not alike in
shape or empty, and for scores that are NaN or infinite. The meaning is that of PaddleClas
(`ppcls/metric/metrics.py`) but for ties.

Arrays of any float, integer or bool type are worked through in blocks, so that little memory is
needed besides theirs.
"""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

_BLOCK = 2**23  # entries that are worked on at a time

_F1_KEYS = ("OF1", "CF1", "OP", "OR", "CP", "CR")

# model.task → what is shown of `metrics_of` while training; the first decides the best weights
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
    """The metrics that `model.task` asks for; "single" needs `scores` and `targets` alone."""
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
    """All numbers of an evaluation, as fractions in [0, 1]: one entry a metric.

    `threshold` is a number or one a class [K]; `method` is that of `average_precision`, whose
    images are ranked by `ranking` [N, K]: the logits, as different ones may have equal scores in
    float32. Without it they are ranked by their scores.
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
    """Top-1 and top-5 accuracy, and the mean of `class_recall` over the classes that have images.

    Raises:
        ValueError: an image without exactly one label, or see the module.
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
    """Metrics as JSON has them: null for one that is not defined, as mAP without positives."""
    return {name: None if math.isnan(value) else value for name, value in metrics.items()}


def as_text(value: float | None) -> str:
    """A metric with four digits."""
    return "undefined" if value is None or math.isnan(value) else f"{value:.4f}"


def class_recall(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Share of the images of each class whose best score is that class's: float64 [K].

    NaN for a class without images. Images that are not annotated, with a target below 0, are left
    out; else raises ValueError as `single_label_metrics`.
    """
    return _recall(*_one_label(scores, targets))


def mean_average_precision(
    scores: np.ndarray, targets: np.ndarray, method: str = "integral"
) -> float:
    """Mean of `average_precision` over the classes that have positives; NaN when none has."""
    values = average_precision(scores, targets, method=method)
    has_positives = ~np.isnan(values)
    return float(values[has_positives].mean()) if has_positives.any() else math.nan


def average_precision(
    scores: np.ndarray, targets: np.ndarray, method: str = "integral"
) -> np.ndarray:
    """Average precision of each class, float64 [K] in [0, 1]; NaN for a class without positives.

    Equal scores form one threshold, as in scikit-learn's `average_precision_score`: precision and
    recall are looked at only where the score changes, so the order of images has no influence.

    Args:
        scores: [N, K].
        targets: [N, K].
        method: "integral", the sum of precision times gain in recall, without interpolation; or
            "11point", the mean over recalls 0, 0.1, …, 1 of the best precision at that recall or
            a higher one (PASCAL VOC 2007).

    Raises:
        ValueError: unknown method, or see the module.
    """
    if method not in _METHODS:
        raise ValueError(f"method is {method!r}; it must be one of {', '.join(_METHODS)}")
    summarise = _METHODS[method]
    scores, targets = _check(scores, targets)
    values = np.full(scores.shape[1], np.nan)
    width = max(1, _BLOCK // len(scores))
    for start in range(0, scores.shape[1], width):
        # A class after the other, each one's entries side by side, as sorting wants them.
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
    """Share of the N·K decisions that are wrong. A label is predicted if its score > threshold."""
    return _hamming_distance(_count(scores, targets, threshold))


def label_accuracy(
    scores: np.ndarray, targets: np.ndarray, *, threshold: float | np.ndarray = 0.5
) -> float:
    """Share of the N·K decisions that are right. PaddleClas: AccuracyScore with base "label"."""
    return _label_accuracy(_count(scores, targets, threshold))


def sample_accuracy(
    scores: np.ndarray, targets: np.ndarray, *, threshold: float | np.ndarray = 0.5
) -> float:
    """Share of the images with all K decisions right. PaddleClas: AccuracyScore, base "sample"."""
    return _sample_accuracy(_count(scores, targets, threshold))


def best_mean_accuracy(scores: np.ndarray, targets: np.ndarray) -> tuple[float, float]:
    """The threshold among 0.4, 0.45, … 0.85 with the best label accuracy, and that accuracy.

    The last of equals wins. PaddleClas: MultilabelMeanAccuracy, for person attributes.
    """
    thresholds = [0.4 + 0.05 * i for i in range(10)]
    accuracies = [label_accuracy(scores, targets, threshold=t) for t in thresholds]
    accuracy, threshold = max(zip(accuracies, thresholds, strict=True))
    return threshold, accuracy


def top_k_accuracy(scores: np.ndarray, labels: np.ndarray, *, k: int = 1) -> float:
    """Share of images whose one true label is among the `k` best scores; 1 where K < k.

    Without any image it is 0.
    `scores` are [N, K], logits will do; `labels` are the true indices, [N] or [N, 1]. Of equal
    scores the label with the lower index counts as better.

    Raises ValueError when the lengths do not agree.
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
    """Precision, recall and F1: of all decisions together, averaged over classes, and by class.

    A label is predicted if its score > threshold, a number or one a class [K]. 0/0 counts as 0,
    and every class counts in the averages, also one without positives.

    Returns:
        "OP", "OR", "OF1": overall (micro). "CP", "CR": means over the classes (macro). "CF1": the
        harmonic mean 2·CP·CR / (CP + CR), as papers on multi-label classification report it; it
        is *not* the mean of the classes' F1. "precision", "recall", "f1": float64 [K].
    """
    return _f1(_count(scores, targets, threshold))


class _Counts(NamedTuple):
    """How often what was decided, of the decisions and images that are annotated."""

    hits: np.ndarray  # int64 [K]: predicted and present
    claims: np.ndarray  # int64 [K]: predicted
    present: np.ndarray  # int64 [K]
    known: int  # decisions
    wrong: int  # decisions
    images: int  # with any label annotated
    exact: int  # images with all decisions right


def _count(scores: np.ndarray, targets: np.ndarray, threshold: float | np.ndarray) -> _Counts:
    """All that the metrics of decisions are made of, in one pass. Predicted: score > threshold."""
    scores, targets = _check(scores, targets)
    # In the type of the scores, so that a score of 0.3 is not above a threshold of 0.3.
    limits = np.asarray(threshold, dtype=_wide(scores[:0]).dtype)
    if limits.shape not in ((), scores.shape[1:]):
        raise ValueError(
            f"threshold {limits.shape} must be a number or [{scores.shape[1]}], one a class"
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
    """Precision and recall [P] of one class with each positive's score as threshold, lowest first.

    Thresholds in between add no recall and lower the precision, so no method needs them. Counting
    from two sorted lists of scores gives positives of equal score the same, whole threshold.
    """
    found = np.sort(scores[positives])
    taken = np.sort(scores)
    num_found = found.size - np.searchsorted(found, found)
    num_taken = taken.size - np.searchsorted(taken, found)
    return num_found / num_taken, num_found / found.size


def _area(precision: np.ndarray, recall: np.ndarray) -> float:
    """Each of the P positives adds 1/P of recall, at the precision of its threshold."""
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
    """Both as arrays, after a look at their shapes and at whether all scores are finite."""
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
    """Slices of the rows of [N, K], at most `_BLOCK` entries each where a row is not longer."""
    height = max(1, _BLOCK // max(1, array.shape[1]))
    return (slice(start, start + height) for start in range(0, len(array), height))


def _wide(scores: np.ndarray) -> np.ndarray:
    """Scores as float32 or float64, which they may be already."""
    return scores if scores.dtype in (np.float32, np.float64) else scores.astype(np.float64)


def _labels(targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which labels are present, and which are annotated: bool, of the same shape."""
    return (targets >= 1) & (targets < 2), targets >= 0


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    return np.where(denominator > 0, numerator / np.maximum(denominator, 1), 0.0)


def _harmonic_mean(a: float | np.ndarray, b: float | np.ndarray) -> np.ndarray:
    total = np.add(a, b)
    return np.where(total > 0, 2 * np.multiply(a, b) / np.where(total > 0, total, 1.0), 0.0)
