"""Finding equal and nearly equal pictures among many, without comparing all with all.

A hash of 64 bits says which pairs may be alike; a closer look at both says whether they are.
"""

from itertools import combinations, pairwise

import numpy as np
from PIL import Image

ALIKE = 6  # bits of 64 that may differ
_BANDS = (0, 7, 14, 21, 28, 35, 42, 49, 56, 64)  # 6 changed bits leave 3 of 9 as they are
_NEIGHBOURS = 32  # that a hash is compared with of those that share three bands with it
_MOST = 8  # candidates kept of each picture
_SIDE = 17  # pixels of the closer look
# Photographs that were recompressed, resized or brightened stay far below both; docs/data.md.
_MAX_BITS = 0.14  # share of neighbouring pixels that may differ in which one is brighter
_MAX_DIFFERENCE = 0.4  # root mean square, in standard deviations
_LEAST_DETAIL = 4.0  # standard deviation of grey values, of 255
_SMOOTH = np.linalg.qr(  # a basis of all slopes, [pixels, 3]
    np.stack([np.ones(_SIDE**2), *np.indices((_SIDE, _SIDE)).reshape(2, -1)], axis=1)
)[0].astype(np.float32)


def first_equal(keys: np.ndarray) -> np.ndarray:
    """For every one of keys [N] the position of the first that equals it: int64 [N]."""
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    return first[inverse]


def candidates(looks: np.ndarray) -> np.ndarray:
    """Return pairs [M, 2] of positions in `looks`, uint64 [N], whose hashes differ in few bits.

    The first of a pair is the later one; pairs are sorted by it, then the nearest come first. All
    pairs that differ in at most `ALIKE` bits are found, and no others. Only where dozens of hashes
    have most bits in common some pairs are passed over, and `_MOST` of each picture are enough.
    """
    looks = np.asarray(looks, np.uint64)
    found = np.zeros((0, 2), np.int64)
    bands = [
        looks >> np.uint64(start) & np.uint64((1 << end - start) - 1)
        for start, end in pairwise(_BANDS)
    ]
    for one, two, three in combinations(bands, 3):
        keys = one << np.uint64(16) | two << np.uint64(8) | three
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        is_open = np.bincount(found[:, 0], minlength=len(looks)) < _MOST
        # Equal keys stand side by side: compare each with the one before, the next one before, …
        here, new = np.flatnonzero(is_open[order]), []
        for step in range(1, _NEIGHBOURS + 1):
            here = here[here >= step]
            here = here[keys[here] == keys[here - step]]
            if not len(here):
                break
            pairs = np.stack((order[here], order[here - step]), axis=1)
            new.append(pairs[_distance(looks, pairs) <= ALIKE])
        if any(map(len, new)):
            grows = is_open[found[:, 0]]
            found = np.concatenate(
                (found[~grows], _nearest(looks, np.concatenate((found[grows], *new))))
            )
    return _nearest(looks, found)


def _distance(looks: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    return np.bitwise_count(looks[pairs[:, 0]] ^ looks[pairs[:, 1]])


def _nearest(looks: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """At most `_MOST` different pairs of each later picture, in order."""
    pairs = pairs[np.lexsort((pairs[:, 1], _distance(looks, pairs), pairs[:, 0]))]
    pairs = pairs[(np.diff(pairs, axis=0, prepend=-1) != 0).any(axis=1)]
    is_first = np.diff(pairs[:, 0], prepend=-1) != 0
    start = np.maximum.accumulate(np.where(is_first, np.arange(len(pairs)), 0))
    return pairs[np.arange(len(pairs)) - start < _MOST]


def closer_look(image: np.ndarray) -> np.ndarray:
    """Return a small grey picture, uint8 [17, 17], of a picture [H, W, 3]."""
    grey = Image.fromarray(image).convert("L")
    return np.asarray(grey.resize((_SIDE, _SIDE), Image.Resampling.BILINEAR))


def is_alike(one: np.ndarray, other: np.ndarray) -> bool:
    """Return whether two pictures are the same but for size, brightness, contrast and compression.

    From their closer looks: neighbouring pixels must agree on which is brighter (544 bits), and the
    pixels must differ by little once what is smooth, mean and slope, is taken away and the rest has
    the same spread. Where little is left, as of a clear sky, nothing is known.
    """
    pixels = [look.astype(np.float32) for look in (one, other)]
    details = [(p.ravel() - p.ravel() @ _SMOOTH @ _SMOOTH.T) for p in pixels]
    spreads = [float(detail.std()) for detail in details]
    if min(spreads) < _LEAST_DETAIL:
        return False
    bits = [np.diff(p, axis=axis).ravel() > 0 for p in pixels for axis in (0, 1)]
    differing = np.mean(np.concatenate(bits[:2]) != np.concatenate(bits[2:]))
    first, second = (detail / spread for detail, spread in zip(details, spreads, strict=True))
    difference = np.sqrt(np.mean((first - second) ** 2))
    return bool(differing <= _MAX_BITS and difference <= _MAX_DIFFERENCE)
