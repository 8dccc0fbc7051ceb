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

import numpy as np

from mlcls_jax.metrics.decisions import (
    Counts,
    best_mean_accuracy,
    count_decisions,
    hamming_distance,
    label_accuracy,
    precision_recall_f1,
    sample_accuracy,
    top_k_f1,
)
from mlcls_jax.metrics.per_class import matthews_correlation, roc_auc
from mlcls_jax.metrics.per_image import example_metrics, ranking_metrics
from mlcls_jax.metrics.ranking import average_precision, mean_average_precision
from mlcls_jax.metrics.single_label import class_recall, single_label_metrics, top_k_accuracy

__all__ = [
    "MAIN_METRIC",
    "SHOWN_METRICS",
    "as_text",
    "average_precision",
    "best_mean_accuracy",
    "class_recall",
    "example_metrics",
    "for_json",
    "further_metrics",
    "hamming_distance",
    "label_accuracy",
    "matthews_correlation",
    "mean_average_precision",
    "metrics_of",
    "multilabel_metrics",
    "precision_recall_f1",
    "ranking_metrics",
    "roc_auc",
    "sample_accuracy",
    "single_label_metrics",
    "top_k_accuracy",
    "top_k_f1",
]


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
    counts: Counts | None = None,
) -> dict[str, float]:
    """Return all multi-label metrics of an evaluation, as fractions in [0, 1].

    Args:
        scores: [N, K].
        targets: [N, K].
        threshold: one number, or one per class [K].
        method: that of `average_precision`.
        ranking: [N, K], what average precision ranks images by; None: the scores. Logits rank
            better, since different logits may have equal scores in float32.
        counts: of the decisions at the threshold; None: they are counted.

    Example:
        >>> import numpy as np
        >>> scores = np.array([[0.9, 0.2], [0.4, 0.8], [0.6, 0.3]])
        >>> metrics = multilabel_metrics(scores, np.array([[1, 0], [1, 1], [0, 0]]))
        >>> {name: round(metrics[name], 4) for name in ("MultiLabelMAP", "OF1", "HammingDistance")}
        {'MultiLabelMAP': 0.9167, 'OF1': 0.6667, 'HammingDistance': 0.3333}
    """
    counts = counts or count_decisions(scores, targets, threshold)
    f1 = counts.precision_recall_f1()
    return {
        "MultiLabelMAP": mean_average_precision(
            scores if ranking is None else ranking, targets, method=method
        ),
        "HammingDistance": counts.hamming_distance,
        "LabelAccuracy": counts.label_accuracy,
        "SampleAccuracy": counts.sample_accuracy,
        **{key: float(f1[key]) for key in _F1_KEYS},
    }


def further_metrics(
    scores: np.ndarray,
    targets: np.ndarray,
    *,
    threshold: float | np.ndarray = 0.5,
    ranking: np.ndarray | None = None,
    counts: Counts | None = None,
) -> dict[str, float]:
    """Return what else is told of a multi-label evaluation, which training does not show.

    "AUROC" and "MCC" are means over the classes that have any. The others are those of
    `ranking_metrics`, `example_metrics` and `top_k_f1` with 3 labels per image.

    Args:
        scores: [N, K].
        targets: [N, K].
        threshold: one number, or one per class [K].
        ranking: [N, K], what ranks images and labels; None: the scores.
        counts: as of `multilabel_metrics`.
    """
    ranking = scores if ranking is None else ranking
    overall, by_class = top_k_f1(ranking, targets, k=3)
    areas = roc_auc(ranking, targets)
    counts = counts or count_decisions(scores, targets, threshold)
    correlations = counts.matthews_correlation()
    has_both = ~np.isnan(areas)
    return {
        "AUROC": float(areas[has_both].mean()) if has_both.any() else math.nan,
        "MCC": float(correlations[has_both].mean()) if has_both.any() else math.nan,
        "OF1@3": overall,
        "CF1@3": by_class,
        **ranking_metrics(ranking, targets),
        **example_metrics(scores, targets, threshold=threshold),
    }


def for_json(metrics: dict[str, float]) -> dict[str, float | None]:
    """Return metrics for JSON: None (null) for undefined ones, such as mAP without positives."""
    return {name: None if math.isnan(value) else value for name, value in metrics.items()}


def as_text(value: float | None) -> str:
    """Return a metric with four digits."""
    return "undefined" if value is None or math.isnan(value) else f"{value:.4f}"
