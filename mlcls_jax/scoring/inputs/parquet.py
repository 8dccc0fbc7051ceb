"""Parquet files with a column of paths, URLs or encoded images."""

import bisect
import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq

from mlcls_jax.data.convert.parquet_tables import column_kind, rows_at_once
from mlcls_jax.data.image_files import IMAGE_SUFFIXES
from mlcls_jax.data.left_out import LeftOut
from mlcls_jax.errors import DataError, InputError
from mlcls_jax.remote import store_errors
from mlcls_jax.scoring.inputs import stores
from mlcls_jax.scoring.inputs.kind import (
    IMAGE_COLUMNS,
    PATH_COLUMNS,
    Columns,
    Item,
    Kind,
    Read,
    Survey,
    digest,
    joined,
    null,
)


class _File(NamedTuple):
    location: str
    name: str  # relative to the input
    rows: int
    size: int
    image: str  # columns
    path: str | None


def _recognises(source: str) -> bool:
    if not stores.is_folder(source):
        return Path(source).suffix.lower() == stores.PARQUET
    if "://" in source:
        return any(_suffix(name) == stores.PARQUET for name in stores.file_names(source))
    suffixes = {_suffix(name) for name in os.listdir(source)}
    return stores.PARQUET in suffixes and suffixes.isdisjoint(IMAGE_SUFFIXES)


def _suffix(name: str) -> str:
    return Path(name).suffix.lower()


def _survey(source: str, output: Path, columns: Columns) -> tuple[int, str]:
    if "://" not in source and output.resolve().is_relative_to(Path(source).resolve()):
        told = f"{output}: lies in the input folder, and its files would become input"
        raise InputError(told, "Name another output folder.")
    left_out = LeftOut()
    files = _files(source, columns, left_out)
    left_out.warn(source)
    sizes = [[file.name, file.rows, file.size] for file in files]
    return sum(file.rows for file in files), digest(sizes)


def _files(source: str, columns: Columns, left_out: LeftOut) -> list[_File]:
    base = source.rstrip("/")
    if not stores.is_folder(source):
        return [_inspected(base, Path(base).name, columns)]
    why = f"files whose names do not end in {stores.PARQUET}"
    names = stores.with_suffix(stores.file_names(source), (stores.PARQUET,), why, left_out)
    return [_inspected(f"{base}/{name}", name, columns) for name in names]


def _inspected(location: str, name: str, columns: Columns) -> _File:
    with stores.open_file(location) as file, store_errors(location, DataError):
        try:
            with pq.ParquetFile(file) as parquet:
                schema, rows = parquet.schema_arrow, parquet.metadata.num_rows
        except (OSError, ValueError) as error:  # ArrowInvalid is a ValueError
            raise DataError(f"{location}: is no Parquet file: {error}") from error
        size = file.seek(0, os.SEEK_END)
    return _File(location, name, rows, size, *_choose_columns(schema, columns, location))


def _choose_columns(schema: Any, columns: Columns, place: str) -> tuple[str, str | None]:
    """Return the column of images, and that of names, if any."""
    kinds = {field.name: kind for field in schema if (kind := column_kind(field.type))}
    texts = [name for name, kind in kinds.items() if kind == "text"]
    known = ", ".join(f"{field.name} ({field.type})" for field in schema)
    for option, name, allowed in (
        ("image_column", columns.image, kinds),
        ("path_column", columns.path, texts),
    ):
        if name is not None and name not in allowed:
            told = f"{place}: {option}={name}: there is no such column of text"
            told += " or of encoded images" if allowed is kinds else ""
            raise InputError(told, f"It has: {known}.")
    image = columns.image
    if image is None:
        pictures = [name for name, kind in kinds.items() if kind != "text"]
        image = next((name for name in IMAGE_COLUMNS if name in pictures), None)
        if len(pictures) == 1:
            image = pictures[0]
        elif not pictures:
            image = next((name for name in PATH_COLUMNS + IMAGE_COLUMNS if name in texts), None)
    if image is None:
        told = f"{place}: which column holds the images?"
        raise InputError(told, f"Say so with --image_column. It has: {known}.")
    path = columns.path
    if path is None and kinds[image] != "text":
        path = next((name for name in PATH_COLUMNS if name in texts), None)
    return image, path


def _open(source: str, begun: Survey, output: Path, columns: Columns) -> Read:
    files = [file for file in _files(source, columns, LeftOut()) if file.rows]
    ends = list(itertools.accumulate(file.rows for file in files))

    def read(rows: range) -> Iterator[Item]:
        first = bisect.bisect_right(ends, rows.start)
        for file, end in zip(files[first:], ends[first:], strict=True):
            start = end - file.rows
            if start >= rows.stop:
                return
            stop = min(rows.stop - start, file.rows)
            yield from _rows(file, max(rows.start - start, 0), stop)

    return read


def _rows(file: _File, start: int, stop: int) -> Iterator[Item]:
    base = file.location.rpartition("/")[0]
    names = [file.image, *([file.path] if file.path else [])]
    try:
        # Buffered: else whole columns of a row group would be in memory.
        with (
            store_errors(file.location, DataError),
            stores.open_file(file.location) as opened,
            pq.ParquetFile(opened, buffer_size=1 << 20) as parquet,
        ):
            groups, row = _row_groups(parquet.metadata, start, stop)
            rows = rows_at_once(parquet.schema_arrow, names)
            for batch in parquet.iter_batches(rows, row_groups=groups, columns=names):
                skip = min(max(start - row, 0), len(batch))
                row += skip
                for entry in batch.slice(skip, stop - row).to_pylist():
                    content, path = _content(entry[file.image])
                    name = (entry[file.path] if file.path else path) or f"{file.name}#{row}"
                    if content is None:
                        content = joined(base, path) if path else null("image", f"{name}: ")
                    yield Item(name, content)
                    row += 1
                if row >= stop:
                    return
    except (OSError, ValueError) as error:  # ArrowInvalid is a ValueError
        raise DataError(f"{file.location}: cannot be read: {error}") from error


def _row_groups(metadata: Any, start: int, stop: int) -> tuple[list[int], int]:
    """Return the row groups with rows from `start` to `stop`, and the row they begin with."""
    sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    ends = list(itertools.accumulate(sizes))
    first = bisect.bisect_right(ends, start)
    last = bisect.bisect_left(ends, stop)
    return list(range(first, last + 1)), ends[first] - sizes[first]


def _content(value: Any) -> tuple[bytes | None, str | None]:
    """Return the encoded image and the path in a cell."""
    if isinstance(value, dict):
        return value["bytes"], value.get("path")
    return (None, value) if isinstance(value, str) else (value, None)


KIND = Kind(_recognises, _survey, _open)
