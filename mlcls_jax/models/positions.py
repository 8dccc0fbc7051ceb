"""Positions of a grid of cells: embeddings and biases of another grid resampled, and rotations."""

import math
from typing import Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def resample_positions(
    positions: Float[Array, "1 M C"],
    stored: int,
    grid: tuple[int, int],
    *,
    antialias: bool = False,
) -> Float[Array, "1 N C"]:
    """Positions of `grid` patches from those of `stored` x `stored`; a class token's stays.

    PyTorch's bicubic resampling, with its `antialias` (as timm has it) or without (as Paddle).
    """
    if grid == (stored, stored):
        return positions
    before = positions.shape[1] - stored**2
    first, patches = positions[:, :before], positions[0, before:].reshape(stored, stored, -1)
    matrix = _antialiased if antialias else _bicubic
    rows, columns = (jnp.asarray(matrix(stored, n), positions.dtype) for n in grid)
    patches = jnp.einsum("yi,xj,ijc->yxc", rows, columns, patches)
    return jnp.concatenate([first, patches.reshape(1, grid[0] * grid[1], -1)], axis=1)


def _cubic(t: float, a: float) -> float:
    if t <= 1:
        return (a + 2) * t**3 - (a + 3) * t**2 + 1
    return a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a if t < 2 else 0.0


def resample_biases(
    table: Float[Array | np.ndarray, "M heads"], stored: int, window: tuple[int, int]
) -> Float[Array | np.ndarray, "N heads"]:
    """Biases of the ways between cells of `window` from those of `stored` x `stored` cells.

    As BEiT does: linear between ways that lie the denser, the nearer the cells, so that the
    longest way of the old window is that of the new one.
    """
    if window == (stored, stored):
        return table
    xp = np if isinstance(table, np.ndarray) else jnp
    rows, columns = (xp.asarray(_stretched(stored, n), table.dtype) for n in window)
    square = table.reshape(2 * stored - 1, 2 * stored - 1, -1)
    return xp.einsum("yi,xj,ijh->yxh", rows, columns, square).reshape(-1, table.shape[-1])


def _stretched(old: int, new: int) -> np.ndarray:
    """Matrix [2 new - 1, 2 old - 1]: places of the old ways grow by a factor q, 1.01 at least."""
    low, high = 1.01, 1.5
    while high - low > 1e-6:
        q = (low + high) / 2
        low, high = (low, q) if (1 - q ** (old - 1)) / (1 - q) > new - 1 else (q, high)
    ways = np.concatenate([[0], np.cumsum(q ** np.arange(old - 1))])
    places = np.concatenate([-ways[:0:-1], ways])
    wanted = np.arange(1.0 - new, new)
    return np.stack([np.interp(wanted, places, one) for one in np.eye(2 * old - 1)], 1)


def _bicubic(old: int, new: int) -> np.ndarray:
    """Matrix [new, old]: cubic convolution, A = -0.75, half-pixel centres, clamped at the edges."""
    matrix = np.zeros((new, old))
    for row in range(new):
        centre = (row + 0.5) * old / new - 0.5
        left = math.floor(centre)
        for tap in range(left - 1, left + 3):
            matrix[row, min(max(tap, 0), old - 1)] += _cubic(abs(centre - tap), -0.75)
    return matrix


def _antialiased(old: int, new: int) -> np.ndarray:
    """Matrix [new, old]: A = -0.5, widened where there are fewer; weights inside add up to 1."""
    scale = max(old / new, 1.0)
    centres = (np.arange(new) + 0.5) * old / new
    matrix = np.zeros((new, old))
    for row, centre in enumerate(centres):
        begin, end = int(centre - 2 * scale + 0.5), int(centre + 2 * scale + 0.5)
        for tap in range(max(begin, 0), min(end, old)):
            matrix[row, tap] = _cubic(abs(tap + 0.5 - centre) / scale, -0.5)
    return matrix / matrix.sum(1, keepdims=True)


class Rotation(NamedTuple):
    """By how much each token's queries and keys are turned."""

    cos: Float[np.ndarray, "N d"]
    sin: Float[np.ndarray, "N d"]
    is_half: bool  # value i is turned with i + d / 2, not 2 i with 2 i + 1


def rotation(
    kind: Literal["eva02", "dinov3"], grid: tuple[int, int], dim: int, *, prefix: int
) -> Rotation:
    """Return the turns of `dim` values of a head for rows and columns; `prefix` tokens stay."""
    if kind == "eva02":  # as if the grid were the 16 x 16 of its first training
        axes = [np.arange(side) / side * 16 for side in grid]
        speeds = 10000.0 ** -(np.arange(dim // 4) / (dim // 4))
    else:  # centres of patches from -1 to 1
        axes = [2 * (np.arange(side) + 0.5) / side - 1 for side in grid]
        speeds = 2 * np.pi * 100.0 ** -(2 * np.arange(dim // 4) / (dim // 2))
    places = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2, 1)  # [N, 2, 1]
    angles = (places * speeds).reshape(len(places), -1)  # [N, d / 2]
    is_half = kind == "dinov3"
    angles = np.tile(angles, (1, 2)) if is_half else np.repeat(angles, 2, axis=1)
    angles = np.concatenate([np.zeros((prefix, dim)), angles])
    return Rotation(np.cos(angles), np.sin(angles), is_half)


def rotate(x: Float[Array, "B N heads d"], turn: Rotation) -> Float[Array, "B N heads d"]:
    """Turn pairs of values of each head."""
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    cos, sin = (jnp.asarray(t, wide.dtype)[:, None] for t in (turn.cos, turn.sin))
    if turn.is_half:
        first, second = jnp.split(wide, 2, axis=-1)
        other = jnp.concatenate([-second, first], axis=-1)
    else:
        pairs = wide.reshape(*wide.shape[:-1], -1, 2)
        other = jnp.concatenate([-pairs[..., 1:], pairs[..., :1]], axis=-1).reshape(wide.shape)
    return (wide * cos + other * sin).astype(x.dtype)
