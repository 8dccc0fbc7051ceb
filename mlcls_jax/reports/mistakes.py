"""The most confident mistakes of a model, and the labels that it takes for one another."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import jax
import numpy as np
from PIL import Image

from mlcls_jax.data.sources import load
from mlcls_jax.data.types import Source
from mlcls_jax.errors import DataError
from mlcls_jax.inference.bundle import Bundle
from mlcls_jax.inference.drawing import draw_evidence, scaled
from mlcls_jax.metrics.blocks import row_blocks

MAX_MISTAKES = 12  # of a kind
MAX_CONFUSED = 300  # labels of a side that are compared, those with the most mistakes
PICTURE_SIDE = 240  # pixels

_MAX_OF_LABEL = 3  # mistakes shown of one label, where there are several labels
_CANDIDATES = 1000


@dataclass(frozen=True)
class Decisions:
    """The decisions of a model about N images and K labels, and the truth."""

    scores: np.ndarray  # float32 [N, K]
    targets: np.ndarray  # [N, K], -1 for not annotated
    threshold: np.ndarray | None  # float32 [K]; None: one label per image, the best is reported

    def chunks(self) -> list[slice]:
        """Return slices of rows, so that what is made of them stays small."""
        return [*row_blocks(self.scores)]

    def reported(self, rows: slice | np.ndarray) -> np.ndarray:
        """Return the labels that these rows are given: bool [n, K]."""
        scores = self.scores[rows]
        if self.threshold is None:
            return scores.argmax(1)[:, None] == np.arange(scores.shape[1])
        return scores > self.threshold

    def false(self, rows: slice) -> np.ndarray:
        """Return where labels are reported, but absent: bool [n, K]."""
        targets = self.targets[rows]
        return self.reported(rows) & (targets >= 0) & (targets < 1)

    def missed(self, rows: slice) -> np.ndarray:
        """Return where labels are present, but not reported: bool [n, K]."""
        return ~self.reported(rows) & (self.targets[rows] >= 1)


class Mistake(NamedTuple):
    """One wrong decision."""

    row: int
    label: int
    score: float


def confident_mistakes(decisions: Decisions, *, missed: bool) -> list[Mistake]:
    """Return labels reported falsely at the highest scores, or missed at the lowest, worst first.

    An image is shown once, and a label a few times, so that one bad label does not fill the page.
    """
    sign, find = (-1, decisions.missed) if missed else (1, decisions.false)
    found: list[Mistake] = []
    for rows in decisions.chunks():
        places = np.argwhere(find(rows)) + np.array([rows.start, 0])
        scores = decisions.scores[tuple(places.T)]
        best = np.argsort(-sign * scores, kind="stable")[:_CANDIDATES]
        found += [
            Mistake(int(row), int(label), float(score))
            for (row, label), score in zip(places[best], scores[best], strict=True)
        ]
    found.sort(key=lambda mistake: -sign * mistake.score)
    most = max(_MAX_OF_LABEL, MAX_MISTAKES // decisions.scores.shape[1])
    kept: list[Mistake] = []
    of_row, of_label = Counter[int](), Counter[int]()
    for mistake in found:
        if not of_row[mistake.row] and of_label[mistake.label] < most:
            kept.append(mistake)
            of_row[mistake.row] += 1
            of_label[mistake.label] += 1
    return kept[:MAX_MISTAKES]


class Confusion(NamedTuple):
    """Counts of images where one label was missed and another one reported falsely."""

    missed: np.ndarray  # [a] labels, those that were missed most often first
    instead: np.ndarray  # [b] labels, those that were reported falsely most often first
    counts: np.ndarray  # int64 [a, b], images
    misses: np.ndarray  # int64 [a], images with this label missed


def confusion(decisions: Decisions) -> Confusion:
    """Count for the labels with the most mistakes, at most `MAX_CONFUSED` on either side."""
    chunks = decisions.chunks()
    misses: Any = sum(decisions.missed(rows).sum(0) for rows in chunks)  # [K]
    falses: Any = sum(decisions.false(rows).sum(0) for rows in chunks)
    missed, instead = (
        order[counts[order] > 0]
        for counts in (misses, falses)
        for order in [np.argsort(-counts, kind="stable")[:MAX_CONFUSED]]
    )
    counts = np.zeros((len(missed), len(instead)), np.int64)
    for rows in chunks:
        left = decisions.missed(rows)[:, missed].astype(np.float32)
        counts += (left.T @ decisions.false(rows)[:, instead]).astype(np.int64)
    return Confusion(missed, instead, counts, misses[missed])


class Illustration(NamedTuple):
    """The pictures of one mistake."""

    name: str
    picture: Image.Image | None
    evidence: Image.Image | None  # of heads that have it
    error: str | None  # why there is no picture


class Illustrator:
    """A reader of the images of a few mistakes, which draws where the model looked."""

    def __init__(self, bundle: Bundle, source: Source, indices: np.ndarray | None) -> None:
        """`indices` [N] are the places of the rows in the source; None: not known."""
        self.bundle, self.source, self.indices = bundle, source, indices

    def __call__(self, mistakes: Sequence[Mistake]) -> list[Illustration]:
        """Return one for each of at most `MAX_MISTAKES`."""
        if self.indices is None:
            return [Illustration("", None, None, "which image is not known") for _ in mistakes]
        images: list[np.ndarray | str] = []
        for mistake in mistakes:
            try:
                images.append(load(self.source, int(self.indices[mistake.row]))[0])
            except DataError as error:  # it could be read a moment ago
                images.append(error.message)
        maps = self._maps(images)
        return [
            self._illustration(mistake, image, evidence, int(self.indices[mistake.row]))
            for mistake, image, evidence in zip(mistakes, images, maps, strict=True)
        ]

    def _illustration(
        self, mistake: Mistake, image: np.ndarray | str, maps: np.ndarray | None, index: int
    ) -> Illustration:
        name = self.source.name(index)
        if isinstance(image, str):
            return Illustration(name, None, None, image)
        picture = scaled(Image.fromarray(image), PICTURE_SIDE / max(image.shape[:2]))
        if maps is None:
            return Illustration(name, picture, None, None)
        group = -(-len(self.bundle.labels) // len(maps))  # labels of one query
        evidence = draw_evidence(
            np.asarray(picture), maps[mistake.label // group], self.bundle.frame
        )
        return Illustration(name, picture, evidence, None)

    def _maps(self, images: Sequence[np.ndarray | str]) -> Sequence[np.ndarray | None]:
        """Return evidence [Q, h, w] of each image, by one program for every number of them."""
        if not self.bundle.model.network.has_evidence:
            return [None] * len(images)
        height, width = self.bundle.image_size
        batch = np.zeros((MAX_MISTAKES, height, width, 3), np.uint8)
        for row, image in zip(batch, images, strict=False):
            if not isinstance(image, str):
                row[:] = self.bundle.frame(image)
        return [*np.asarray(self._evidence(self.bundle.model.variables, batch))[: len(images)]]

    @cached_property
    def _evidence(self) -> jax.stages.Wrapped:
        network = self.bundle.model.network.on(jax.local_devices()[:1])
        return jax.jit(
            lambda variables, images: network.evidence(
                variables, network.apply(variables, images).features
            )
        )
