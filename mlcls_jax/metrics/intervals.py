"""How far metrics of so few images can be relied on: 95 % intervals."""

import math

import numpy as np

from mlcls_jax.metrics.blocks import check, labels_of, row_blocks, wide
from mlcls_jax.metrics.ranking import mean_average_precision

_Z = 1.959964  # 97.5 % of a normal distribution lie below
RESAMPLES, FEWEST = 200, 50
_LARGEST = 2 * 10**8  # images × labels × resamples: a few seconds
SHARES = ("SampleAccuracy", "Top1", "Top5")  # metrics that are shares of independent images


def intervals(
    metrics: dict[str, float], scores: np.ndarray, targets: np.ndarray, method: str = "integral"
) -> dict[str, tuple[float, float]]:
    """Return the intervals of the metrics that have one, by name.

    Args:
        metrics: as `metrics_of` returns them.
        scores: [N, K], by which images are ranked.
        targets: [N, K].
        method: of the average precision; only "integral" has an interval.
    """
    reduce = np.any if "SampleAccuracy" in metrics else np.all  # as they count images
    images = sum(int(reduce(targets[rows] >= 0, axis=1).sum()) for rows in row_blocks(targets))
    shares = [name for name in SHARES if images and name in metrics]
    found = {name: wilson(metrics[name], images) for name in shares}
    has_value = not math.isnan(metrics.get("MultiLabelMAP", math.nan))
    if has_value and method == "integral" and (drawn := bootstrap_map(scores, targets)):
        found = {"MultiLabelMAP": drawn} | found
    return found


def wilson(share: float, count: int) -> tuple[float, float]:
    """Return Wilson's interval of a share of `count` independent images.

    Example:
        >>> low, high = wilson(0.9, 100)
        >>> round(low, 3), round(high, 3)
        (0.826, 0.945)
    """
    middle = share + _Z * _Z / (2 * count)
    half = _Z * math.sqrt(share * (1 - share) / count + _Z * _Z / (4 * count * count))
    total = 1 + _Z * _Z / count
    return (middle - half) / total, (middle + half) / total


def bootstrap_map(
    scores: np.ndarray, targets: np.ndarray, *, seed: int = 0
) -> tuple[float, float] | None:
    """Return the interval of the mean average precision, by drawing the images again.

    Each of up to `RESAMPLES` draws has as many images, some of them several times; the interval
    holds 95 % of their values. It is wide where labels have few images. Training differs from run
    to run besides, which it does not know.

    Returns:
        None: images and labels are so many that even `FEWEST` draws would take long.
    """
    scores, targets = check(scores, targets)
    counts = _drawn(scores, seed)
    if counts is None:
        return None
    values = np.stack([
        _weighted_precision(wide(np.ascontiguousarray(column)), truth, counts)
        for column, truth in zip(scores.T, targets.T, strict=True)
    ])  # [K, draws]  # fmt: skip
    means = _means(values)
    means = means[~np.isnan(means)]
    if not means.size:
        return None
    # Drawn with repetition, fewer images differ, and ranking them is a little easier.
    shift = mean_average_precision(scores, targets) - means.mean()
    low, high = np.quantile(means, (0.025, 0.975)) + shift
    return max(0.0, float(low)), min(1.0, float(high))


def bootstrap_differences(
    first: np.ndarray, last: np.ndarray, targets: np.ndarray, *, seed: int = 0
) -> tuple[np.ndarray, tuple[float, float]] | None:
    """Return the intervals of the differences of two models' average precisions, last minus first.

    By draws of the same images for both, as in `bootstrap_map`: what makes images hard for both
    drops out.

    Args:
        first: scores [N, K] of a model.
        last: those of another.
        targets: [N, K].
        seed: of the draws.

    Returns:
        Those of each label [K, 2], NaN where it has no positives, and that of their mean; None:
        there are too many images and labels.
    """
    counts = _drawn(first, seed)
    if counts is None:
        return None
    counts = np.concatenate([np.ones_like(counts[:1]), counts])  # all of them first
    values = np.full((len(targets.T), len(counts)), np.nan)
    for k, truth in enumerate(targets.T):
        if (truth >= 1).any():
            before, after = (
                _weighted_precision(wide(np.ascontiguousarray(scores[:, k])), truth, counts)
                for scores in (first, last)
            )
            values[k] = after - before
    means = _means(values)
    *labels, mean = (_around(of_one) for of_one in (*values, means))
    return np.array(labels).reshape(-1, 2), mean


def _drawn(scores: np.ndarray, seed: int) -> np.ndarray | None:
    """Return how often each draw has each image, float32 [draws, N]; None: there are too many."""
    draws = min(RESAMPLES, _LARGEST // max(1, scores.size))
    if draws < FEWEST:
        return None
    images = len(scores)
    rng = np.random.default_rng(seed)
    return rng.multinomial(images, np.full(images, 1 / images), draws).astype(np.float32)


def _means(values: np.ndarray) -> np.ndarray:
    """Return the means over the labels that have a value, [draws]; NaN where none has."""
    has_value = ~np.isnan(values)  # [K, draws]
    with np.errstate(invalid="ignore"):
        return np.where(has_value, values, 0.0).sum(0) / has_value.sum(0)


def _around(values: np.ndarray) -> tuple[float, float]:
    """Return the middle 95 % of draws around the first value."""
    drawn = values[1:][~np.isnan(values[1:])]
    if not drawn.size:
        return math.nan, math.nan
    low, high = np.quantile(drawn, (0.025, 0.975)) + values[0] - drawn.mean()
    return float(low), float(high)


def _weighted_precision(scores: np.ndarray, truth: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the average precision of one label in each draw, [draws]; NaN without positives."""
    positives, known = labels_of(truth)
    order = np.argsort(-scores, kind="stable")
    order = order[known[order]]
    ranked, hits = scores[order], positives[order]
    last = np.searchsorted(-ranked, -ranked, side="right") - 1  # of those with the same score
    last = last[hits]
    taken = counts[:, order]
    found = np.cumsum(taken * hits, axis=1)[:, last]  # [draws, P]
    precision = found / np.maximum(np.cumsum(taken, axis=1)[:, last], 1.0)
    weights = taken[:, hits]
    total = weights.sum(1)
    with np.errstate(invalid="ignore"):
        return (precision * weights).sum(1) / total
