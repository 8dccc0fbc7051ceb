"""Labelled images as the writers of formats take them; see `write` of `Format`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from mlcls_jax.errors import DataError


class Picture(NamedTuple):
    """An image and its labels."""

    name: str  # its path below the folder that is written to, with / as divider
    file: Path
    target: np.ndarray | None = None  # int8 [K]: 1, 0 or -1; None: not annotated
    found: Mapping[str, float] | None = None  # what a model finds: label → score; None: not asked


def size_of(file: Path) -> tuple[int, int]:
    """Return width and height of an image, as its header has them.

    Raises:
      DataError: it cannot be read.
    """
    try:
        with Image.open(file) as image:
            return image.size
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        hint = "`mlcls check` lists all that are damaged."
        raise DataError(f"{file}: is no image: {error}", hint) from error


@dataclass(frozen=True)
class Labelled:
    """A data set in memory."""

    labels: tuple[str, ...]
    splits: Mapping[str, Sequence[Picture]]  # train; val and test where there are such
    model: str = "mlcls"  # version of the model of `found`
    model_labels: tuple[str, ...] = ()  # all that it knows; none: there is no model
    name: str = ""  # of the folder, once it is written

    def as_predicted(self) -> "Labelled":
        """Return the same images with the labels that the model finds, and no others."""
        splits = {
            split: [
                picture._replace(
                    target=np.array([name in found for name in self.model_labels], int)
                )
                for picture in rows
                if (found := picture.found) is not None
            ]
            for split, rows in self.splits.items()
        }
        return Labelled(self.model_labels, splits, self.model, name=self.name)

    def present(self, picture: Picture) -> list[str]:
        """Return the labels that an image has."""
        assert picture.target is not None
        return [name for name, value in zip(self.labels, picture.target, strict=True) if value == 1]
