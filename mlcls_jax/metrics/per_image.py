"""Metrics of each image's labels, averaged over the images: of their ranking, and of decisions."""

from functools import partial

import numpy as np

from mlcls_jax.metrics.blocks import check, labels_of, ratio, row_blocks, wide
from mlcls_jax.metrics.decisions import limits_of


def ranking_metrics(scores: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """Return how well the labels of each image are ranked, averaged over the images.

    As scikit-learn's functions of these names: equal scores count as ranked wrongly, images without
    a label, or with all of them, as ranked well. Labels that are not annotated have no rank; images
    without an annotated one count nowhere.

    Args:
        scores: [N, K].
        targets: [N, K].

    Returns:
        "LRAP": label_ranking_average_precision_score, in [0, 1], 1 the best. "RankingLoss":
        label_ranking_loss, the share of pairs ranked wrongly. "CoverageError": coverage_error, how
        far down the list all present labels are found, 0 for images without.

    Example:
        >>> import numpy as np
        >>> scores = np.array([[0.9, 0.2, 0.4], [0.4, 0.8, 0.1]])
        >>> found = ranking_metrics(scores, np.array([[1, 1, 0], [0, 1, 0]]))
        >>> {name: round(value, 3) for name, value in found.items()}
        {'LRAP': 0.917, 'RankingLoss': 0.25, 'CoverageError': 2.0}
    """
    scores, targets = check(scores, targets)
    totals, images = np.zeros(3), 0
    for rows in row_blocks(scores):
        positives, known = labels_of(targets[rows])
        ranked = np.where(known, wide(scores[rows]), -np.inf)
        order = np.argsort(-ranked, axis=1)
        sort = partial(np.take_along_axis, indices=order, axis=1)
        values, found, counted = sort(ranked), sort(positives), sort(known)
        # The last place of equal scores; that of an annotated label holds no other.
        places = np.arange(values.shape[1])
        is_last = np.ones(values.shape, bool)
        is_last[:, :-1] = values[:, :-1] != values[:, 1:]
        last = np.where(is_last, places, len(places) - 1)
        last = np.minimum.accumulate(last[:, ::-1], axis=1)[:, ::-1]
        above, hits = (np.take_along_axis(a.cumsum(1), last, 1) for a in (counted, found))
        present = positives.sum(1)
        absent = known.sum(1) - present
        precision = np.where(found, hits / np.maximum(above, 1), 0).sum(1)
        wrong = np.where(found, above - hits, 0).sum(1)
        depth = np.where(found, above, 0).max(1)
        annotated = known.any(1)
        by_image = (
            np.where(present > 0, precision / np.maximum(present, 1), 1),
            ratio(wrong, present * absent),
            depth,
        )
        totals += [value[annotated].sum() for value in by_image]
        images += int(annotated.sum())
    means = totals / images if images else np.full(3, np.nan)
    return dict(zip(("LRAP", "RankingLoss", "CoverageError"), means.tolist(), strict=True))


def example_metrics(
    scores: np.ndarray, targets: np.ndarray, *, threshold: float | np.ndarray = 0.5
) -> dict[str, float]:
    """Return precision, recall, F1 and Jaccard of each image's labels, averaged over the images.

    scikit-learn's with `average="samples"`; 0/0 counts as 0.

    Args:
        scores: [N, K].
        targets: [N, K].
        threshold: a label is predicted if its score > threshold; one number, or one per class [K].

    Returns:
        "ExampleP", "ExampleR", "ExampleF1", "Jaccard".

    Example:
        >>> import numpy as np
        >>> scores = np.array([[0.9, 0.2, 0.6], [0.4, 0.8, 0.1]])
        >>> found = example_metrics(scores, np.array([[1, 1, 0], [0, 1, 0]]))
        >>> found["ExampleF1"], round(found["Jaccard"], 3)
        (0.75, 0.667)
    """
    scores, targets = check(scores, targets)
    limits = limits_of(threshold, scores)
    totals, images = np.zeros(4), 0
    for rows in row_blocks(scores):
        positives, known = labels_of(targets[rows])
        predicted = (wide(scores[rows]) > limits) & known
        hits, claims, present = (a.sum(1) for a in (predicted & positives, predicted, positives))
        annotated = known.any(1)
        shares = (
            ratio(hits, claims),
            ratio(hits, present),
            ratio(2 * hits, claims + present),
            ratio(hits, claims + present - hits),
        )
        totals += [share[annotated].sum() for share in shares]
        images += int(annotated.sum())
    means = totals / images if images else np.full(4, np.nan)
    names = ("ExampleP", "ExampleR", "ExampleF1", "Jaccard")
    return dict(zip(names, means.tolist(), strict=True))
