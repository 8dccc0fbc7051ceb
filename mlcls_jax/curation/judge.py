"""Which labels are probably wrong: what heads say of images that they did not learn from."""

import math
from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from mlcls_jax.curation import heads
from mlcls_jax.data.stratify import divide
from mlcls_jax.errors import DataError

FOLDS = 5
NEIGHBOURS = 10
PER_WRONG = 2  # entries that are listed for each that seems to be wrong

_FIRST_RATE = 0.05  # supposed share of wrong and of missing marks, before it is estimated
_ROUNDS = 15  # of the estimate

_MOST = 0.4  # of either rate
_TINY = 1e-6
_BLOCK = 1024


@dataclass(frozen=True)
class Judgement:
    """What out-of-fold heads say of N images and K labels."""

    scores: np.ndarray  # float32 [N, K], of heads that did not learn from the image
    doubt: np.ndarray  # float32 [N, K], chance that the given label is wrong; 0 where none is
    wrong: float  # estimated share of the marks that are wrong
    missing: float  # estimated share of the labels that are there and lack their mark
    decay: float  # of the heads


@dataclass(frozen=True)
class Suspect:
    """One entry that is probably wrong."""

    row: int
    label: int
    given: int  # 1 present, 0 absent
    doubt: float
    score: float
    alike: int  # of `NEIGHBOURS` most similar images, those that have the label

    @property
    def suggested(self) -> int:
        """The other value."""
        return 1 - self.given

    @property
    def reason(self) -> str:
        """Why it is doubted, in words."""
        return (
            f"scored {self.score:.3f} by a head that has not seen it;"
            f" {self.alike} of the {NEIGHBOURS} most similar images have the label"
        )


class OutOfFold(NamedTuple):
    """Heads that each leave one fold out."""

    weights: np.ndarray  # float32 [folds, D + 1, K]
    logits: np.ndarray  # float32 [N, K], of the head that left the image out
    decay: float


def out_of_fold(
    vectors: np.ndarray, space: heads.Space, targets: np.ndarray, folds: int, seed: int
) -> OutOfFold:
    """Fit a head for each fold on the others, with the decay that makes given labels likeliest.

    Copies of an image are in one fold: a head that learnt from one would repeat its label.

    Raises:
      DataError: no label is annotated.
    """
    if not (targets >= 0).any():
        raise DataError(
            "no label of these images is annotated: heads have nothing to learn from",
            "Every value is -1; 1 stands for a label that is present, 0 for an absent one.",
        )
    points = space(vectors)
    numbers: dict[bytes, int] = {}
    copies = np.array([numbers.setdefault(row.tobytes(), len(numbers)) for row in vectors])
    part = fold_numbers(targets, folds, seed, copies)
    used = part != np.arange(folds)[:, None]
    best: tuple[float, OutOfFold] | None = None
    for decay in heads.DECAYS:
        weights = heads.fit(points, targets, used, decay)
        logits = np.empty(targets.shape, np.float32)
        for fold in range(folds):
            rows = part == fold
            logits[rows] = heads.logits(points[rows], weights[fold : fold + 1])[0]
        loss = _loss(logits, targets)
        if best is None or loss < best[0]:
            best = loss, OutOfFold(weights, logits, decay)
    assert best is not None
    return best[1]


def judge(
    vectors: np.ndarray, targets: np.ndarray, *, folds: int = FOLDS, seed: int = 0
) -> Judgement:
    """Return how much each given label is to be doubted, by heads that did not learn from it.

    Args:
      vectors: embeddings [N, C].
      targets: [N, K]; 1 present, 0 absent, below 0 not annotated.
      folds: parts, in which every label has its share.
      seed: of the division.

    Raises:
      DataError: no label is annotated.
    """
    found = out_of_fold(vectors, heads.principal(vectors), targets, folds, seed)
    scores = heads.sigmoid(found.logits)
    return Judgement(scores, *doubts(scores, targets), found.decay)


def fold_numbers(
    targets: np.ndarray, folds: int, seed: int, groups: np.ndarray | None = None
) -> np.ndarray:
    """Return the fold, int64 [N], of each image; every label keeps its share in each.

    Images of the same of `groups`, int64 [N] from 0 on, are kept together.
    """
    groups = np.arange(len(targets)) if groups is None else groups
    sizes = np.bincount(groups)
    labels = [Counter[int]() for _ in sizes]
    for group, row in zip(groups.tolist(), targets, strict=True):
        labels[group].update(np.flatnonzero(row > 0).tolist())
    return divide(labels, sizes.tolist(), [1] * folds, seed=seed)[groups]


def doubts(scores: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Return the chance that each given label is wrong, [N, K], and how many seem to be.

    Bayes' rule, where scores are taken for the chance that a mark is there, and two rates are the
    same for all labels: a share of the marks is wrong, and a share of the labels that are there
    lacks its mark. Both are estimated in turns with the chances (expectation maximisation). Where
    none is given, the chance is 0.

    Returns:
      The chances, the share of marks that are wrong, and the share of labels without a mark.
    """
    known, present = targets >= 0, targets > 0
    marks = present.sum(0) / np.maximum(known.sum(0), 1)  # [K]
    is_wrong, is_missing = np.zeros(targets.shape), np.zeros(targets.shape)
    wrong = missing = _FIRST_RATE
    for _ in range(_ROUNDS):
        # Of label k, `there` is the share of images that have it, `added` the chance of a mark
        # where it is not.
        there = np.clip(marks * (1 - wrong) / (1 - missing), _TINY, 1 - _TINY)
        added = np.clip(wrong * marks / (1 - there), 0, 0.45)
        true = np.clip((scores - added) / (1 - missing - added), _TINY, 1 - _TINY)  # [N, K]
        is_wrong = added * (1 - true) / (added * (1 - true) + (1 - missing) * true)
        is_missing = missing * true / (missing * true + (1 - added) * (1 - true))
        lacking = float(is_missing[known & ~present].sum())
        right = float((1 - is_wrong)[present].sum())
        wrong = min(1 - right / max(present.sum(), 1), _MOST)
        missing = min(lacking / max(lacking + right, _TINY), _MOST)
    found = np.where(known, np.where(present, is_wrong, is_missing), 0)
    return found.astype(np.float32), wrong, missing


def suspects(
    judged: Judgement,
    vectors: np.ndarray,
    targets: np.ndarray,
    *,
    at_least: float | None = None,
    most: int = 2000,
) -> list[Suspect]:
    """Return the entries that are doubted at least so much, at most so many, worst first.

    Without `at_least` they are `PER_WRONG` times as many as seem to be wrong.
    """
    flat = judged.doubt.ravel()
    if at_least is None:
        # A network that has learnt wrong labels makes their chances small, but seldom their ranks.
        at_least, most = _TINY, min(most, math.ceil(PER_WRONG * flat.sum()))
    order = np.flatnonzero(flat >= at_least)
    order = order[np.argsort(-flat[order], kind="stable")][:most]
    rows, labels = np.divmod(order, targets.shape[1])
    alike = neighbours(vectors, rows)  # [S, n]
    return [
        Suspect(
            int(row), int(k), int(targets[row, k] > 0), float(judged.doubt[row, k]),
            float(judged.scores[row, k]), int((targets[near, k] > 0).sum()),
        )
        for row, k, near in zip(rows, labels, alike, strict=True)
    ]  # fmt: skip


def neighbours(vectors: np.ndarray, rows: np.ndarray, count: int = NEIGHBOURS) -> np.ndarray:
    """Return the images most similar to those of `rows`, int64 [S, count], without themselves.

    Similar is a high cosine between embeddings from which their mean is taken.
    """
    unit = heads.unit(vectors - vectors.mean(0))
    count = min(count, len(vectors) - 1)
    found = np.empty((len(rows), count), np.int64)
    for start in range(0, len(rows), _BLOCK):
        some = rows[start : start + _BLOCK]
        cosines = unit[some] @ unit.T
        cosines[np.arange(len(some)), some] = -np.inf
        near = np.argpartition(-cosines, count - 1, axis=1)[:, :count]
        order = np.argsort(-np.take_along_axis(cosines, near, 1), axis=1, kind="stable")
        found[start : start + _BLOCK] = np.take_along_axis(near, order, 1)
    return found


def _loss(logits: np.ndarray, targets: np.ndarray) -> float:
    costs = np.logaddexp(0, np.where(targets > 0, -logits, logits))
    return float(costs[targets >= 0].mean())
