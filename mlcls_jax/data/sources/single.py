"""Data sets with exactly one label an image, as model.task=single needs them."""

from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from mlcls_jax.data.types import Source
from mlcls_jax.errors import DataError, raise_faults

HINT = "Correct its labels, or leave model.task at multilabel."


@dataclass(frozen=True)
class SingleLabel:
    """The examples of `source`; one without exactly one label cannot be read.

    A target with -1 in it is not annotated, and passes: losses and metrics leave it out.
    """

    source: Source

    @property
    def labels(self) -> tuple[str, ...]:
        return self.source.labels

    @property
    def targets(self) -> np.ndarray:
        """[N, K], if the source offers them."""
        return cast(Any, self.source).targets

    def fingerprint(self) -> dict[str, str]:
        """That of the source."""
        return getattr(self.source, "fingerprint", dict)()

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> tuple[bytes | np.ndarray, np.ndarray]:
        image, target = self.source[index]
        if _is_wrong(target):
            raise DataError(_fault(self.source, index, target), HINT)
        return image, target

    def name(self, index: int) -> str:
        return self.source.name(index)

    def place(self, index: int) -> str:
        return self.source.place(index)


def single_label(source: Source, *, on_error: str) -> SingleLabel:
    """`source`, checked: at once if it offers `targets` [N, K], else as images are read.

    With `on_error` "skip" the pipeline leaves out and tells what is wrong, as it does with images
    that cannot be read.

    Raises:
      DataError: images without exactly one label; tells list and line of each.
    """
    targets = getattr(source, "targets", None)
    if targets is not None and on_error == "raise":
        wrong = np.flatnonzero(_is_wrong(targets))
        raise_faults(DataError, [_fault(source, i, targets[i]) for i in wrong.tolist()], HINT)
    return SingleLabel(source)


def _is_wrong(targets: np.ndarray) -> np.ndarray:
    """Of targets [..., K]: bool [...]."""
    return (targets >= 0).all(axis=-1) & ((targets == 1).sum(axis=-1) != 1)


def _fault(source: Source, index: int, target: np.ndarray) -> str:
    count = int((target == 1).sum())
    return f"{source.place(index)}: has {count} labels; model.task=single needs exactly one"
