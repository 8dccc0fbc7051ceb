"""Types that data sources and pipelines exchange."""

from typing import Literal, Protocol, TypedDict, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int32, UInt8

Split = Literal["train", "validation"]


class Example(TypedDict):
    """One image, ready to be batched."""

    image: UInt8[np.ndarray, "H W 3"] | Float[np.ndarray, "h w C"]  # or its feature map
    target: Float[np.ndarray, " K"]  # 1 present, 0 absent, -1 not annotated
    mask: Bool[np.ndarray, ""]  # False: padding or an unreadable image; counts nowhere
    index: Int32[np.ndarray, ""]  # position in the source: joins predictions to files


class Batch(TypedDict):
    """Examples side by side."""

    image: UInt8[np.ndarray, "B H W 3"] | Float[np.ndarray, "B h w C"]
    target: Float[np.ndarray, "B K"]
    mask: Bool[np.ndarray, " B"]
    index: Int32[np.ndarray, " B"]


@runtime_checkable
class Source(Protocol):
    """Random access to labelled images; what a data set implements."""

    @property
    def labels(self) -> tuple[str, ...]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[bytes | np.ndarray, np.ndarray]:
        """Image and target float32 [K] (1, 0, or -1 for not annotated).

        The image is the content of an image file, still encoded, so that the reader may decode
        it at the scale it wants; or uint8 [H, W, 3] of any size. DataError if it cannot be read.
        """
        ...

    def name(self, index: int) -> str:
        """Return the name of this example: its file, or its number."""
        ...

    def place(self, index: int) -> str:
        """Return its place for messages: list, line and file."""
        ...
