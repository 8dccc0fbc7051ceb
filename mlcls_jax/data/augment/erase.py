"""Augmentations that hide parts of a picture, so that no single part is needed to know a label.

Sizes are shares of the shorter side: the originals' pixels, which are meant for 224 x 224, over
224. PaddleClas erases pictures that are normalised already, with zeros; that is the mean colour,
which is painted here.
"""

from collections.abc import Sequence
from itertools import product

import numpy as np

from mlcls_jax.imagenet import MEAN

MEAN_COLOUR = tuple(round(255 * mean) for mean in MEAN)
CELLS = tuple(cell / 224 for cell in (0, 16, 32, 44, 56))  # hide_and_seek


def cutout(image: np.ndarray, rng: np.random.Generator, *, length: int) -> np.ndarray:
    """Paint a square in one random colour around a random pixel, as far as it is inside.

    DeVries and Taylor, 2017. PaddleClas' `Cutout` with one hole and no fill value. As there both
    ends of the square are painted: for an even `length` its side is one pixel more.
    """
    height, width = image.shape[:2]
    y, x = rng.integers(0, (height, width)).tolist()
    half = length // 2
    colour = rng.integers(0, 256, 3).tolist()
    return with_box(image, colour, start=(y - half, x - half), stop=(y + half + 1, x + half + 1))


def half_cutout(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """`cutout` of half the shorter side: the recipes' 224 at their 448 x 448."""
    return cutout(image, rng, length=min(image.shape[:2]) // 2)


def random_erasing(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Hides, half the time, a box of 2 to 40 % of the area, its height 0.3 to 3.3 times its width.

    Zhong et al., 2020, with their values and PaddleClas' (`RandomErasing`, mode const): the aspect
    is drawn uniformly, so that upright boxes are the more frequent ones. A box that does not fit
    is drawn again, 100 times at most.
    """
    if rng.random() >= 0.5:
        return image
    height, width = image.shape[:2]
    for _ in range(100):
        area = rng.uniform(0.02, 0.4) * height * width
        aspect = rng.uniform(0.3, 1 / 0.3)
        h, w = round((area * aspect) ** 0.5), round((area / aspect) ** 0.5)
        if h < height and w < width:
            y, x = rng.integers(0, (height - h, width - w), endpoint=True).tolist()
            return with_box(image, MEAN_COLOUR, start=(y, x), stop=(y + h, x + w))
    return image


def hide_and_seek(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Hide each cell of a grid with probability 0.5; one time in five there is no grid.

    Singh and Lee, 2017; PaddleClas' `HideAndSeek`, which mixes up the axes of pictures that are
    not square.
    """
    height, width = image.shape[:2]
    share = CELLS[rng.integers(len(CELLS))]
    if share == 0:
        return image
    cell = max(1, round(share * min(height, width)))
    hidden = rng.random((-(-height // cell), -(-width // cell))) < 0.5
    changed = image.copy()
    for y, x in (cell * np.argwhere(hidden)).tolist():
        changed[y : y + cell, x : x + cell] = MEAN_COLOUR
    return changed


def grid_mask(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Hides, half the time, a lattice of squares that covers a quarter of the picture.

    Chen et al., 2020: the squares' sides are half their distance, which lies between 96/224 of the
    shorter side and all of it. Two things differ from PaddleClas' `GridMask`. Its default, mode 0,
    hides what lies *between* the squares, three quarters of the picture; here it is the squares,
    as in the paper. Its probability grows with the epochs; here it is constant, so that a picture
    depends on the seed and its place in the stream alone.
    """
    if rng.random() >= 0.5:
        return image
    height, width = image.shape[:2]
    distance = rng.uniform(96 / 224, 1) * min(height, width)
    down, right = rng.uniform(0, distance, 2).tolist()
    changed = image.copy()
    for top, left in product(_starts(down, distance, height), _starts(right, distance, width)):
        stop = round(top + distance / 2), round(left + distance / 2)
        _paint(changed, MEAN_COLOUR, start=(round(top), round(left)), stop=stop)
    return changed


def with_box(
    image: np.ndarray, colour: Sequence[int], *, start: tuple[int, int], stop: tuple[int, int]
) -> np.ndarray:
    """Copy with the box from `start` = (y, x) up to `stop`, not included, in one colour."""
    changed = image.copy()
    _paint(changed, colour, start=start, stop=stop)
    return changed


def _paint(
    image: np.ndarray, colour: Sequence[int], *, start: tuple[int, int], stop: tuple[int, int]
) -> None:
    (top, left), (bottom, right) = start, stop
    box = image[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
    # By whole rows: much faster than three bytes at a time.
    box[:1] = colour
    box[1:] = box[:1]


def _starts(first: float, distance: float, side: int) -> np.ndarray:
    """Return where squares begin along one side; the first may begin outside."""
    return np.arange(first - distance, side, distance)
