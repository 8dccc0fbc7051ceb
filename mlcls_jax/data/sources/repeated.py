"""Images with rare labels several times in every pass over the data: repeat-factor sampling."""

from dataclasses import dataclass

import numpy as np

from mlcls_jax.data.label_counts import needed
from mlcls_jax.data.types import Source


@dataclass(frozen=True)
class Repeated:
    """The examples of `source` in another number and order: `table` [M] holds their indices."""

    source: Source
    table: np.ndarray

    @property
    def labels(self) -> tuple[str, ...]:
        return self.source.labels

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: int) -> tuple[bytes | np.ndarray, np.ndarray]:
        return self.source[int(self.table[index])]

    def name(self, index: int) -> str:
        return self.source.name(int(self.table[index]))

    def place(self, index: int) -> str:
        return self.source.place(int(self.table[index]))


def repeat_rare(source: Source, below: float, *, seed: int) -> Source:
    """Return the source with images of rare labels repeated (Gupta et al., 2019, for LVIS).

    A label on a share f of the images asks for max(1, sqrt(below / f)) copies of them, and an image
    has as many as the label asks for that asks for most. Of a fraction, a draw by the seed decides
    once; every pass over the data has the same copies.

    Args:
      source: its `targets` [N, K] must be at hand.
      below: share of the images, in [0, 1]; 0: nothing is repeated.
      seed: of the draw.

    Raises:
      ConfigError: the source tells its targets only image by image.
    """
    if not below:
        return source
    targets = needed(getattr(source, "targets", None), f"data.repeat_below={below:g}")
    present = targets >= 1
    shares = np.maximum(present.sum(0), 1) / len(targets)
    asked = np.maximum(1, np.sqrt(below / shares))  # [K]
    copies = np.where(present, asked, 1).max(1)  # [N]
    drawn = np.random.default_rng(seed).random(len(copies))
    return Repeated(source, np.repeat(np.arange(len(copies)), (copies + drawn).astype(int)))
