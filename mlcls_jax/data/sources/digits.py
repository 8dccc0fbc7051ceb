"""The embedded data set: boards of handwritten digits, labelled with the digits present.

Needs no download: scikit-learn carries 1,797 real digits of 8 × 8 pixels. Every board is composed
on the fly from its number; training and validation boards use different digits.
"""

import functools
from typing import Any

import numpy as np
from PIL import Image

from mlcls_jax.config import Data
from mlcls_jax.data.fingerprint import digest
from mlcls_jax.data.types import Split

SIZE = 64  # side of a board; it has 2 × 2 cells
DIGIT_SIZES = (26, 28, 30, 32)
EMPTY_PROBABILITY = 0.6  # of a cell
TRAIN_BOARDS = 1_000_000  # a training board is practically never seen twice
VALIDATION_SHARE = 5  # every fifth digit


class DigitBoards:
    """Board `i` is a pure function of `salt` and `i`."""

    labels = tuple(str(digit) for digit in range(10))

    def __init__(self, digits: np.ndarray, classes: np.ndarray, *, length: int, salt: int) -> None:
        self._classes = classes  # [n]
        self._digits = {size: _enlarge(digits, size) for size in DIGIT_SIZES}  # [n, size, size]
        self._length, self._salt = length, salt

    def __len__(self) -> int:
        return self._length

    def fingerprint(self) -> dict[str, str]:
        """Return a digest of the labels of the digits that boards are made of."""
        return {"digits": digest([self._classes.astype(np.int64).tobytes()])}

    def name(self, index: int) -> str:
        return f"board_{index:06d}"

    def place(self, index: int) -> str:
        return f"digits: {self.name(index)}"

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.Generator(np.random.PCG64([self._salt, index]))
        ink = np.zeros((SIZE, SIZE), np.float32)
        target = np.zeros(10, np.float32)
        filled = rng.random(4) >= EMPTY_PROBABILITY
        if not filled.any():
            filled[rng.integers(4)] = True
        half = SIZE // 2
        for cell in np.flatnonzero(filled):
            chosen = rng.integers(len(self._classes))
            size = DIGIT_SIZES[rng.integers(len(DIGIT_SIZES))]
            # A little off the cell's centre, but always whole.
            top, left = (half - size) // 2 + rng.integers(-2, 3, size=2)
            top = np.clip(top + cell // 2 * half, 0, SIZE - size)
            left = np.clip(left + cell % 2 * half, 0, SIZE - size)
            area = ink[top : top + size, left : left + size]
            np.maximum(area, self._digits[size][chosen], out=area)
            target[self._classes[chosen]] = 1.0
        paper, pen = rng.uniform(0.0, 0.15, 3), rng.uniform(0.75, 1.0, 3)
        image = paper + ink[:, :, None] * (pen - paper)
        return (image * 255.0 + 0.5).astype(np.uint8), target


def open_split(config: Data, split: Split) -> DigitBoards:
    """Training or validation boards; they use different digits."""
    return _boards(split, TRAIN_BOARDS if split == "train" else config.val_size)


@functools.cache  # runs of one process share them
def _boards(split: Split, length: int) -> DigitBoards:
    from sklearn.datasets import load_digits

    data: Any = load_digits()  # a Bunch, which its stub takes for a pair
    is_validation = np.arange(len(data.target)) % VALIDATION_SHARE == 0
    chosen, salt = (~is_validation, 1) if split == "train" else (is_validation, 2)
    return DigitBoards(data.images[chosen] / 16.0, data.target[chosen], length=length, salt=salt)


def _enlarge(digits: np.ndarray, size: int) -> np.ndarray:
    """Return digits [n, 8, 8] in 0…1 as float32 [n, size, size]."""
    images = (Image.fromarray(digit.astype(np.float32)) for digit in digits)
    scaled = [np.asarray(im.resize((size, size), Image.Resampling.BICUBIC)) for im in images]
    return np.clip(np.stack(scaled), 0.0, 1.0)
