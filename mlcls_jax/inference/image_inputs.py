"""Split what users pass (arrays, files, URLs, patterns, folders, lists) into single inputs."""

import glob
import inspect
import io
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from mlcls_jax.data.image_files import SUFFIX_HINT, walk_images
from mlcls_jax.errors import DataError, InputError, UserError
from mlcls_jax.inference.safe_fetch import redacted
from mlcls_jax.paths import expand as written_out

_KINDS = (
    "A picture is a uint8 array [H, W, 3], a PIL image, the bytes of an image file, a path or a"
    " URL, or a file that is open for reading; a folder, a list or an iterator holds several."
)
_FOREIGN_ARRAYS = (
    "Give np.asarray(…) of one picture, uint8 [H, W, 3], list(…) of several; of a PyTorch tensor"
    " [3, H, W] it is x.permute(1, 2, 0).cpu().numpy()."
)
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


class Item(NamedTuple):
    """One input, not yet read: an image, or a document of several pages."""

    name: str | None
    label: str  # what messages call it
    content: np.ndarray | Image.Image | bytes | Path | str | UserError  # str: a URL


def expand(source: Any) -> Iterator[Item]:
    """Yield the inputs one by one: folders are walked and iterators asked only as far as needed.

    `source` is a uint8 array [H, W, 3] (or grey, or with alpha), a PIL image, the bytes of an image
    file, a file open in binary mode (read at once, from its beginning if it can go back there), a
    path, a pattern such as `in/*.png`, a URL, a folder (walked as by `list_images`), a dict {"img":
    one of these}, or an iterable of these. Arrays are copied, so that a camera may use its buffer
    again.

    Raises InputError at once when `source` is of no known kind, later when an element is, or when
    there is no image in a folder.
    """
    source = _unwrap(source, "the input")
    if _is_single(source):
        return _expand_one(source, "the input")
    if not isinstance(source, Iterable) or hasattr(source, "__array__") or isinstance(source, dict):
        raise _unknown(source, "the input")
    return _expand_many(source)


def _expand_many(sources: Iterable[Any]) -> Iterator[Item]:
    for index, source in enumerate(sources):
        label = f"input {index}"
        source = _unwrap(source, label)
        if not _is_single(source):
            raise _unknown(source, label)
        yield from _expand_one(source, label)


def _expand_one(source: Any, label: str) -> Iterator[Item]:
    if isinstance(source, np.ndarray):
        yield Item(None, label, source.copy())
    elif isinstance(source, Image.Image):
        yield Item(None, label, source)
    elif isinstance(source, bytes | bytearray | memoryview):
        yield Item(None, label, bytes(source))
    elif _is_stream(source):
        yield _from_stream(source, label)
    else:
        yield from _expand_text(source)


def _expand_text(source: str | os.PathLike) -> Iterator[Item]:
    if not isinstance(source, str):
        paths = [os.path.expanduser(os.fsdecode(source))]
    else:
        try:
            paths = local_paths(source)
        except InputError as error:
            paths = []
            yield Item(source, source, error)
    if paths is None:  # a text that is a URL
        url = os.fspath(source)
        yield Item(url, redacted(url), url)
        return
    for path in paths:
        if os.path.isdir(path):  # unlike Path.is_dir, it bears any string
            yield from _expand_folder(Path(path))
        else:
            yield Item(path, path, Path(path))


def local_paths(source: str) -> list[str] | None:
    """Return the files and folders that a path, file:// URL or pattern names; None: a URL.

    `~` is the home folder. A pattern gives what matches it, sorted, unless a file has that very
    name. Whether a path leads to anything is not asked.

    Raises InputError when nothing matches a pattern, and for files of another host.
    """
    path = written_out(source)
    if path[:7].lower() == "file://":
        host = path[7:].partition("/")[0]
        raise InputError(f"{source}: a file of another host, {host}, cannot be read", _KINDS)
    if _URL.match(path):
        return None
    if path != source and not source.startswith("~"):  # in a URL nothing is a pattern
        return [path]
    if glob.escape(path) == path or "\0" in path or os.path.lexists(path):
        return [path]
    if found := sorted(glob.iglob(path, recursive=True)):
        return found
    raise InputError(f"{source}: no file has this name or matches it", "Check the path.")


def _is_stream(source: Any) -> bool:
    return callable(getattr(source, "read", None))


def _from_stream(stream: Any, label: str) -> Item:
    name = getattr(stream, "name", None)
    name = name if isinstance(name, str) else None  # or the number of a descriptor
    return Item(name, name or label, _content(stream, name or label))


def _content(stream: Any, label: str) -> bytes | UserError:
    """Read a file object from its beginning where it can go back there, as Pillow does."""
    if isinstance(stream, io.TextIOBase):
        return InputError(f"{label}: was opened as text", 'Open it with mode "rb".')
    if inspect.iscoroutinefunction(stream.read):
        hint = "Give what `await ….read()` returns, or the file behind it."
        return InputError(f"{label}: {type(stream).__name__}.read() has to be awaited", hint)
    try:
        if hasattr(stream, "seekable") and stream.seekable():
            stream.seek(0)
        content = stream.read()
    except Exception as error:  # noqa: BLE001 (of any kind: it is somebody else's code)
        return DataError(f"{label}: cannot be read: {error}")
    if isinstance(content, bytes | bytearray | memoryview):
        return bytes(content)
    kind = type(content).__name__
    told = f"{label}: {type(stream).__name__}.read() gives {kind}, not bytes"
    return InputError(told, "It must give the bytes of an image file.")


def _expand_folder(folder: Path) -> Iterator[Item]:
    is_empty = True
    for found in walk_images(folder):
        is_empty = False
        name = str(folder if isinstance(found, DataError) else found)
        yield Item(name, name, found)
    if is_empty:
        raise InputError(f"{folder}: no image in this folder", SUFFIX_HINT)


def _is_single(source: Any) -> bool:
    kinds = np.ndarray | Image.Image | bytes | bytearray | memoryview | str | os.PathLike
    return isinstance(source, kinds) or _is_stream(source)


def _unwrap(source: Any, label: str) -> Any:
    """Return what a dict of a pipeline holds, and everything else as it is."""
    if not isinstance(source, dict):
        return source
    for key in source:
        if key != "img":
            raise InputError(
                f'{label}: unknown key {key!r}; a dict has the key "img" alone', _KINDS
            )
    if not source:
        raise InputError(f'{label}: a dict without the key "img"', _KINDS)
    return source["img"]


def _unknown(source: Any, label: str) -> InputError:
    kind = f"{type(source).__module__}.{type(source).__qualname__}".removeprefix("builtins.")
    is_array = hasattr(source, "__array__")
    hint = _FOREIGN_ARRAYS if is_array else _KINDS
    return InputError(f"{label}: {kind} is not a picture", hint)
