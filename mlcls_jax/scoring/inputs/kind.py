"""Contract of a kind of input: how it is recognised, surveyed and read."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from mlcls_jax.errors import DataError, UserError

# Columns looked for when none is named; the first that is there is taken.
IMAGE_COLUMNS = ("image", "img", "jpg", "jpeg", "png", "webp", "image_bytes", "bytes", "content")
PATH_COLUMNS = ("path", "image_path", "file_path", "file_name", "filename", "file", "url")


class Item(NamedTuple):
    """One image to be scored."""

    name: str  # in the output
    # Content of an image file, or where it is: a path, a URL, or a function that reads it; or why
    # there is none.
    source: bytes | str | Callable[[], bytes] | UserError


class Columns(NamedTuple):
    """Return the part of the input to read, if it has several; None: auto-detected."""

    image: str | None = None  # of Parquet: paths, encoded images, or {bytes, path}; of text: paths
    path: str | None = None  # of Parquet: names for the output
    split: str | None = None  # of a packed data set; None: all, one after the other


@dataclass(frozen=True)
class Survey:
    """State of a job's input when it began."""

    kind: str  # key of KINDS
    path: str  # as given, but UTF-8
    images: int
    sha256: str  # of the names; of Parquet and packed: of the names and sizes of the files


Read = Callable[[range], Iterator[Item]]  # the images at these positions


class Kind(NamedTuple):
    """One kind of input. Sources are paths, or URLs that fsspec knows."""

    recognises: Callable[[str], bool]  # whether an existing source is of this kind
    # (source, output folder, columns) → number of images, checksum; raises InputError, DataError
    survey: Callable[[str, Path, Columns], tuple[int, str]]
    # (source, its survey, output folder, columns) → how its images are read
    open: Callable[[str, Survey, Path, Columns], Read]
    has_index: bool = False  # `survey` writes an index of names into the output folder
    may_change: bool = False  # a job goes on with the images that were there when it began
    hint: str | None = None  # where there is no image in it


def joined(base: str, name: str) -> str:
    """Return where `name` is, if names are relative to the folder or URL `base`."""
    is_whole = "://" in name or os.path.isabs(name) or not base
    return name if is_whole else f"{base}/{name}"


def null(what: str, name: str = "") -> DataError:
    """Return the error of a row whose cell is empty."""
    return DataError(f"{name}null: there is no {what} in this row")


def digest(value: Any) -> str:
    """Return the checksum of a JSON value."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()
