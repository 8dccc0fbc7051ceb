"""Augmentations of what is seen and from which side."""

import math
from typing import NamedTuple

import cv2
import numpy as np

from mlcls_jax.data.frame import Frame, Resize


class Box(NamedTuple):
    """A part of a picture, in shares of its height and width, so that it fits any scale of it."""

    top: float
    left: float
    height: float
    width: float

    def of(self, image: np.ndarray) -> np.ndarray:
        """Return that part of `image` [H, W, 3], a view, with pixels that are partly inside."""
        rows, columns = image.shape[:2]
        bottom, right = self.top + self.height, self.left + self.width
        return image[
            math.floor(self.top * rows) : math.ceil(bottom * rows),
            math.floor(self.left * columns) : math.ceil(right * columns),
        ]

    def fitted(self, picture: np.ndarray, frame: Frame, resize: Resize) -> np.ndarray:
        """Return that part of a picture [h, w, 3] as an image [H, W, 3].

        Where evaluation crops, and so shows nothing squeezed, the box keeps its area and gets the
        image's form in place of the picture's.
        """
        if frame.fit != "crop":
            return frame(self.of(picture), resize)
        rows, columns = picture.shape[:2]
        return resize(
            self._formed(rows / columns * frame.size[1] / frame.size[0]).of(picture), frame.size
        )

    def needed(self, frame: Frame) -> tuple[int, int]:
        """Return the picture's height and width from which `fitted` scales nothing up."""
        height, width = frame.size
        if frame.fit != "crop":
            return math.ceil(height / self.height), math.ceil(width / self.width)
        # Of a picture of any form: the more it lacks on one side, the more it has on the other.
        aspect = max(self.width / self.height, self.height / self.width)
        side = math.ceil(math.sqrt(height * width * aspect / (self.height * self.width)))
        return side, side

    def _formed(self, wider: float) -> "Box":
        """Return a box so many times as wide for its height, of the same area if that fits."""
        height = min(1.0, self.height / math.sqrt(wider))
        width = min(1.0, self.width * math.sqrt(wider))
        top, left = (
            start * (1 - now) / (1 - before) if before < 1 else (1 - now) / 2
            for start, now, before in (
                (self.top, height, self.height),
                (self.left, width, self.width),
            )
        )
        return Box(top, left, height, width)


def random_resized_crop(rng: np.random.Generator, *, min_area: float = 0.5) -> Box:
    """Draw a box of `min_area` to all of the picture's area, 3/4 to 4/3 as wide as the picture.

    Szegedy et al., 2015, for multi-label data. There a crop may be 8 % of the picture, which holds
    one object out of several, while the labels go on naming all of them; hence a half here. And
    there the aspect is the crop's own; here it is relative to the picture's, since evaluation
    squeezes whole pictures of any aspect into the network's size. Area is drawn uniformly, aspect
    log-uniformly, ten times at most until both sides fit; then it is the whole picture.
    """
    for _ in range(10):
        area = rng.uniform(min_area, 1)
        aspect = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
        height, width = math.sqrt(area / aspect), math.sqrt(area * aspect)
        if height <= 1 and width <= 1:
            return Box(rng.uniform(0, 1 - height), rng.uniform(0, 1 - width), height, width)
    return Box(0, 0, 1, 1)


def flip(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Left and right exchanged, half the time."""
    if rng.random() >= 0.5:
        return image
    return cv2.flip(image, 1)
