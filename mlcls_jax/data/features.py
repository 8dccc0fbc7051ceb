"""Feature maps of a frozen backbone in files: written once, read in the place of images.

A folder per split: `maps.npy` [views, N, h, w, C], `targets.npy` [N, K], and `about.json`, which
says of what they were computed, which images could not be read, and the checksums. Maps have the
type in which the backbone computes them, so that nothing is rounded.
"""

import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from mlcls_jax import files
from mlcls_jax.config import Data
from mlcls_jax.data.fingerprint import digest
from mlcls_jax.data.frame import Frame
from mlcls_jax.data.pipeline import Reader
from mlcls_jax.data.types import Example, Source
from mlcls_jax.errors import UserError, WorkdirError

log = logging.getLogger(__name__)

MAPS, TARGETS, ABOUT = "maps.npy", "targets.npy", "about.json"


@dataclass(frozen=True)
class View:
    """A reader of one augmented view of each image, always the same."""

    source: Source
    read: Callable[[int, np.random.Generator], Example]
    seed: tuple[int, int]  # and the number of the view

    def __call__(self, index: int) -> Example:
        return self.read(index, np.random.default_rng((*self.seed, index)))


@dataclass(frozen=True)
class FeatureReader:
    """Reads feature maps as `Reader` reads images."""

    source: Source
    frame: Frame
    broken: dict[int, str]  # index → message
    maps: np.ndarray  # in a file, [views, N, h, w, C]
    targets: np.ndarray  # float32 [N, K]

    @classmethod
    def open(cls, folder: Path, reader: Reader, dtype: np.dtype) -> Self:
        """Return the maps in `folder`, of the images of `reader`."""
        about = files.read_json(folder / ABOUT)
        broken = {int(index): message for index, message in about["broken"].items()}
        # NumPy forgets the names of types that are not its own, bfloat16 for instance.
        maps = np.load(folder / MAPS, mmap_mode="r").view(dtype)
        return cls(reader.source, reader.frame, broken, maps, np.load(folder / TARGETS))

    def __call__(self, index: int) -> Example:
        """Return the first view of example `index`; past the end of the source: padding."""
        return self._view(index, 0)

    def for_training(self, config: Data) -> Callable[[int, np.random.Generator], Example]:
        """Return what reads a view of example `index` by the generator's choice."""
        return lambda index, rng: self._view(index, int(rng.integers(len(self.maps))))

    def _view(self, index: int, view: int) -> Example:
        is_there = index < len(self.targets) and index not in self.broken
        place = index if is_there else 0
        return {
            "image": np.asarray(self.maps[view, place]),
            "target": self.targets[place] if is_there else np.zeros_like(self.targets[0]),
            "mask": np.array(is_there),
            "index": np.array(index, np.int32),
        }


def is_made_of(folder: Path, made_of: dict[str, Any]) -> bool:
    """Return whether `folder` holds maps that were computed of this, every byte as written."""
    try:
        about = files.read_json(folder / ABOUT)
        is_same = about["made_of"] == json.loads(json.dumps(made_of))
        return is_same and about["sha256"] == _checksums(folder)
    except (OSError, UserError, KeyError):
        return False


def stamps(source: Source) -> str:
    """Return a digest of sizes and times of the images' files, which change when an image does."""

    def stamp(index: int) -> bytes:
        try:
            found = os.stat(source.name(index))
        except (OSError, ValueError):
            return b""
        return f"{found.st_size} {found.st_mtime_ns}".encode()

    return digest(map(stamp, range(len(source))))


def write(
    folder: Path,
    reader: Reader,
    computed: Iterator[tuple[int, int, np.ndarray, np.ndarray]],
    *,
    shape: tuple[int, ...],
    dtype: np.dtype,
    made_of: dict[str, Any],
) -> None:
    """Write maps into `folder`, whole or not at all.

    Args:
      folder: of the split.
      reader: of its images, which keeps account of those that cannot be read.
      computed: for some images in turn: number of the view, index of the first image, maps
        [n, h, w, C] and targets [n, K].
      shape: of all maps, [views, N, h, w, C].
      dtype: of the maps.
      made_of: what they are computed of, for `is_made_of`.

    Raises:
      WorkdirError: there is no room for them.
    """
    _forget(folder)
    size, free = int(np.prod(shape)) * dtype.itemsize, shutil.disk_usage(folder.parent).free
    log.info(
        "Features of %s images, %d view(s) of %s: %s in %s, where %s are free.",
        f"{shape[1]:,}", shape[0], " x ".join(map(str, shape[2:])),
        _bytes(size), folder, _bytes(free),
    )  # fmt: skip
    if size > free:
        raise WorkdirError(
            f"{folder}: needs {_bytes(size)} for feature maps, and {_bytes(free)} are free",
            "Take a --workdir on another disk, smaller images (model.image_size), fewer"
            " data.feature_views, or data.feature_views=0, which computes them in every step.",
        )

    def fill(new: Path) -> None:
        maps = np.lib.format.open_memmap(new / MAPS, mode="w+", dtype=dtype, shape=shape)
        targets = np.zeros((shape[1], len(reader.source.labels)), np.float32)
        for view, first, some, known in computed:
            maps[view, first : first + len(some)] = some
            targets[first : first + len(some)] = known
        maps.flush()
        np.save(new / TARGETS, targets)
        about = {"made_of": made_of, "broken": reader.broken, "sha256": _checksums(new)}
        files.write_json(new / ABOUT, about)

    files.replace_folder(folder, fill)


def _checksums(folder: Path) -> dict[str, str]:
    return {name: files.sha256(folder / name) for name in (MAPS, TARGETS)}


def _forget(folder: Path) -> None:
    """Delete maps of something else, and what runs left that were killed while they wrote."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    for path in (folder, *folder.parent.glob(f".{folder.name}.*.new")):
        shutil.rmtree(path, ignore_errors=True)


def _bytes(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"
