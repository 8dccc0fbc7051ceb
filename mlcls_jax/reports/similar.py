"""What a network finds similar: the neighbours of an image, and a map of all of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from markupsafe import Markup

from mlcls_jax.curation.heads import principal
from mlcls_jax.curation.judge import neighbours
from mlcls_jax.data.types import Source
from mlcls_jax.errors import DataError
from mlcls_jax.reports import charts, page

SHOWN = 4  # neighbours
SIDE = 96  # pixels
MAX_POINTS = 1500  # of the map

_COLOURS, _TOO_COMMON = 3, 0.6  # labels that have one; share of the images


class Neighbour(NamedTuple):
    """A similar image."""

    picture: Markup
    labels: list[int]  # that it has


@dataclass(frozen=True)
class Similar:
    """Images, their labels and their embeddings."""

    source: Source
    indices: np.ndarray | None  # [N], places of the rows in the source; None: not known
    targets: np.ndarray  # [N, K]
    vectors: np.ndarray | None  # float32 [N, C]; None: there is nothing to tell

    def __call__(self, rows: Sequence[int]) -> list[list[Neighbour]]:
        """Return the images most similar to each of these rows, as far as they can be read."""
        if self.vectors is None or self.indices is None or not rows:
            return [[] for _ in rows]
        near = neighbours(self.vectors, np.array(rows), SHOWN)
        return [
            [found for row in some if (found := self._neighbour(row))] for some in near.tolist()
        ]

    def _neighbour(self, row: int) -> Neighbour | None:
        assert self.indices is not None
        try:
            picture = page.thumbnail(self.source, int(self.indices[row]), SIDE)
        except DataError:
            return None
        return Neighbour(picture, np.flatnonzero(self.targets[row] >= 1).tolist())

    def charts(self) -> list[charts.Chart]:
        """Return a map of the images by two principal components, coloured by common labels."""
        if self.vectors is None or len(self.vectors) < 3:
            return []
        count = len(self.vectors)
        rows = np.unique(np.linspace(0, count - 1, min(count, MAX_POINTS)).astype(int))
        has = self.targets[rows] >= 1  # [n, K]
        # A label that nearly all have tells nothing.
        common = np.where(has.mean(0) > _TOO_COMMON, 0, has.sum(0))
        chosen = np.argsort(-common, kind="stable")[:_COLOURS]
        chosen = chosen[common[chosen] > 0]
        series = np.full(len(rows), len(chosen))
        for place, k in enumerate(chosen):
            series[has[:, k]] = place  # the rarest that it has
        order = np.argsort(-series, kind="stable")  # the others below
        rows, labels = rows[order], self.source.labels
        return [
            charts.scatter(
                principal(self.vectors, 2)(self.vectors[rows]),
                series[order],
                [self._title(row) for row in rows.tolist()],
                names=(*(page.shorten(labels[k]) for k in chosen), "others"),
                caption="A map of the images: alike to the network is close, as far as two of its"
                f" components tell. {page.count(len(rows), 'image')}.",
            )
        ]

    def _title(self, row: int) -> str:
        labels = ", ".join(self.source.labels[k] for k in np.flatnonzero(self.targets[row] >= 1))
        name = ""
        if self.indices is not None and hasattr(self.source, "targets"):
            # Of other sources than lists it would take as long as reading the image.
            name = f"{self.source.name(int(self.indices[row]))}: "
        return name + (labels or "no label")
