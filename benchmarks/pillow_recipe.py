"""The recipe's augmentation as one writes it with Pillow: the peer, and the reference of tests.

Pictures stay Pillow's from one operation to the next. The draws are those of
`mlcls_jax.data.augment`, so the pixels are the same.
"""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from mlcls_jax.data.augment import OPERATIONS as OURS
from mlcls_jax.data.augment import magnitude

GREY = (128, 128, 128)
AFFINE, NEAREST, BICUBIC = (
    Image.Transform.AFFINE,
    Image.Resampling.NEAREST,
    Image.Resampling.BICUBIC,
)


def affine(
    image: Image.Image, matrix: tuple[float, ...], resampling: Image.Resampling
) -> Image.Image:
    return image.transform(image.size, AFFINE, matrix, resampling, fillcolor=GREY)


def box(
    image: Image.Image, centre: tuple[int, int], before: int, after: int, colour: tuple[int, ...]
) -> Image.Image:
    """Paint around `centre` = (y, x), from `before` pixels before it up to `after` pixels after."""
    (y, x), (width, height) = centre, image.size
    left, top = max(x - before, 0), max(y - before, 0)
    changed = image.copy()
    changed.paste(colour, (left, top, min(x + after, width), min(y + after, height)))
    return changed


OPERATIONS: dict[str, Callable[..., Image.Image]] = {
    "shearX": lambda i, slope: affine(i, (1, slope, 0, 0, 1, 0), BICUBIC),
    "shearY": lambda i, slope: affine(i, (1, 0, 0, slope, 1, 0), BICUBIC),
    "translateX": lambda i, share: affine(i, (1, 0, share * i.width, 0, 1, 0), NEAREST),
    "translateY": lambda i, share: affine(i, (1, 0, 0, 0, 1, share * i.height), NEAREST),
    "rotate": lambda i, degrees: i.rotate(degrees, NEAREST, fillcolor=GREY),
    "color": lambda i, change: ImageEnhance.Color(i).enhance(1 + change),
    "posterize": lambda i, bits: ImageOps.posterize(i, int(bits)),
    "solarize": lambda i, threshold: ImageOps.solarize(i, threshold),
    "contrast": lambda i, change: ImageEnhance.Contrast(i).enhance(1 + change),
    "sharpness": lambda i, change: ImageEnhance.Sharpness(i).enhance(1 + change),
    "brightness": lambda i, change: ImageEnhance.Brightness(i).enhance(1 + change),
    "autocontrast": lambda i, _: ImageOps.autocontrast(i),
    "equalize": lambda i, _: ImageOps.equalize(i),
    "invert": lambda i, _: ImageOps.invert(i),
    "cutout": lambda i, half, centre: box(i, centre, int(half), int(half), (0, 0, 0)),
}


def augment(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Cutout of half the shorter side, then `RandAugmentV4`."""
    shape = image.height, image.width
    centre = rng.integers(0, shape).tolist()
    half = min(shape) // 2 // 2
    image = box(image, centre, half, half + 1, tuple(rng.integers(0, 256, 3).tolist()))
    names = tuple(OPERATIONS)
    for kind, index in rng.integers((0, 1), (len(names), 10), (2, 2)).tolist():
        if rng.random() < 0.5:
            name, drawn = names[kind], OURS[names[kind]].drawn
            strength = magnitude(name, index)
            if drawn == "centre":
                centre = rng.integers(0, shape, endpoint=True).tolist()
                image = OPERATIONS[name](image, strength, centre=centre)
            else:
                sign = -1 if drawn == "sign" and rng.random() < 0.5 else 1
                image = OPERATIONS[name](image, sign * strength)
    return image
