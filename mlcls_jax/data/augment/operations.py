"""The changes of form and colour that the policies draw from.

Each takes uint8 [H, W, 3] and a strength, and returns an array of the same shape; the input is
only read. Equal to PaddleClas' pixels (`ppcls/data/preprocess/ops/randaugment.py`), which are
Pillow's, bit for bit.
"""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageOps

from mlcls_jax.data.augment import enhance
from mlcls_jax.data.augment.erase import with_box
from mlcls_jax.data.augment.shear import GREY, shear_rows


def shear_y(image: np.ndarray, slope: float) -> np.ndarray:
    """Shift every column by `slope` times its number, upwards where positive; grey comes in."""
    return cv2.transpose(shear_rows(cv2.transpose(image), slope))


def translate_x(image: np.ndarray, share: float) -> np.ndarray:
    """Shift by a share of the width, to the left where positive; grey comes in."""
    return _moved(image, _whole(share * image.shape[1], image.shape[1]), 0)


def translate_y(image: np.ndarray, share: float) -> np.ndarray:
    """Shift by a share of the height, upwards where positive; grey comes in."""
    return _moved(image, 0, _whole(share * image.shape[0], image.shape[0]))


def rotate(image: np.ndarray, degrees: float) -> np.ndarray:
    """Turn around the centre, counter-clockwise where positive; grey comes in."""
    turned = Image.fromarray(image).rotate(degrees, Image.Resampling.NEAREST, fillcolor=GREY)
    return np.asarray(turned)


def enhanced(function: Callable[[np.ndarray, float], np.ndarray]) -> Callable[..., np.ndarray]:
    """Return one of `enhance` as an operation: more of it by a change above 0, less below."""
    return lambda image, change: function(image, 1 + change)


def posterize(image: np.ndarray, bits: float) -> np.ndarray:
    """Keep the highest bits, 1 to 8, of every value."""
    return image & np.uint8(256 - 2 ** (8 - int(bits)))


def solarize(image: np.ndarray, threshold: float) -> np.ndarray:
    """Invert the values from `threshold` on; 0 inverts them all."""
    if threshold > 255:
        return image.copy()
    inverted = image >= np.uint8(math.ceil(threshold))
    return image ^ -inverted.view(np.uint8)  # 255 where inverted


def autocontrast(image: np.ndarray, _: float) -> np.ndarray:
    """Stretch every channel to 0..255."""
    rows = image.reshape(len(image), -1)  # much faster than the extremes of [H, W, 3]
    lowest, highest = (rows.min(0).reshape(-1, 3).min(0), rows.max(0).reshape(-1, 3).max(0))
    tables = []
    for low, high in zip(lowest.tolist(), highest.tolist(), strict=True):
        scale = 255 / (high - low) if high > low else 1.0
        offset = -low * scale if high > low else 0.0
        tables.append(np.clip(np.arange(256) * scale + offset, 0, 255).astype(np.uint8))
    return cv2.LUT(image, np.stack(tables, -1)[:, None])


def equalize(image: np.ndarray, _: float) -> np.ndarray:
    """Make all values of a channel about equally frequent."""
    return np.asarray(ImageOps.equalize(Image.fromarray(image)))


def invert(image: np.ndarray, _: float) -> np.ndarray:
    """Return the negative."""
    return 255 - image


def black_square(image: np.ndarray, half: float, *, centre: tuple[int, int]) -> np.ndarray:
    """Blacken a square of side 2 · `half` around `centre` = (y, x), as far as it is inside."""
    (y, x), half = centre, int(half)
    return with_box(image, (0, 0, 0), start=(y - half, x - half), stop=(y + half, x + half))


class Operation(NamedTuple):
    """One of the operations that policies draw from."""

    apply: Callable[..., np.ndarray]  # of image and magnitude, and of the centre if that is drawn
    magnitudes: np.ndarray  # by index 0..9, AutoAugment's scale
    drawn: Literal["sign", "centre"] | None = None  # what of it is left to chance


_UNUSED = np.zeros(10)
_ENHANCE = np.linspace(0, 0.9, 10)

OPERATIONS: dict[str, Operation] = {
    "shearX": Operation(shear_rows, np.linspace(0, 0.3, 10), "sign"),
    "shearY": Operation(shear_y, np.linspace(0, 0.3, 10), "sign"),
    "translateX": Operation(translate_x, np.linspace(0, 150 / 331, 10), "sign"),
    "translateY": Operation(translate_y, np.linspace(0, 150 / 331, 10), "sign"),
    "rotate": Operation(rotate, np.linspace(0, 30, 10), "sign"),
    "color": Operation(enhanced(enhance.saturation), _ENHANCE, "sign"),
    "posterize": Operation(posterize, np.linspace(8, 4, 10).round()),
    "solarize": Operation(solarize, np.linspace(256, 0, 10)),
    "contrast": Operation(enhanced(enhance.contrast), _ENHANCE, "sign"),
    "sharpness": Operation(enhanced(enhance.sharpness), _ENHANCE, "sign"),
    "brightness": Operation(enhanced(enhance.brightness), _ENHANCE, "sign"),
    "autocontrast": Operation(autocontrast, _UNUSED),
    "equalize": Operation(equalize, _UNUSED),
    "invert": Operation(invert, _UNUSED),
    "cutout": Operation(black_square, np.linspace(0, 20, 10).round(), "centre"),
}


def magnitude(op: str, index: int) -> float:
    """Return the strength of operation `op` at `index`, 1 (weakest) to 9; without its sign."""
    if not 1 <= index <= 9:
        raise ValueError(f"magnitude index {index} is not in 1..9")
    return float(OPERATIONS[op].magnitudes[index])


def apply_randomly(
    image: np.ndarray, rng: np.random.Generator, *, name: str, strength: float
) -> np.ndarray:
    """Operation `name`, in either direction or at any place, where it leaves that to chance."""
    operation = OPERATIONS[name]
    if operation.drawn == "centre":
        # Both edges count, as in the original.
        y, x = rng.integers(0, image.shape[:2], endpoint=True).tolist()
        return operation.apply(image, strength, centre=(y, x))
    if operation.drawn == "sign" and rng.random() < 0.5:
        strength = -strength
    return operation.apply(image, strength)


def _whole(offset: float, side: int) -> int:
    """Return by how many pixels Pillow moves a picture of this side."""
    return max(-side, min(side, math.floor(offset + 0.5)))


def _moved(image: np.ndarray, left: int, up: int) -> np.ndarray:
    """Return a copy moved by whole pixels; grey comes in."""
    part = image[max(up, 0) : len(image) + min(up, 0)]
    part = part[:, max(left, 0) : image.shape[1] + min(left, 0)]
    if not part.size:
        return np.full_like(image, GREY[0])
    edges = max(-up, 0), max(up, 0), max(-left, 0), max(left, 0)
    return cv2.copyMakeBorder(part, *edges, cv2.BORDER_CONSTANT, value=GREY)
