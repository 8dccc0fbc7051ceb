"""Files on the disk and in stores that fsspec knows, such as s3:// and gs://."""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from mlcls_jax.data.left_out import LeftOut
from mlcls_jax.errors import DataError, InputError
from mlcls_jax.files import regular
from mlcls_jax.remote import open_store, store_errors

PARQUET = ".parquet"
# Of single files; only asked of URLs, where nothing else tells a file from a folder.
_FILE_SUFFIXES = (PARQUET, ".txt", ".lst", ".list", ".tsv", ".csv")


def is_folder(source: str) -> bool:
    """Return whether a path is a folder, or a URL is that of one."""
    if "://" in source:
        return Path(source).suffix.lower() not in _FILE_SUFFIXES
    return os.path.isdir(source)


def open_file(location: str) -> BinaryIO:
    """Open a path or URL for reading.

    Raises:
      InputError: it cannot be read.
    """
    try:
        with store_errors(location, InputError):
            if "://" in location:
                store, path = open_store(location)
                return store.open(path, "rb")
            return regular(location).open("rb")
    except OSError as error:
        raise InputError(f"{location}: cannot be read: {error.strerror or error}") from error


def read_url(url: str) -> bytes:
    """Read a file of a store.

    Raises:
      DataError: it cannot be read.
    """
    with store_errors(url, DataError):
        store, path = open_store(url)
        return store.cat_file(path)


def file_names(folder: str) -> list[str]:
    """List all files below a folder or the URL of one, relative to it and sorted.

    Hidden files and folders are passed over.

    Raises:
      InputError: a store cannot be read.
    """
    if "://" in folder:
        with store_errors(folder, InputError):
            store, root = open_store(folder)
            root = root.rstrip("/")
            names = [path[len(root) + 1 :] for path in store.find(root)]
    else:
        files = (path for path in Path(folder).rglob("*") if path.is_file())
        names = [path.relative_to(folder).as_posix() for path in files]
    parts = sorted(name.split("/") for name in names)
    return ["/".join(name) for name in parts if not any(part.startswith(".") for part in name)]


def with_suffix(
    names: Iterable[str], suffixes: Sequence[str], why: str, left_out: LeftOut
) -> Iterator[str]:
    """Give the names that end in one of the suffixes, in any case; note others with a reason."""
    for name in names:
        if os.path.splitext(name)[1].lower() in suffixes:
            yield name
        else:
            left_out.add(why, Path(name))
