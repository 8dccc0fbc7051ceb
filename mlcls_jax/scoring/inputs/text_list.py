"""A text file with a path or URL per line, or a table of text with a column of them."""

import csv
import itertools
import os
from collections.abc import Iterator
from pathlib import Path

from mlcls_jax.errors import InputError
from mlcls_jax.parsing import EXCEL
from mlcls_jax.remote import store_errors
from mlcls_jax.scoring.inputs import stores
from mlcls_jax.scoring.inputs.kind import (
    IMAGE_COLUMNS,
    PATH_COLUMNS,
    Columns,
    Item,
    Survey,
    joined,
    null,
)
from mlcls_jax.scoring.inputs.name_index import indexed

_TABLES = (".csv", ".tsv")


def _recognises(source: str) -> bool:
    return not stores.is_folder(source)  # any file that no other kind takes


def _names(source: str, columns: Columns) -> Iterator[str]:
    """Yield the paths of the file; what follows a tab, such as labels, is left out."""
    if Path(source).suffix.lower() in _TABLES:
        yield from _cells(source, columns.image)
        return
    for line in _lines(source):
        if name := line.rstrip("\r\n").split("\t")[0].strip(" "):
            yield name


def _lines(source: str) -> Iterator[str]:
    with stores.open_file(source) as file, store_errors(source, InputError):
        for number, line in enumerate(file, start=1):
            try:
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                hint = "An input that is no folder or Parquet file lists one path or URL per line."
                raise InputError(f"{source}:{number}: is no UTF-8 text", hint) from error


def _cells(source: str, column: str | None) -> Iterator[str]:
    """Yield the cells of the column of paths: that named, or known by its name, or the first.

    The first line is a header where it holds such a name. An empty cell gives "".
    """
    lines = _lines(source)
    first = next(lines, "")
    if EXCEL.fullmatch(first):
        first = next(lines, "")
    separator = max("\t,;", key=first.count)
    rows = csv.reader(itertools.chain([first], lines), delimiter=separator)
    index = None
    try:
        for row in rows:
            if index is None:
                index, is_header = _find_column(row, column, source)
                named = f" {row[index]}" if is_header else " of paths"
                if is_header:
                    continue
            if row and index >= len(row):
                raise InputError(
                    f"{source}:{rows.line_num}: has no column{named}", "Mend the line."
                )
            if row:
                yield row[index].strip(" ")
    except csv.Error as error:
        raise InputError(f"{source}:{rows.line_num}: is no table: {error}") from error


def _find_column(first: list[str], column: str | None, source: str) -> tuple[int, bool]:
    """Return the index of the column of paths, and whether the first row is a header."""
    if column is not None:
        if column not in first:
            told = f"{source}: image_column={column}: there is no such column"
            raise InputError(told, f"The first line has: {', '.join(first)}.")
        return first.index(column), True
    names = [cell.strip().lower() for cell in first]
    known = [name for name in (*PATH_COLUMNS, *IMAGE_COLUMNS) if name in names]
    return (names.index(known[0]), True) if known else (0, False)


def _item(source: str, begun: Survey, name: str) -> Item:
    folder = source.rpartition("/")[0]  # which the names are relative to
    return Item(name, _place(folder, name) if name else null("path"))


def _place(folder: str, name: str) -> str:
    r"""Return the path or URL of an image, which may begin with `~` or be divided by \."""
    place = joined(folder, os.path.expanduser(name))
    if "\\" in name and "://" not in place and not os.path.lexists(place):
        return joined(folder, name.replace("\\", "/"))
    return place


KIND = indexed(_recognises, _names, _item)
