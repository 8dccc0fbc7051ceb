"""Thresholds by class, temperature, and how far scores are probabilities; in NumPy.

As in `metrics`: `scores` are [N, K] in 0…1, `targets` [N, K] with 1 for a label that is present, 0
for one that is absent, and less for one that is not annotated, which counts nowhere. A label is
reported if its score > threshold, compared in float32.
"""

import math
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from mlcls_jax.groups import NO_GROUPS, Groups, ordered_thresholds
from mlcls_jax.guarantees import guarantee_recall
from mlcls_jax.metrics.blocks import row_blocks

Objective = Literal["f1", "precision", "recall", "prevalence"]

DEFAULT = 0.5  # where no positive says anything
# With P positives, what is within this / √P of the best F1, recall or precision counts as equal to
# it: about half of what chance alone makes out.
PLATEAU = 0.3
FOLDS = 5
BINS = 15  # as Guo et al. (2017)
TEMPERATURES = (0.1, 10.0)  # the range that is searched

# Beyond this logit, sigmoids in float32 lie so close to 1 that different logits may share one.
_LARGEST_LOGIT = 12.0
# A large temperature draws scores together at 0.5. It may make this share of them equal.
_MERGED = 1e-3
_MAX_RANKED = 2**20  # logits whose order is looked at
_MAX_DECISIONS = 10**7  # looked at to find a single number


class Choice(NamedTuple):
    """One threshold a class, and what is to be said about each."""

    thresholds: Float[np.ndarray, " K"]  # float32
    shared: Bool[np.ndarray, " K"]  # the class has too few positives for one of its own
    unreached: Bool[np.ndarray, " K"]  # no threshold gives the wanted precision or recall
    guaranteed: Bool[np.ndarray, " K"]  # the wanted recall holds with the wanted confidence


def choose_thresholds(
    scores: Float[np.ndarray, "N K"],
    targets: Float[np.ndarray, "N K"],
    *,
    objective: Objective = "f1",
    target: float | None = None,
    min_positives: int = 10,
    confidence: float | None = None,
    groups: Groups = NO_GROUPS,
) -> Choice:
    """Return the threshold of each class that fits these images best.

    Of all that are nearly as good as the best (`PLATEAU`) and lie side by side around it, the
    middle one is taken, since the very best on a few images is mostly luck; and it lies in the
    middle of the gap between two scores, so that rounding does not move an image across it.
    Classes with fewer than `min_positives` positives share one threshold, chosen on all their
    decisions together.

    Args:
      scores: float32.
      targets: see the module.
      objective: "f1", the best F1; "precision", the highest recall with at least the precision
        `target`; "recall", the highest precision with at least the recall `target`. Where
        `target` cannot be reached, what comes nearest, and of these the most of the other;
        "prevalence", as many images as have the label, for scores that say little: their best F1
        is reached by reporting it everywhere.
      target: see `objective`; of "precision" and "recall" only.
      min_positives: see above.
      confidence: "recall": the recall is to be guaranteed by it; see `guarantees`. Classes without
        a guarantee are dealt with as if none were asked for.
      groups: labels of an exclusive group share a threshold, of which no image passes two labels
        unless the objective is "recall" or "prevalence"; no label is reported without its parent.

    Raises:
      ValueError: arrays that do not fit; a `target` is missing.
    """
    scores, targets = np.asarray(scores, np.float32), np.asarray(targets)
    if scores.ndim != 2 or scores.shape != targets.shape:
        raise ValueError(f"scores {scores.shape} and targets {targets.shape} must be alike, [N, K]")
    if objective in ("precision", "recall") and target is None:
        raise ValueError(f"the objective {objective!r} needs a target")
    num_classes = scores.shape[1]
    is_grouped = groups.is_grouped(num_classes)
    is_shared = ((targets >= 1).sum(0) < min_positives) & ~is_grouped
    thresholds = np.full(num_classes, DEFAULT, np.float32)
    is_unreached = np.zeros(num_classes, bool)
    for k in np.flatnonzero(~is_shared & ~is_grouped):
        known = targets[:, k] >= 0
        thresholds[k], is_unreached[k] = _choose(
            scores[known, k], targets[known, k] >= 1, objective, target
        )
    for together in filter(len, (np.flatnonzero(is_shared), *groups.members)):
        pool = _pool(scores, targets, together)
        thresholds[together], is_unreached[together] = _choose(*pool, objective, target)
    if objective in ("f1", "precision"):  # scores of a group add up to 1: one at most is above 1/2
        thresholds[is_grouped] = np.maximum(thresholds[is_grouped], DEFAULT)
    is_guaranteed = np.zeros(num_classes, bool)
    if confidence is not None and target is not None:
        found = guarantee_recall(scores, targets, recall=target, confidence=confidence)
        is_guaranteed = ~np.isnan(found)
        thresholds = np.where(is_guaranteed, found, thresholds)
    thresholds = ordered_thresholds(thresholds, groups, is_lowered=objective == "recall")
    return Choice(
        thresholds, is_shared & ~is_guaranteed, is_unreached & ~is_guaranteed, is_guaranteed
    )


def held_out_decisions(
    scores: Float[np.ndarray, "N K"],
    targets: Float[np.ndarray, "N K"],
    *,
    folds: int = FOLDS,
    **options: Any,
) -> Bool[np.ndarray, "N K"] | None:
    """Return the labels reported of each image by thresholds chosen on the other folds.

    This tells what the thresholds are worth on images that they were not chosen on. The images are
    dealt out by a fixed seed; there are fewer folds than `folds` where there are fewer images, and
    None is returned for a single one. The options are those of `choose_thresholds`.
    """
    folds = min(folds, len(scores))
    if folds < 2:
        return None
    fold = np.random.default_rng(0).permutation(len(scores)) % folds  # [N]
    decisions = np.empty(scores.shape, bool)
    for number in range(folds):
        held_out = fold == number
        choice = choose_thresholds(scores[~held_out], targets[~held_out], **options)
        decisions[held_out] = scores[held_out] > choice.thresholds
    return decisions


def fit_temperature(logits: Float[np.ndarray, "N K"], targets: Float[np.ndarray, "N K"]) -> float:
    """Fit the divisor of logits that makes their sigmoids the likeliest probabilities.

    The negative log-likelihood is convex in 1/T, so the place where its slope is zero is found by
    bisection. T stays within `TEMPERATURES`, and within what keeps the scores of a class apart in
    float32, so that the order of images stays: small temperatures push scores together at 1, large
    ones at 0.5. One pair in a thousand may become equal; who ranks by logits does not see it. Of
    more than ten million decisions every nth image is looked at. Guo et al. (2017), "On
    Calibration of Modern Neural Networks", for independent labels.
    """
    step = math.ceil(logits.size / _MAX_DECISIONS)
    known = targets[::step] >= 0
    if not known.any():
        return 1.0
    z = np.asarray(logits[::step][known], np.float64)
    y = targets[::step][known] >= 1

    def slope(temperature: float) -> float:  # of the negative log-likelihood, by 1/T
        return float(((_sigmoid(z / temperature) - y) * z).mean())

    low, high = TEMPERATURES
    low = max(low, min(1.0, z.max() / _LARGEST_LOGIT))
    high = _highest_in_order(logits, high)
    if slope(low) <= 0:  # even larger logits would be likelier
        return float(low)
    if slope(high) >= 0:
        return float(high)
    while high / low > 1 + 1e-6:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if slope(middle) <= 0 else (middle, high)
    return math.sqrt(low * high)


def _highest_in_order(logits: np.ndarray, limit: float) -> float:
    """Return the highest temperature from 1 to `limit` that keeps the scores of a class apart."""
    sample = logits[:: math.ceil(logits.size / _MAX_RANKED)].astype(np.float32)

    def distinct(temperature: float) -> int:
        scores = np.sort(_sigmoid(sample / np.float32(temperature)), axis=0)
        return int(np.count_nonzero(np.diff(scores, axis=0)))

    enough = distinct(1.0) - _MERGED * sample.size
    good, bad = 1.0, limit
    if distinct(limit) >= enough:
        return limit
    while bad / good > 1.01:
        middle = math.sqrt(good * bad)
        good, bad = (middle, bad) if distinct(middle) >= enough else (good, middle)
    return good


def log_loss(
    logits: Float[np.ndarray, "N K"], targets: Float[np.ndarray, "N K"], *, temperature: float = 1.0
) -> float:
    """Mean negative log-likelihood of a decision under sigmoid(logits / temperature), in nats."""
    total, count = 0.0, 0
    for rows in row_blocks(logits):
        known = targets[rows] >= 0
        z = np.asarray(logits[rows][known], np.float64) / temperature
        total += (np.logaddexp(0, z) - np.where(targets[rows][known] >= 1, z, 0)).sum()
        count += z.size
    return float(total) / max(count, 1)


class Bins(NamedTuple):
    """Decisions by score, in bins of equal width."""

    decisions: np.ndarray  # how many, float64 [bins]
    score: np.ndarray  # their mean score; 0 in an empty bin
    positive: np.ndarray  # the share of them that is right; 0 in an empty bin

    @property
    def error(self) -> float:
        """Expected calibration error: mean distance of `score` from `positive`, by decisions."""
        distance = np.abs(self.score - self.positive)
        return float((distance * self.decisions).sum() / max(self.decisions.sum(), 1))


def calibration_bins(
    scores: Float[np.ndarray, "N K"], targets: Float[np.ndarray, "N K"], *, bins: int = BINS
) -> Bins:
    """Count how often labels are present whose scores fall into each of `bins` parts of 0…1."""
    sums = np.zeros((3, bins))
    for rows in row_blocks(scores):
        known = targets[rows] >= 0
        values = scores[rows][known].astype(np.float64)
        places = np.minimum((values * bins).astype(np.int64), bins - 1)
        for total, weights in zip(sums, (None, values, targets[rows][known] >= 1), strict=True):
            total += np.bincount(places, weights, minlength=bins)
    count = np.maximum(sums[0], 1)
    return Bins(sums[0], sums[1] / count, sums[2] / count)


class _Cuts(NamedTuple):
    """Every way to cut the scores of a class in two, the highest cut first."""

    upper: np.ndarray  # float32 [c], the lowest score above the cut
    lower: np.ndarray  # float32 [c], the highest below it; 0 where there is none
    precision: np.ndarray  # [c]
    recall: np.ndarray  # [c]


def _choose(
    scores: np.ndarray, positives: np.ndarray, objective: Objective, target: float | None
) -> tuple[float, bool]:
    """Return the threshold for scores [n], and whether `target` cannot be reached."""
    if not scores[positives].any():  # no positives, or all at 0, which no threshold lets pass
        return DEFAULT, target is not None
    cuts = _cut(scores, positives)
    wanted, value = cuts.precision, cuts.recall
    if objective == "recall":
        wanted, value = value, wanted
    if target is None:
        value = (
            2 * cuts.precision * cuts.recall / (cuts.precision + cuts.recall)
            if objective == "f1"
            else -np.abs(cuts.recall / cuts.precision - 1)  # claims by positives
        )
        allowed, is_unreached = np.ones(len(value), bool), False
    else:
        is_unreached = bool(wanted.max() < target)
        allowed = wanted >= min(target, wanted.max())
    value = np.where(allowed, value, -np.inf)
    best = int(value.argmax())
    tolerance = PLATEAU / math.sqrt(np.count_nonzero(positives))
    bad = np.flatnonzero(value < value[best] - tolerance)
    place = int(np.searchsorted(bad, best))
    first = bad[place - 1] + 1 if place else 0
    last = bad[place] - 1 if place < len(bad) else len(value) - 1
    middle = (float(cuts.upper[first]) + float(cuts.lower[last])) / 2
    # The gap in which it lies.
    gap = first + int(np.count_nonzero(cuts.upper[first : last + 1] > middle)) - 1
    upper, lower = cuts.upper[gap], cuts.lower[gap]
    threshold = np.float32((float(upper) + float(lower)) / 2)
    return float(threshold if threshold < upper else lower), is_unreached


def _cut(scores: np.ndarray, positives: np.ndarray) -> _Cuts:
    """Cuts from the top down to the last positive; below it precision falls and nothing rises."""
    found = scores[positives]
    kept = scores >= found[found > 0].min()
    lowest = scores[~kept].max(initial=0)
    order = np.argsort(-scores[kept])
    falling = scores[kept][order]
    is_last = np.append(falling[1:] != falling[:-1], True)  # of its equals
    hits = np.cumsum(positives[kept][order])[is_last]
    upper = falling[is_last]
    claims = np.flatnonzero(is_last) + 1
    lower = np.append(upper[1:], lowest)
    # A cut that finds nothing is of no use, and would have an F1 of 0/0.
    some = hits > 0
    return _Cuts(upper[some], lower[some], (hits / claims)[some], (hits / len(found))[some])


def _pool(
    scores: np.ndarray, targets: np.ndarray, classes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Scores and positives of several classes as of one; low scores that cannot matter left out."""
    found = [scores[targets[:, k] >= 1, k] for k in classes]
    floor = min((f[f > 0].min() for f in found if f.any()), default=np.inf)
    parts, positives = [np.zeros(0, np.float32)], [np.zeros(0, bool)]
    below = np.float32(0)
    for k in classes:
        known, is_kept = targets[:, k] >= 0, scores[:, k] >= floor
        # Positives that score 0 count in the recall.
        kept = (known & is_kept) | (targets[:, k] >= 1)
        parts.append(scores[kept, k])
        positives.append(targets[kept, k] >= 1)
        below = max(below, scores[known & ~is_kept, k].max(initial=0))
    parts.append(np.array([below], np.float32))  # where the lowest gap ends
    positives.append(np.zeros(1, bool))
    return np.concatenate(parts), np.concatenate(positives)


def _sigmoid(z: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # exp(710) is infinite, and its sigmoid 0
        return 1 / (1 + np.exp(-z))
