"""Position embeddings and biases of one grid of cells, resampled to another."""

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def resample_positions(
    positions: Float[Array | np.ndarray, "1 M C"], stored: int, grid: tuple[int, int]
) -> Float[Array | np.ndarray, "1 N C"]:
    """Positions of `grid` patches from those of `stored` x `stored`; the class token's stays."""
    if grid == (stored, stored):
        return positions
    xp = np if isinstance(positions, np.ndarray) else jnp
    first, patches = positions[:, :1], positions[0, 1:].reshape(stored, stored, -1)
    rows, columns = (xp.asarray(_bicubic(stored, n), positions.dtype) for n in grid)
    patches = xp.einsum("yi,xj,ijc->yxc", rows, columns, patches)
    return xp.concatenate([first, patches.reshape(1, grid[0] * grid[1], -1)], axis=1)


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
    a = -0.75
    matrix = np.zeros((new, old))
    for row in range(new):
        centre = (row + 0.5) * old / new - 0.5
        left = math.floor(centre)
        for tap in range(left - 1, left + 3):
            t = abs(centre - tap)
            if t <= 1:
                weight = (a + 2) * t**3 - (a + 3) * t**2 + 1
            else:
                weight = a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a
            matrix[row, min(max(tap, 0), old - 1)] += weight
    return matrix
