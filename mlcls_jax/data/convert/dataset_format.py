"""What states a format of data sets: how it is read, and by which files it is known."""

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from mlcls_jax.config import Convert
from mlcls_jax.data.convert.labelled import Labelled
from mlcls_jax.data.convert.listings import Listing
from mlcls_jax.data.convert.reading import Reading
from mlcls_jax.errors import ConvertFailedError
from mlcls_jax.files import regular

_HEAD = 65_536  # bytes of a file that are looked at
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]:]')


class Sign(NamedTuple):
    """What a data set was recognized by."""

    told: str
    file: str | None = None  # the annotations below the root, where they are at no usual place
    root: Path | None = None  # the data set's folder, where it is not that which was looked at


def files_named(told: str, *names: str) -> Callable[[Path], list[Sign]]:
    """Return what looks for files of these names in a folder; `told` stands before them."""
    return lambda folder: [Sign(f"{told} {n}") for n in names if (folder / n).is_file()]


def file_that(told: str, is_ours: Callable[[Path], object]) -> Callable[[Path], list[Sign]]:
    """Return what takes such files for a format's own; `told` stands before their names."""
    return lambda file: [Sign(f"{told} {file.name}", file.name)] if is_ours(file) else []


def file_ending(told: str, *suffixes: str) -> Callable[[Path], list[Sign]]:
    """Return what takes files for a format's own that end so; `told` stands before their names."""
    return file_that(told, lambda file: file.suffix.lower() in suffixes)


@dataclass(frozen=True)
class Format:
    """A format that data sets are read from."""

    # Root, label.txt there, and options → what is in it.
    read: Callable[[Path, Path, Convert], Reading | Listing]
    help: str  # of what files it is made
    usual: Callable[[Path], Iterable[Sign]] = lambda _: ()  # signs of it in a folder
    unusual: Callable[[Path], Iterable[Sign]] = lambda _: ()  # lesser ones, where none is usual
    of_file: Callable[[Path], Iterable[Sign]] = lambda _: ()  # of a file that stands for it
    # Data, the folder that is written to, and the address of the images, if one is given → what to
    # do next. The images lie in the folder already.
    write: Callable[[Labelled, Path, str | None], list[str]] | None = None
    holds_unknown: bool = False  # what is written can say that a label is not known
    embeds: bool = False  # the images are in what is written, under other names


def head(path: Path) -> str:
    """Return the beginning of a text file; nothing if it cannot be read."""
    try:
        with regular(path).open("rb") as file:
            return file.read(_HEAD).decode("utf-8-sig", "replace").lstrip()
    except OSError:
        return ""


def json_keys(text: str) -> set[str]:
    """Return the keys of the outer object of a JSON text, or of the first in an outer list.

    As far as they stand in the text, which may be cut off. A list has the key "[", too.
    """
    keys: set[str] = {"["} if text.startswith("[") else set()
    level = 1 + len(keys)
    tokens, depth = [match[0] for match in _TOKEN.finditer(text)], 0
    for token, after in zip(tokens, [*tokens[1:], ""], strict=False):
        depth += (token in "{[") - (token in "}]")
        if depth < level and token == "}":
            break
        if depth == level and token[0] == '"' and after == ":":
            keys.add(token[1:-1])
    return keys


def csv_columns(file: Path) -> set[str]:
    """Return the cells of the first line, if the file is a CSV file."""
    line = head(file).partition("\n")[0] if file.suffix.lower() == ".csv" else ""
    return {*line.replace('"', "").strip().split(",")}


def in_object(value: Any, key: str, kind: type, place: str) -> Any:
    """Return the value of a key of a JSON object.

    Raises:
      ConvertFailedError: it is no object, or the value is missing or of another type.
    """
    found = value.get(key) if isinstance(value, dict) else None
    if not isinstance(found, kind) or isinstance(found, bool):
        shown = json.dumps(found)[:60] if found is not None else "missing"
        raise ConvertFailedError(f"{place}: {key} is {shown}, not of type {kind.__name__}")
    return found
