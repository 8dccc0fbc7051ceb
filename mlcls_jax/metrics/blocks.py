"""Checks of scores and targets, and their rows in blocks that need little memory."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike

BLOCK = 2**23  # entries per block


def check(scores: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return both as arrays; reject wrong shapes and non-finite scores."""
    scores, targets = np.asarray(scores), np.asarray(targets)
    if scores.ndim != 2 or scores.shape != targets.shape or scores.size == 0:
        raise ValueError(
            f"scores {scores.shape} and targets {targets.shape} must both be "
            "[images, classes], alike and not empty"
        )
    count, first = 0, None
    for rows in row_blocks(scores):
        is_finite = np.isfinite(wide(scores[rows]))
        if not is_finite.all():
            if first is None:
                row, column = np.argwhere(~is_finite)[0]
                first = row + rows.start, column
            count += is_finite.size - np.count_nonzero(is_finite)
    if first is not None:
        raise ValueError(
            f"{count} of {scores.size} scores are not finite; the first "
            f"is {float(scores[first])} of image {first[0]}, class {first[1]}"
        )
    return scores, targets


def row_blocks(array: np.ndarray) -> Iterator[slice]:
    """Yield slices of rows of [N, K] with at most `BLOCK` entries each, and at least one row."""
    height = max(1, BLOCK // max(1, array.shape[1]))
    return (slice(start, start + height) for start in range(0, len(array), height))


def annotated_columns(
    scores: np.ndarray, targets: np.ndarray
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yield the number, scores and positives of each class [n], of its annotated entries."""
    for k, column, positives, known in columns_of(scores, targets):
        rows = slice(None) if known.all() else known
        yield k, column[rows], positives[rows]


def columns_of(
    scores: np.ndarray, targets: np.ndarray
) -> Iterator[tuple[int, np.ndarray, np.ndarray, np.ndarray]]:
    """Yield the number, scores, positives and annotated entries of each class, [N] each.

    Classes are taken out in blocks, since one by one each would read the whole arrays.
    """
    width = max(1, BLOCK // len(scores))
    for start in range(0, scores.shape[1], width):
        columns = (np.ascontiguousarray(a[:, start : start + width].T) for a in (scores, targets))
        for k, (column, truth) in enumerate(zip(*columns, strict=True), start=start):
            yield k, wide(column), *labels_of(truth)


def wide(scores: np.ndarray) -> np.ndarray:
    """Return scores as float32 or float64; no copy if they are already."""
    return scores if scores.dtype in (np.float32, np.float64) else scores.astype(np.float64)


def labels_of(targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return bool masks, shaped like `targets`, of the labels present and of those annotated."""
    return (targets >= 1) & (targets < 2), targets >= 0


def ratio(numerator: ArrayLike, denominator: ArrayLike) -> np.ndarray:
    """Divide elementwise, with 0 for a denominator of 0."""
    denominator = np.asarray(denominator)
    return np.where(denominator > 0, numerator / np.maximum(denominator, 1), 0.0)


def harmonic_mean(a: float | np.ndarray, b: float | np.ndarray) -> np.ndarray:
    """Return the elementwise harmonic mean, 0 where both are 0."""
    total = np.add(a, b)
    return np.where(total > 0, 2 * np.multiply(a, b) / np.where(total > 0, total, 1.0), 0.0)
