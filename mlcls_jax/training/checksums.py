"""Checksums of the arrays of a training state, the same under every layout.

An array counts as whole numbers of 64 bits, one an element, made of its bits. Along every axis they
are multiplied by odd random numbers, a fixed one for each index, and added up modulo 2^64. Parts of
an array can be added up in any order and on any host, so nothing is gathered; SHA-256 would need
the whole array in one place. A single changed element always changes the sum, several ones leave it
with a probability of some 2^-60 (multilinear hashing: Carter and Wegman, 1979).
"""

from functools import lru_cache
from typing import Any

import jax
import numpy as np

from mlcls_jax import parallel
from mlcls_jax.trees import by_path

_BLOCK = 2**18  # elements that are widened to 64 bits at once


def checksums(state: Any) -> dict[str, str]:
    """Return 16 hexadecimal digits per array, by its path; all processes take part."""
    arrays = by_path(state)
    parts = np.array([_of_process(array) for array in arrays.values()], np.uint64)
    totals = zip(arrays, parallel.add_up(parts), strict=True)
    return {path: f"{total:016x}" for path, total in totals}


def _of_process(array: jax.Array | np.ndarray) -> int:
    """Return the sum of the parts that this process has; of copies, one counts among all."""
    if isinstance(array, np.ndarray):
        return _of_part(array, (slice(None),) * array.ndim, array.shape) % 2**64
    mine = (shard for shard in array.addressable_shards if shard.replica_id == 0)
    return sum(_of_part(np.asarray(s.data), s.index, array.shape) for s in mine) % 2**64


def _of_part(part: np.ndarray, index: tuple[slice, ...], shape: tuple[int, ...]) -> int:
    keys = [_keys(axis, shape[axis])[where] for axis, where in enumerate(index)]
    bits = part.view(f"u{part.itemsize}")
    if not keys:
        return int(bits)
    total, rows = 0, max(1, _BLOCK * len(bits) // max(bits.size, 1))
    for start in range(0, len(bits), rows):
        sums = bits[start : start + rows].astype(np.uint64)
        for key in reversed(keys[1:]):
            sums = sums @ key  # integers wrap
        total += int(sums @ keys[0][start : start + rows])
    return total


@lru_cache(maxsize=1024)
def _keys(axis: int, size: int) -> np.ndarray:
    """Return the odd numbers of an axis; NumPy promises that this stream never changes."""
    return np.random.PCG64(axis).random_raw(size) | np.uint64(1)
