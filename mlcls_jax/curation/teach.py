"""Which unlabelled images would teach most, in the order in which to label them.

Images are drawn one after the other, as the centres of k-means++ are: with a chance that grows with
the distance to the nearest image that is labelled or drawn, and with what the heads leave open of
the image, in rare labels above all. To take always the most promising one instead, by the gradients
that it would give (BADGE without drawing; Ash et al., 2020), finds outliers: on photographs that
taught less than images drawn evenly.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mlcls_jax.curation import heads
from mlcls_jax.curation.features import embed
from mlcls_jax.curation.judge import FOLDS, out_of_fold
from mlcls_jax.curation.subject import Subject
from mlcls_jax.data.image_files import Files, list_images
from mlcls_jax.errors import DataError

UNSURE = 3  # labels named of an image

_TINY = 1e-6
_BLOCK = 1024


@dataclass(frozen=True)
class Lesson:
    """An image that is to be labelled."""

    image: str
    unsure: (
        float  # summed over the labels: 0.5 where both answers are as likely, 0 where it is known
    )
    scores: np.ndarray  # float32 [K]
    labels: tuple[int, ...]  # those that are least sure, weighed as they count; the first first


def lessons(
    subject: Subject, folder: Path, count: int, *, seed: int = 0, device: str | None = None
) -> list[Lesson]:
    """Return the images of a folder that are to be labelled next, the first first.

    Heads learn from the training images of the subject. Images that these hold already, by content,
    are left out, as are those that cannot be read.

    Raises:
      UserError: the model, the data or the folder cannot be used, or nothing is left to label.
    """
    predictor, source = subject.predictor(device), subject.source("train")
    pool = Files(list_images(folder))
    labelled = embed(predictor, source, subject.count())
    found = embed(predictor, pool)
    space = heads.principal(np.concatenate([labelled.vectors, found.vectors]))
    known = {vector.tobytes() for vector in labelled.vectors}
    new = np.array([vector.tobytes() not in known for vector in found.vectors])
    if not new.any():
        raise DataError(f"{folder}: all of its images are among the labelled ones already")
    indices, points = found.indices[new], space(found.vectors[new])
    weights = out_of_fold(labelled.vectors, space, labelled.targets, FOLDS, seed).weights
    scores = heads.sigmoid(heads.logits(points, weights)).mean(0)  # [N, K]
    worth = label_worth(labelled.targets)
    order = choose(points, scores, worth, space(labelled.vectors), count, seed=seed)
    open_ = np.minimum(scores, 1 - scores)
    return [
        Lesson(
            pool.name(int(indices[row])),
            float(open_[row].sum()),
            scores[row],
            (*np.argsort(-open_[row] * worth, kind="stable")[:UNSURE].tolist(),),
        )
        for row in order.tolist()
    ]


def label_worth(targets: np.ndarray) -> np.ndarray:
    """Return how much each label counts, [K] around 1: the rarer, the more."""
    share = ((targets > 0).sum(0) + 1) / ((targets >= 0).sum(0) + 1)
    worth = share**-0.5
    return worth / worth.mean()


def choose(
    points: np.ndarray,
    scores: np.ndarray,
    worth: np.ndarray,
    labelled: np.ndarray,
    count: int,
    *,
    seed: int | tuple[int, ...] = 0,
) -> np.ndarray:
    """Return the rows to label next, int64 [count], the first first.

    Args:
      points: [N, D].
      scores: [N, K].
      worth: of the labels, [K].
      labelled: points [L, D] of the images that are labelled.
      count: how many, at most.
      seed: of the draws.
    """
    unsure = np.linalg.norm(np.minimum(scores, 1 - scores) * worth, axis=1)  # [N]
    weight = np.sqrt(unsure) + _TINY
    units, known = heads.unit(points), heads.unit(labelled)
    far = np.concatenate([  # [N], from the nearest: 1 - cosine
        1 - (units[start : start + _BLOCK] @ known.T).max(1)
        for start in range(0, len(units), _BLOCK)
    ])  # fmt: skip
    left = np.ones(len(points), bool)
    rng, taken = np.random.default_rng(seed), []
    for _ in range(min(count, len(points))):
        # Copies of what is taken lie at 0, but for rounding; they come when nothing else is left.
        chance = left * weight * np.maximum(far, _TINY)
        best = int(rng.choice(len(points), p=chance / chance.sum()))
        taken.append(best)
        left[best] = False
        far = np.minimum(far, 1 - units @ units[best])
    return np.array(taken, np.int64)
