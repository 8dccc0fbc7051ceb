"""Brightness, contrast, saturation and sharpness: Pillow's `ImageEnhance`, bit for bit.

Each blends a picture uint8 [H, W, 3] with a plainer one: factor 0 gives that, 1 the picture. Pillow
blends grey pictures without the copies that it makes of colours, so the channels stand side by side
as if they were columns.
"""

import cv2
import numpy as np
from PIL import Image


def brightness(image: np.ndarray, factor: float) -> np.ndarray:
    """Away from black."""
    return _away_from(np.zeros_like(image), image, factor)


def contrast(image: np.ndarray, factor: float) -> np.ndarray:
    """Away from the mean grey."""
    grey = _grey(image)
    mean = int(cv2.sumElems(grey)[0] / grey.size + 0.5)
    return _away_from(np.full_like(image, mean), image, factor)


def saturation(image: np.ndarray, factor: float) -> np.ndarray:
    """Away from the grey of every pixel."""
    return _away_from(cv2.cvtColor(_grey(image), cv2.COLOR_GRAY2RGB), image, factor)


def sharpness(image: np.ndarray, factor: float) -> np.ndarray:
    """Away from a picture whose inner pixels are averaged, thirteen parts of which five are theirs.

    Thirteenths are never halves, so every way of rounding them is the same.
    """
    smooth = image.copy()
    if min(image.shape[:2]) > 2:
        # In whole numbers: sums of nine, and four times the middle.
        total = cv2.boxFilter(image, cv2.CV_16U, (3, 3), normalize=False)
        inner = cv2.addWeighted(total, 1 / 13, image, 4 / 13, 0, dtype=cv2.CV_8U)
        smooth[1:-1, 1:-1] = inner[1:-1, 1:-1]
    return _away_from(smooth, image, factor)


def _grey(image: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(image).convert("L"))


def _away_from(plain: np.ndarray, image: np.ndarray, factor: float) -> np.ndarray:
    one, other = (Image.fromarray(array.reshape(len(array), -1)) for array in (plain, image))
    return np.asarray(Image.blend(one, other, factor)).reshape(image.shape)
