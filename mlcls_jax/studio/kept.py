"""What was computed of the images of a data set, in the user's cache until the images change."""

import hashlib
import os

import numpy as np

from mlcls_jax import files
from mlcls_jax.studio.dataset import Dataset

_FILES = 10  # of all data sets and models


class Kept:
    """A file of arrays with a row an image; damaged or missing, it holds nothing."""

    def __init__(self, dataset: Dataset, made_by: str) -> None:
        """Take the file of this data set, its labels and what computes the arrays."""
        told = f"{made_by} {dataset.root.resolve()} {dataset.labels}"
        digest = hashlib.sha256(told.encode(errors="surrogateescape")).hexdigest()
        self._path = files.cache_folder("studio") / f"{digest}.npz"
        self._stamps = _stamps(dataset)

    def take(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Return rows [n] that are as they were, and their part of an array [n, …]."""
        kept = files.read_arrays(self._path, "stamps", name) or {"stamps": np.zeros(0, int)}
        known = {stamp: i for i, stamp in enumerate(kept["stamps"].tolist())}
        found = [(i, known[s]) for i, s in enumerate(self._stamps.tolist()) if s in known]
        if not found:
            return np.zeros(0, int), np.zeros((0, 0))
        rows, old = np.transpose(found)
        return rows, kept[name][old]

    def save(self, **arrays: np.ndarray) -> None:
        """Write the arrays, [N, …] each; the oldest files of others go."""
        with files.replacing(self._path) as temporary, temporary.open("wb") as file:
            np.savez(file, allow_pickle=False, stamps=self._stamps, **arrays)
        for path in sorted(self._path.parent.glob("*.npz"), key=os.path.getmtime)[:-_FILES]:
            path.unlink(missing_ok=True)


def _stamps(data: Dataset) -> np.ndarray:
    """Return what changes with the file of an image: uint64 [N]."""
    stamps = np.zeros(len(data), np.uint64)
    for row, image in enumerate(data.images):
        try:
            status = os.stat(data.path(row))
            told = f"{image} {status.st_size} {status.st_mtime_ns}"
        except (OSError, ValueError):
            told = image
        digest = hashlib.blake2b(told.encode(errors="surrogateescape"), digest_size=8).digest()
        stamps[row] = int.from_bytes(digest, "big")
    return stamps
