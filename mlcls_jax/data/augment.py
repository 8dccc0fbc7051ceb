"""Training augmentation: pictures uint8 [H, W, 3] in, pictures of the same size out.

A new augmentation is one function and one line in `AUGMENTATIONS`. None of them writes to its
input, which may be the data set's own array.
"""

import difflib
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from mlcls_jax.errors import ConfigError

Augmentation = Callable[[np.ndarray, np.random.Generator], np.ndarray]

GREY = (128, 128, 128)


def shear_x(image: np.ndarray, slope: float) -> np.ndarray:
    """Shifts every row by `slope` times its number, to the left where positive; grey comes in."""
    return _affine(image, (1, slope, 0, 0, 1, 0), resampling=Image.Resampling.BICUBIC)


def shear_y(image: np.ndarray, slope: float) -> np.ndarray:
    """Shifts every column by `slope` times its number, upwards where positive; grey comes in."""
    return _affine(image, (1, 0, 0, slope, 1, 0), resampling=Image.Resampling.BICUBIC)


def translate_x(image: np.ndarray, share: float) -> np.ndarray:
    """Shifts by a share of the width, to the left where positive; grey comes in."""
    offset = share * image.shape[1]
    return _affine(image, (1, 0, offset, 0, 1, 0), resampling=Image.Resampling.NEAREST)


def translate_y(image: np.ndarray, share: float) -> np.ndarray:
    """Shifts by a share of the height, upwards where positive; grey comes in."""
    offset = share * image.shape[0]
    return _affine(image, (1, 0, 0, 0, 1, offset), resampling=Image.Resampling.NEAREST)


def rotate(image: np.ndarray, degrees: float) -> np.ndarray:
    """Turns around the centre, counter-clockwise where positive; grey comes in."""
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
    """Keeps the highest bits, 1 to 8, of every value."""
    return np.array(ImageOps.posterize(Image.fromarray(image), int(bits)))


def solarize(image: np.ndarray, threshold: float) -> np.ndarray:
    """Inverts the values from `threshold` on; 0 inverts them all."""
    return np.array(ImageOps.solarize(Image.fromarray(image), threshold))


def autocontrast(image: np.ndarray, _: float) -> np.ndarray:
    """Stretches every channel to 0..255."""
    return np.array(ImageOps.autocontrast(Image.fromarray(image)))


def equalize(image: np.ndarray, _: float) -> np.ndarray:
    """Makes all values of a channel about equally frequent."""
    return np.array(ImageOps.equalize(Image.fromarray(image)))


def invert(image: np.ndarray, _: float) -> np.ndarray:
    """The negative."""
    return 255 - image


def black_square(image: np.ndarray, half: float, *, centre: tuple[int, int]) -> np.ndarray:
    """Blackens a square of side 2 · `half` around `centre` = (y, x), as far as it is inside."""
    (y, x), half = centre, int(half)
    return _fill(image, (0, 0, 0), start=(y - half, x - half), stop=(y + half, x + half))


class Operation(NamedTuple):
    """One of RandAugmentV4's operations."""

    apply: Callable[..., np.ndarray]  # of image and magnitude, and of the centre if that is drawn
    magnitudes: np.ndarray  # by index 0..9; 0 is never drawn
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
    """How strong operation `op` is at `index`, 1 (weakest) to 9; without its sign."""
    if not 1 <= index <= 9:
        raise ValueError(f"magnitude index {index} is not in 1..9")
    return float(OPERATIONS[op].magnitudes[index])


def rand_augment_v4(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Two operations of random kind and strength, each of them left out with probability 0.5.

    PaddleClas' `RandAugmentV4`, which the ML-Decoder recipes train with: the ordered pair is one
    of 135 x 135, all equally likely, and an operation may meet itself. One thing differs: there
    every rotation is counter-clockwise, here either direction is as likely.
    """
    names = tuple(OPERATIONS)
    for kind, index in rng.integers((0, 1), (len(names), 10), (2, 2)).tolist():
        if rng.random() < 0.5:
            image = _apply_randomly(image, rng, name=names[kind], index=index)
    return image


def cutout(image: np.ndarray, rng: np.random.Generator, *, length: int) -> np.ndarray:
    """Paints a square in one random colour around a random pixel, as far as it is inside.

    PaddleClas' `Cutout` with one hole and no fill value. As there both ends of the square are
    painted: for an even `length` its side is one pixel more.
    """
    height, width = image.shape[:2]
    y, x = rng.integers(0, (height, width)).tolist()
    half = length // 2
    colour = rng.integers(0, 256, 3)
    return _fill(image, colour, start=(y - half, x - half), stop=(y + half + 1, x + half + 1))


def half_cutout(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """`cutout` of half the shorter side: the recipes' 224 at their 448 x 448."""
    return cutout(image, rng, length=min(image.shape[:2]) // 2)


# name in data.augment → function
AUGMENTATIONS: dict[str, Augmentation] = {
    "cutout": half_cutout,
    "randaugment_v4": rand_augment_v4,
}


def augmentations(names: Sequence[str]) -> list[Augmentation]:
    """The functions that data.augment names, in its order.

    Raises:
      ConfigError: lists every unknown name, with the nearest right one.
    """
    if unknown := [name for name in names if name not in AUGMENTATIONS]:
        raise ConfigError("\n".join(_unknown_name(name) for name in unknown))
    return [AUGMENTATIONS[name] for name in names]


def _unknown_name(name: str) -> str:
    close = difflib.get_close_matches(name, AUGMENTATIONS, n=1)
    hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(AUGMENTATIONS)}."
    return f"data.augment has {name!r}: there is no such augmentation; {hint}"


def _apply_randomly(
    image: np.ndarray, rng: np.random.Generator, *, name: str, index: int
) -> np.ndarray:
    operation, strength = OPERATIONS[name], magnitude(name, index)
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


def _fill(
    image: np.ndarray, colour: Sequence[int], *, start: tuple[int, int], stop: tuple[int, int]
) -> np.ndarray:
    """A copy with the box from `start` = (y, x) up to `stop`, not included, in one colour."""
    (top, left), (bottom, right) = start, stop
    filled = image.copy()
    filled[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)] = colour
    return filled
