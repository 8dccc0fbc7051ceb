"""How average precision grows with the number of labelled images, and what more would bring.

Heads are fitted on a row of growing parts of the training images, each drawn a few times, and
judged on the validation images. Of each label, 1 - AP is taken for floor + scale · n^-slope, where
n is the number of training images that have the label.
"""

from dataclasses import dataclass

import numpy as np

from mlcls_jax.bars import progress
from mlcls_jax.curation import heads
from mlcls_jax.curation.features import embed
from mlcls_jax.curation.judge import FOLDS, fold_numbers, out_of_fold
from mlcls_jax.curation.subject import Subject
from mlcls_jax.errors import DataError
from mlcls_jax.metrics import average_precision

SHARES = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 3 / 4, 1.0)
DRAWS = 4
GAIN = 0.03
MOST = 10  # times the images that there are: nothing is said of what lies beyond

_SLOPES = np.linspace(0.1, 1.5, 15)
_BOOTSTRAPS = 50
_FEW = 3  # points that a curve needs


@dataclass(frozen=True)
class Curve:
    """AP of each label for each size of the training set."""

    labels: tuple[str, ...]
    images: np.ndarray  # float [S], training images
    positives: np.ndarray  # float [S, R, K], of them those that have the label
    precision: np.ndarray  # float [S, R, K]; NaN for a label without validation images that have it
    resampled: np.ndarray  # float [B, S, K], means over draws, both draws and images resampled
    validation: int  # images


@dataclass(frozen=True)
class Need:
    """What a label has, and how many more images of it would raise its AP."""

    label: str
    positives: int
    now: float  # AP with all training images
    doubled: float  # AP expected of twice as many images of the label
    more: float | None  # images for `GAIN`; None: more than can be told
    low: float | None  # the middle 80 % of what resampling gives
    high: float | None


def measure(subject: Subject, *, seed: int = 0, device: str | None = None) -> Curve:
    """Fit heads on parts of the training images and judge them on the validation images.

    Raises:
      UserError: the model or the data cannot be used.
    """
    predictor = subject.predictor(device)
    train = embed(predictor, subject.source("train"), subject.count())
    source = subject.source("validation")
    judged = embed(predictor, source)
    if not (judged.targets > 0).any():
        raise DataError("no validation image has a label: there is no average precision to tell")
    space = heads.principal(train.vectors)
    points, others = space(train.vectors), space(judged.vectors)
    decay = out_of_fold(train.vectors, space, train.targets, FOLDS, seed).decay
    used = parts(train.targets, seed)  # [S, R, N]
    rng, truth = np.random.default_rng(seed), judged.targets
    # The same images for all sizes: what they have in common does not bend a curve.
    chosen = rng.integers(len(truth), size=(_BOOTSTRAPS, len(truth)))
    precision, resampled = [], []
    for rows in progress(used, desc="parts", unit=" sizes"):
        said = heads.logits(others, heads.fit(points, train.targets, rows, decay))  # [R, n, K]
        precision.append([average_precision(one, truth) for one in said])
        draws = rng.integers(DRAWS, size=_BOOTSTRAPS)
        resampled.append(
            [
                average_precision(said[draw][some], truth[some])
                for draw, some in zip(draws, chosen, strict=True)
            ]
        )
    return Curve(
        source.labels,
        used[:, 0].sum(1).astype(float),
        used.astype(np.float32) @ (train.targets > 0).astype(np.float32),
        np.array(precision),
        np.array(resampled).transpose(1, 0, 2),
        len(truth),
    )


def parts(targets: np.ndarray, seed: int) -> np.ndarray:
    """Return growing parts of the images in each of a few draws, bool [S, R, N].

    Every label keeps its share in each, and a part has all images of the smaller ones.
    """
    smallest = round(1 / SHARES[0])
    draws = [fold_numbers(targets, smallest, seed + draw) for draw in range(DRAWS)]
    return np.stack([[part < share * smallest for part in draws] for share in SHARES])


def needs(curve: Curve) -> list[Need]:
    """Return what each label needs, the one that gains most from more images first."""
    found = [_need(curve, k) for k in range(len(curve.labels))]
    return sorted(found, key=lambda need: -np.nan_to_num(need.doubled - need.now, nan=-1))


def _need(curve: Curve, k: int) -> Need:
    counts, error = curve.positives[:, :, k].mean(1), 1 - curve.precision[:, :, k].mean(1)  # [S]
    total, now = round(counts[-1]), float(1 - error[-1])
    used = np.isfinite(error) & (counts >= 1)
    if used.sum() < _FEW:
        return Need(curve.labels[k], total, now, np.nan, None, None, None)
    law = power_law(counts[used], error[used])
    others = 1 - curve.resampled[:, used, k]  # [B, s]
    samples = others[np.isfinite(others).all(1)]
    more = [_more(total, *power_law(counts[used], sample)) for sample in samples]
    # Beyond `MOST` nothing is told, so infinity is as good as any number there.
    low, high = np.quantile(np.minimum(more, 1e12), (0.1, 0.9)) if more else (np.inf, np.inf)
    told = [
        float(value) if value <= MOST * total else None for value in (_more(total, *law), low, high)
    ]
    return Need(curve.labels[k], total, now, now - _rise(total, *law), *told)


def power_law(counts: np.ndarray, errors: np.ndarray) -> tuple[float, float, float]:
    """Return floor, scale and slope of errors [S] at counts [S], by least squares.

    Neither floor nor scale is negative.
    """
    best = (np.inf, 0.0, 0.0, 0.0)
    for slope in _SLOPES:
        x = counts**-slope
        spread = ((x - x.mean()) ** 2).sum()
        scale = float(((x - x.mean()) * (errors - errors.mean())).sum() / max(spread, 1e-12))
        floor = float(errors.mean() - scale * x.mean())
        if scale < 0:
            scale, floor = 0.0, float(errors.mean())
        elif floor < 0:
            floor, scale = 0.0, float((x * errors).sum() / (x * x).sum())
        loss = float(((floor + scale * x - errors) ** 2).sum())
        best = min(best, (loss, floor, scale, float(slope)))
    return best[1:]


def _rise(total: int, floor: float, scale: float, slope: float) -> float:
    """Return by how much the error changes where there are twice as many images."""
    return scale * ((2 * total) ** -slope - total**-slope)


def _more(total: int, floor: float, scale: float, slope: float) -> float:
    """Return the images that lower the error by `GAIN`; infinity where none do."""
    wanted = scale * total**-slope - GAIN
    return float((wanted / scale) ** (-1 / slope) - total) if wanted > 0 else np.inf
