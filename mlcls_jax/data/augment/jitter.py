"""Brightness, contrast and saturation by chance."""

import numpy as np
from PIL import Image, ImageEnhance

_RAMP = Image.fromarray(np.arange(256, dtype=np.uint8)[None])  # every value once


def color_jitter(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Brightness, contrast and saturation, each times 0.6 to 1.4, in random order.

    The usual jitter of ImageNet training (0.4 of each). The hue stays: colours tell labels apart,
    and changing it would cost more than everything else here.
    """
    changed = Image.fromarray(image)
    factors = rng.uniform(0.6, 1.4, 3).tolist()
    for kind in rng.permutation(3).tolist():
        changed = (_brightness, _contrast, _saturation)[kind](changed, factors[kind])
    return np.array(changed)


def _brightness(image: Image.Image, factor: float) -> Image.Image:
    return _away_from(0, image, factor)


def _contrast(image: Image.Image, factor: float) -> Image.Image:
    mean = np.asarray(image.convert("L")).mean()
    return _away_from(int(mean + 0.5), image, factor)


def _saturation(image: Image.Image, factor: float) -> Image.Image:
    return ImageEnhance.Color(image).enhance(factor)


def _away_from(grey: int, image: Image.Image, factor: float) -> Image.Image:
    """Multiply the distance of every value to `grey`.

    What `ImageEnhance` does to whole pictures, done to each of the 256 values once and looked up.
    """
    table = Image.blend(Image.new("L", _RAMP.size, grey), _RAMP, factor)
    return image.point(list(table.tobytes()) * 3)
