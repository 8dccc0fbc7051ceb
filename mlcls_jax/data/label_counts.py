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
