"""Position embeddings of one grid of patches, resampled to another."""

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
