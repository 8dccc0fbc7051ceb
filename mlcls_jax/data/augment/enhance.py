"""Brightness, contrast, saturation and sharpness: Pillow's `ImageEnhance`, bit for bit.

Each blends a picture uint8 [H, W, 3] with a plainer one: factor 0 gives that, 1 the picture; and
`color_jitter` draws the factors. New arrays cost more than arithmetic here, so there are few.
"""

import cv2
import numpy as np
from PIL import Image

_RAMP = np.arange(256, dtype=np.uint8)[None]  # every value once
_SMOOTH = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], np.float32) / 13


def brightness(image: np.ndarray, factor: float) -> np.ndarray:
    """Away from black."""
    return cv2.LUT(image, _blend(np.zeros_like(_RAMP), _RAMP, factor))


def contrast(image: np.ndarray, factor: float) -> np.ndarray:
    """Away from the mean grey."""
    grey = _grey(image)
    mean = int(cv2.sumElems(grey)[0] / grey.size + 0.5)
    return cv2.LUT(image, _blend(np.full_like(_RAMP, mean), _RAMP, factor))


def saturation(image: np.ndarray, factor: float) -> np.ndarray:
    """Away from the grey of every pixel."""
    return _blend(cv2.cvtColor(_grey(image), cv2.COLOR_GRAY2RGB), image, factor)


def sharpness(image: np.ndarray, factor: float) -> np.ndarray:
    """Away from a picture whose inner pixels are averaged, thirteen parts of which five are theirs.

    Thirteenths are never halves, so every way of rounding them is the same.
    """
    smooth = image.copy()
    if min(image.shape[:2]) > 2:
        smooth[1:-1, 1:-1] = cv2.filter2D(image, -1, _SMOOTH)[1:-1, 1:-1]
    return _blend(smooth, image, factor)


def color_jitter(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Brightness, contrast and saturation, each times 0.6 to 1.4, in random order.

    The usual jitter of ImageNet training (0.4 of each). The hue stays: colours tell labels apart,
    and changing it would cost more than everything else here.
    """
    factors = rng.uniform(0.6, 1.4, 3).tolist()
    for kind in rng.permutation(3).tolist():
        image = (brightness, contrast, saturation)[kind](image, factors[kind])
    return image


def _grey(image: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(image).convert("L"))


def _blend(plain: np.ndarray, image: np.ndarray, factor: float) -> np.ndarray:
    """Blend by Pillow, the channels side by side as if they were columns: it copies colours."""
    one, other = (Image.fromarray(array.reshape(len(array), -1)) for array in (plain, image))
    return np.asarray(Image.blend(one, other, factor)).reshape(image.shape)
