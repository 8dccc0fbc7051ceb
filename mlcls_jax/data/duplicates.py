"""Finding equal and nearly equal numbers among many, without comparing all with all."""

from itertools import combinations

import numpy as np

ALIKE = 2  # bits of 64 that may differ
_BANDS = 4


def first_equal(keys: np.ndarray) -> np.ndarray:
    """For every one of keys [N] the position of the first that equals it: int64 [N]."""
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    return first[inverse]


def first_alike(looks: np.ndarray) -> np.ndarray:
    """For every hash uint64 [N] the position of the first that differs in at most `ALIKE` bits.

    Found for sure, and no others: two changed bits leave two of four bands of 16 bits as they are,
    so only hashes that share two bands are compared. A hash without such a one before it gives
    its own position.
    """
    values, first, inverse = np.unique(looks, return_index=True, return_inverse=True)
    partner = first.copy()  # [U], of U different hashes
    bands = [values >> np.uint64(16 * i) & np.uint64(0xFFFF) for i in range(_BANDS)]
    for one, other in combinations(bands, 2):
        keys = one << np.uint64(16) | other
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        # Equal keys stand side by side: compare every hash with the next, the one after, …
        here, step = np.arange(len(keys)), 0
        while len(here):
            step += 1
            here = here[here + step < len(keys)]
            here = here[keys[here] == keys[here + step]]
            left, right = order[here], order[here + step]
            is_near = np.bitwise_count(values[left] ^ values[right]) <= ALIKE
            left, right = left[is_near], right[is_near]
            np.minimum.at(partner, left, first[right])
            np.minimum.at(partner, right, first[left])
    return partner[inverse]
