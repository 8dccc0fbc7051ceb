"""What data sources and pipelines hand on."""

from typing import Protocol, TypedDict

import numpy as np
from jaxtyping import Bool, Float, Int32, UInt8


class Example(TypedDict):
    """One image, ready to be batched."""

    image: UInt8[np.ndarray, "H W 3"]
    target: Float[np.ndarray, " K"]  # 1 present, 0 absent
    mask: Bool[np.ndarray, ""]  # False: padding or an unreadable image; counts nowhere
    index: Int32[np.ndarray, ""]  # position in the source: joins predictions to files


class Batch(TypedDict):
    """Examples side by side."""

    image: UInt8[np.ndarray, "B H W 3"]
    target: Float[np.ndarray, "B K"]
    mask: Bool[np.ndarray, " B"]
    index: Int32[np.ndarray, " B"]


class Source(Protocol):
    """Random access to labelled images; what a data set implements."""

    labels: tuple[str, ...]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Image uint8 [H, W, 3] of any size, and target float32 [K]; DataError if unreadable."""
        ...

    def name(self, index: int) -> str:
        """What to call this example in messages: its file, or its number."""
        ...
