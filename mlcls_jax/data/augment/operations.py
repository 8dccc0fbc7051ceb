"""The changes of form and colour that the policies draw from, by Pillow.

Each takes uint8 [H, W, 3] and a strength, and returns an array of the same shape; the input is
only read. Equal to PaddleClas' pixels (`ppcls/data/preprocess/ops/randaugment.py`) bit for bit.
"""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from mlcls_jax.data.augment.erase import with_box

GREY = (128, 128, 128)


def shear_x(image: np.ndarray, slope: float) -> np.ndarray:
    """Shift every row by `slope` times its number, to the left where positive; grey comes in."""
    return _affine(image, (1, slope, 0, 0, 1, 0), resampling=Image.Resampling.BICUBIC)


def shear_y(image: np.ndarray, slope: float) -> np.ndarray:
    """Shift every column by `slope` times its number, upwards where positive; grey comes in."""
    return _affine(image, (1, 0, 0, slope, 1, 0), resampling=Image.Resampling.BICUBIC)


def translate_x(image: np.ndarray, share: float) -> np.ndarray:
    """Shift by a share of the width, to the left where positive; grey comes in."""
    offset = share * image.shape[1]
    return _affine(image, (1, 0, offset, 0, 1, 0), resampling=Image.Resampling.NEAREST)


def translate_y(image: np.ndarray, share: float) -> np.ndarray:
    """Shift by a share of the height, upwards where positive; grey comes in."""
    offset = share * image.shape[0]
    return _affine(image, (1, 0, 0, 0, 1, offset), resampling=Image.Resampling.NEAREST)


def rotate(image: np.ndarray, degrees: float) -> np.ndarray:
    """Turn around the centre, counter-clockwise where positive; grey comes in."""
    turned = Image.fromarray(image).rotate(degrees, Image.Resampling.NEAREST, fillcolor=GREY)
    return np.array(turned)


def color(image: np.ndarray, change: float) -> np.ndarray:
    """More saturated by `change`, or paler where negative; -1 is grey."""
    return np.array(ImageEnhance.Color(Image.fromarray(image)).enhance(1 + change))


def contrast(image: np.ndarray, change: float) -> np.ndarray:
    """More contrast by `change`, or less where negative; -1 is one grey."""
    return np.array(ImageEnhance.Contrast(Image.fromarray(image)).enhance(1 + change))


def sharpness(image: np.ndarray, change: float) -> np.ndarray:
    """Sharper by `change`, or smoother where negative."""
    return np.array(ImageEnhance.Sharpness(Image.fromarray(image)).enhance(1 + change))


def brightness(image: np.ndarray, change: float) -> np.ndarray:
    """Brighter by `change`, or darker where negative; -1 is black."""
    return np.array(ImageEnhance.Brightness(Image.fromarray(image)).enhance(1 + change))


def posterize(image: np.ndarray, bits: float) -> np.ndarray:
    """Keep the highest bits, 1 to 8, of every value."""
    return np.array(ImageOps.posterize(Image.fromarray(image), int(bits)))


def solarize(image: np.ndarray, threshold: float) -> np.ndarray:
    """Invert the values from `threshold` on; 0 inverts them all."""
    return np.array(ImageOps.solarize(Image.fromarray(image), math.ceil(threshold)))


def autocontrast(image: np.ndarray, _: float) -> np.ndarray:
    """Stretch every channel to 0..255."""
    return np.array(ImageOps.autocontrast(Image.fromarray(image)))


def equalize(image: np.ndarray, _: float) -> np.ndarray:
    """Make all values of a channel about equally frequent."""
    return np.array(ImageOps.equalize(Image.fromarray(image)))


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
    "shearX": Operation(shear_x, np.linspace(0, 0.3, 10), "sign"),
    "shearY": Operation(shear_y, np.linspace(0, 0.3, 10), "sign"),
    "translateX": Operation(translate_x, np.linspace(0, 150 / 331, 10), "sign"),
    "translateY": Operation(translate_y, np.linspace(0, 150 / 331, 10), "sign"),
    "rotate": Operation(rotate, np.linspace(0, 30, 10), "sign"),
    "color": Operation(color, _ENHANCE, "sign"),
    "posterize": Operation(posterize, np.linspace(8, 4, 10).round()),
    "solarize": Operation(solarize, np.linspace(256, 0, 10)),
    "contrast": Operation(contrast, _ENHANCE, "sign"),
    "sharpness": Operation(sharpness, _ENHANCE, "sign"),
    "brightness": Operation(brightness, _ENHANCE, "sign"),
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


def _affine(
    image: np.ndarray, matrix: tuple[float, ...], *, resampling: Image.Resampling
) -> np.ndarray:
    source = Image.fromarray(image)
    moved = source.transform(
        source.size, Image.Transform.AFFINE, matrix, resampling, fillcolor=GREY
    )
    return np.array(moved)
