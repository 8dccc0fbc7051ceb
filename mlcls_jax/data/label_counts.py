"""How often labels occur in training, as far as a source tells it without reading images."""

from typing import NamedTuple, TypeVar

import numpy as np

from mlcls_jax.data.types import Source
from mlcls_jax.errors import ConfigError

Told = TypeVar("Told")


class LabelCounts(NamedTuple):
    """How often labels occur in training."""

    positives: np.ndarray  # [K], images with each label
    known: np.ndarray  # [K], images where it is annotated
    images: int

    @classmethod
    def of(cls, targets: np.ndarray) -> "LabelCounts":
        """Count the labels of targets [N, K]."""
        return cls((targets >= 1).sum(0), (targets >= 0).sum(0), len(targets))

    def shares(self) -> np.ndarray:
        """Return the share of the images with each label, float32 [K].

        Of the images where it is annotated; of all where it is annotated as present alone, as in
        data with a single label per image, which would make every label one that all images have.
        """
        annotated = np.where(self.known > self.positives, self.known, self.images)
        return (self.positives / np.maximum(annotated, 1)).astype(np.float32)


def count_labels(source: Source) -> LabelCounts | None:
    """Count the labels of a source; None where that would mean to read all images."""
    targets = getattr(source, "targets", None)
    return None if targets is None else LabelCounts.of(targets)


def needed(told: Told | None, what: str) -> Told:
    """Return what a source told of its labels.

    Raises:
      ConfigError: it told nothing, which `what` needs.
    """
    if told is None:
        raise ConfigError(
            f"{what}: needs to know how often each label occurs, which this kind of data tells"
            " only image by image",
            "Convert it into an MLClsDataset; weights may also come from a JSON file, in"
            " loss.class_weights.",
        )
    return told
