"""How a picture of any shape becomes an image of the network's size: one geometry for all uses."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from mlcls_jax.data.images import resize

FITS = ("squeeze", "pad", "crop")
FILL = (124, 116, 104)  # of margins, RGB: ImageNet's mean, nearly zero once normalised
SHORT = 8 / 7  # crop: short side before the cut, in short sides of the image; PaddleClas' 256 : 224
# Crop: a picture this many times as long as the image would have to be is cut first, since a strip
# of one pixel, scaled up whole, would not fit into memory.
MOST = 16

Resize = Callable[[np.ndarray, tuple[int, int]], np.ndarray]


class Placed(NamedTuple):
    """The scaled picture, and where the image begins in it; below zero there is a margin."""

    height: int
    width: int
    top: int
    left: int


@dataclass(frozen=True)
class Frame:
    """The size of images, and how a picture of another shape is fitted into it.

    Attributes:
      size: height and width.
      fit: squeeze: the whole picture, its aspect ratio not kept. pad: the whole picture, its aspect
        ratio kept, in the middle of `FILL`. crop: scaled until its short side is `short` long, or
        longer where it would not cover the image; then the middle is cut out.
      short: crop; None: `SHORT` times the image's own short side.
    """

    size: tuple[int, int]
    fit: str = "squeeze"
    short: int | None = None

    @property
    def short_side(self) -> int:
        """`short`, or what stands for None."""
        return round(min(self.size) * SHORT) if self.short is None else self.short

    @property
    def at_least(self) -> tuple[int, int]:
        """Height and width of a decoded picture from which nothing has to be scaled up."""
        if self.fit != "crop":
            return self.size
        height, width = (max(self.short_side, side) for side in self.size)
        return height, width

    def scaled(self, factor: float, step: int) -> "Frame":
        """Return one of the same part of a picture, its sides the nearest multiples of `step`.

        With a factor of 1 it is this one, whatever its sides.
        """
        if factor == 1:
            return self
        height, width = (max(step, round(side * factor / step) * step) for side in self.size)
        short = self.short and round(self.short * min(height, width) / min(self.size))
        return Frame((height, width), self.fit, short)

    def describe(self) -> dict[str, Any]:
        """Return what a bundle says of it besides the size; nothing of squeezing.

        So versions that do nothing else go on reading such bundles, and refuse the others.
        """
        facts = {"pad": {"fill": list(FILL)}, "crop": {"resize_short": self.short_side}}
        return {} if self.fit == "squeeze" else {"fit": self.fit, **facts[self.fit]}

    def placed(self, height: int, width: int) -> Placed:
        """Return how a picture of this height and width is scaled and placed.

        Sides are rounded and halves of margins and cuts floored as in PaddleClas' `ResizeImage`
        and `CropImage`.
        """
        if self.fit == "squeeze":
            return Placed(*self.size, 0, 0)
        ratios = self.size[0] / height, self.size[1] / width
        if self.fit == "pad":
            scale = min(ratios)
        else:
            scale = max(self.short_side / min(height, width), *ratios)
        rows, columns = max(1, round(height * scale)), max(1, round(width * scale))
        sign = -1 if self.fit == "pad" else 1
        top, left = (
            sign * (abs(whole - side) // 2)
            for whole, side in zip((rows, columns), self.size, strict=True)
        )
        return Placed(rows, columns, top, left)

    def __call__(self, picture: np.ndarray, resize: Resize = resize) -> np.ndarray:
        """Return uint8 [h, w, 3] as an image [H, W, 3], scaled by `resize`."""
        if self.fit == "squeeze":
            return resize(picture, self.size)
        if self.fit == "crop":
            picture = self._middle(picture)
        placed = self.placed(*picture.shape[:2])
        scaled = resize(picture, (placed.height, placed.width))
        height, width = self.size
        if self.fit == "crop":
            cut = scaled[placed.top : placed.top + height, placed.left : placed.left + width]
            return np.ascontiguousarray(cut)
        image = np.empty((height, width, 3), np.uint8)
        image[:] = FILL
        rows, columns = (slice(-start, -start + side) for start, side in (
            (placed.top, placed.height), (placed.left, placed.width),
        ))  # fmt: skip
        image[rows, columns] = scaled
        return image

    def seen(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Return which part of a picture the image shows: left, top, right, bottom in its pixels.

        With margins it reaches beyond the picture.
        """
        placed = self.placed(height, width)
        y, x = height / placed.height, width / placed.width
        left, right = (round(x * (placed.left + n)) for n in (0, self.size[1]))
        top, bottom = (round(y * (placed.top + n)) for n in (0, self.size[0]))
        return left, top, right, bottom

    def _middle(self, picture: np.ndarray) -> np.ndarray:
        """Return the picture, or the middle of one that is far longer than it is wide."""
        longest = round(MOST * min(picture.shape[:2]) * max(self.size) / min(self.size))
        for axis in (0, 1):
            if (side := picture.shape[axis]) > longest:
                start = (side - longest) // 2
                picture = picture.take(range(start, start + longest), axis)
        return picture
