"""Which unlabelled images would teach most, in the order in which to label them.

Each image is described by the gradients that the likeliest answers would give to the head, as in
BADGE (Ash et al., 2020): the product of what the heads leave open of each label and the point of
the image. Long ones are of images that the heads are unsure of, in labels that count; images that
are alike have like ones. The longest is taken first, and then always the one that is farthest from
all that are taken.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mlcls_jax.curation import heads
from mlcls_jax.curation.features import embed
from mlcls_jax.curation.judge import FOLDS, out_of_fold
from mlcls_jax.curation.subject import Subject
from mlcls_jax.data.image_files import list_images, read_file
from mlcls_jax.errors import DataError

UNSURE = 3  # labels named of an image


@dataclass(frozen=True)
class Files:
    """Image files without labels, as a source."""

    paths: Sequence[Path]
    labels: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[bytes, np.ndarray]:
        return read_file(self.paths[index]), np.zeros(0, np.float32)

    def name(self, index: int) -> str:
        return str(self.paths[index])

    place = name


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
    order = choose(points, scores, worth, count)
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


def choose(points: np.ndarray, scores: np.ndarray, worth: np.ndarray, count: int) -> np.ndarray:
    """Return the rows to label next, int64 [count], the first first.

    Args:
      points: [N, D].
      scores: [N, K].
      worth: of the labels, [K].
      count: how many, at most.
    """
    left = (scores - (scores > 0.5)) * worth  # [N, K]: the error if the likelier answer is right
    square = (left**2).sum(1) * ((points**2).sum(1) + 1)  # of the gradient; 1 is the bias
    distance = square.copy()  # to the nearest that is taken, or to zero
    taken: list[int] = []
    for _ in range(min(count, len(points))):
        best = int(distance.argmax())
        taken.append(best)
        product = (left @ left[best]) * (points @ points[best] + 1)
        distance = np.minimum(distance, np.maximum(square + square[best] - 2 * product, 0))
        distance[taken] = -1
    return np.array(taken, np.int64)
