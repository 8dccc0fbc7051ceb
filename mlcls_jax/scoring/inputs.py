"""What a job scores: images in an order that stays, read by range and never held as a whole.

Four kinds: the image files of a folder; a text file with a path or URL a line, or a table of text
with a column of them; Parquet files with a column of paths or of encoded images; a packed data set.
Names of files go into an index in the output folder, which fixes their order for the whole job.
"""

import bisect
import contextlib
import csv
import hashlib
import itertools
import json
import os
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from mlcls_jax.config import Data
from mlcls_jax.data.images import IMAGE_SUFFIXES, SUFFIX_HINT, read_file, walk_images
from mlcls_jax.data.shards import MANIFEST, read_manifest
from mlcls_jax.data.sources.packed import PackedSplit
from mlcls_jax.data.sources.packed import open_split as open_packed
from mlcls_jax.errors import DataError, InputError, UserError, WorkdirError
from mlcls_jax.files import place
from mlcls_jax.inference.file_names import readable
from mlcls_jax.inference.image_stream import local_paths
from mlcls_jax.inference.safe_fetch import Policy, fetch

PARQUET = ".parquet"
_LIST_SUFFIXES = (".txt", ".lst", ".list", ".tsv", ".csv")  # only asked where there are no folders
_TABLES = (".csv", ".tsv")  # of text
# Columns looked for when none is named, the first that is there.
_IMAGE_COLUMNS = ("image", "img", "jpg", "jpeg", "png", "webp", "image_bytes", "bytes", "content")
_PATH_COLUMNS = ("path", "image_path", "file_path", "file_name", "filename", "file", "url")
_STRIDE = 1024  # lines of the index between two positions that are remembered
_PARQUET_ROWS = 32  # decoded at once: each may hold an encoded image


class Item(NamedTuple):
    """One image to be scored."""

    name: str  # in the output
    # Content of an image file, or where it is: a path, a URL, or a function that reads it; or why
    # there is none.
    source: bytes | str | Callable[[], bytes] | UserError


class Columns(NamedTuple):
    """Which part of the input is meant, where it has several; None: found out."""

    image: str | None = None  # of Parquet: paths, encoded images, or {bytes, path}; of text: paths
    path: str | None = None  # of Parquet: names for the output
    split: str | None = None  # of a packed data set; None: all, one after the other


@dataclass(frozen=True)
class Survey:
    """What a job's input was when it began."""

    kind: str  # folder, list, parquet, packed
    path: str  # as given, but UTF-8
    images: int
    sha256: str  # of the names; of Parquet and packed: of the names and sizes of the files


Read = Callable[[range], Iterator[Item]]  # the images at these positions


def survey(source: str, output: Path, columns: Columns) -> Survey:
    """Look through the input; of a folder or list, write the index into `output`.

    Raises:
      InputError: it is of no known kind, holds no images, or a column or split is not there.
      DataError: a file of it cannot be read.
    """
    kind = _kind(source)
    if kind in ("folder", "list"):
        names = _image_names(source) if kind == "folder" else _listed_names(source, columns)
        count, digest = _write_index(names, output)
    elif kind == "parquet":
        if "://" not in source and output.resolve().is_relative_to(Path(source).resolve()):
            told = f"{output}: lies in the input folder, and its files would become input"
            raise InputError(told, "Name another output folder.")
        files = _parquet_files(source, columns)
        count = sum(file.rows for file in files)
        digest = _digest([[file.name, file.rows, file.size] for file in files])
    else:
        manifest = read_manifest(Path(source))
        splits = {name: list(manifest.shards[name].values()) for name in _splits(source, columns)}
        count = sum(manifest.images(name) for name in splits)
        digest = _digest([[shard.file, shard.sha256] for s in splits.values() for shard in s])
    if count == 0:
        raise InputError(f"{source}: no image in it", SUFFIX_HINT if kind == "folder" else None)
    return Survey(kind, readable(source), count, digest)


def same_input(begun: Survey, now: Survey, output: Path) -> str | None:
    """Compare the input with what the job began with; a warning where the job may go on.

    A folder may have changed: the job goes on with the files that were there when it began. The
    index of what is there now is deleted.

    Raises:
      WorkdirError: the input is another one.
    """
    if (begun.kind, begun.images, begun.sha256) == (now.kind, now.images, now.sha256):
        return None
    told = f"{now.path}: is not the input that the job in {output} began with, {begun.path}"
    hint = "Give the input of that job, or name another output folder."
    if begun.kind in ("folder", "list") and begun.kind == now.kind:
        old, new = _index(output, begun.sha256), _index(output, now.sha256)
        missing, added = _differences(old, new)
        new.unlink(missing_ok=True)
        if begun.kind == "folder" and os.path.realpath(begun.path) == os.path.realpath(now.path):
            return (
                f"{now.path} has changed since the job began: {added:,} images are new and not part"
                f" of the job, {missing:,} are gone. Score new ones as a job of their own."
            )
        told += f": {missing:,} of its {begun.images:,} names are missing, {added:,} are new"
    raise WorkdirError(told, hint)


def open_input(source: str, begun: Survey, output: Path, columns: Columns) -> Read:
    """How the images of a surveyed input are read; may be asked for several ranges at once.

    Raises:
      WorkdirError: the index is missing or damaged.
      DataError, InputError: like `survey`.
    """
    if begun.kind in ("folder", "list"):
        return _open_names(source, begun, output)
    if begun.kind == "parquet":
        return _open_parquet(_parquet_files(source, columns))
    return _open_packed(source, _splits(source, columns))


def find(source: str) -> str:
    """The path or URL that a job's input names: `~`, file:// and a pattern are resolved.

    Raises:
      InputError: a pattern matches nothing, or several files.
    """
    paths = local_paths(source)
    if paths is None:
        return source
    if len(paths) > 1:
        hint = "Name their folder, or write their names into a text file, one a line."
        raise InputError(f"{source}: matches {len(paths):,} files; a job has one input", hint)
    return paths[0]


def load(item: Item) -> bytes:
    """The content of the image file.

    Raises:
      UserError: it cannot be read.
    """
    source = item.source
    if isinstance(source, UserError):
        raise source
    if callable(source):
        return source()
    if isinstance(source, bytes):
        return source
    if source.startswith(("http://", "https://")):
        return fetch(source, Policy())
    if source.startswith("file://"):
        source = find(source)
    if "://" not in source:
        return read_file(source)
    with _store_errors(source, DataError):
        store, path = _remote(source)
        return store.cat_file(path)


# Kinds, and what is remote.


def _kind(source: str) -> str:
    if "://" in source:
        return _kind_of_url(source)
    path = Path(source)
    if path.is_dir():
        if (path / MANIFEST).exists():
            return "packed"
        with os.scandir(path) as entries:
            suffixes = {Path(entry.name).suffix.lower() for entry in entries}
        return (
            "parquet" if PARQUET in suffixes and suffixes.isdisjoint(IMAGE_SUFFIXES) else "folder"
        )
    if not path.exists():
        raise InputError(f"{source}: there is no such file or folder", "Check the path.")
    suffix = path.suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        raise InputError(f"{source}: this is one image", "`mlcls predict` labels single images.")
    return "parquet" if suffix == PARQUET else "list"


def _kind_of_url(url: str) -> str:
    suffix = Path(url).suffix.lower()
    if suffix == PARQUET or suffix in _LIST_SUFFIXES:
        return "parquet" if suffix == PARQUET else "list"
    return "parquet" if next(_remote_names(url, (PARQUET,)), None) else "folder"


def _remote(url: str) -> tuple[Any, str]:
    """fsspec's file system of a URL, and the path in it; to be called within `_store_errors`."""
    import fsspec

    return fsspec.core.url_to_fs(url)


@contextlib.contextmanager
def _store_errors(url: str, kind: type[UserError]) -> Iterator[None]:
    """Turns whatever a store raises, each its own kinds of errors, into one of ours about `url`.

    Of files on the disk nothing is turned.
    """
    if "://" not in url:
        yield
        return
    try:
        yield
    except UserError:
        raise
    except ImportError as error:
        hint = "pip install s3fs for s3://, gcsfs for gs://, aiohttp for https://"
        raise kind(f"{url}: cannot be read: {error}", hint) from error
    except Exception as error:
        raise kind(f"{url}: cannot be read: {str(error) or repr(error)}") from error


def _open(location: str) -> BinaryIO:
    try:
        with _store_errors(location, InputError):
            if "://" in location:
                store, path = _remote(location)
                return store.open(path, "rb")
            return open(location, "rb")
    except OSError as error:
        raise InputError(f"{location}: cannot be read: {error.strerror or error}") from error


def _image_names(source: str) -> Iterator[str]:
    """The images of a folder or the URL of one, relative to it, in the order of `list_images`."""
    if "://" in source:
        yield from _remote_names(source, IMAGE_SUFFIXES)
        return
    for found in walk_images(Path(source)):
        if isinstance(found, DataError):
            raise found  # or the job would have a gap
        yield found.relative_to(source).as_posix()


def _remote_names(url: str, suffixes: Sequence[str]) -> Iterator[str]:
    with _store_errors(url, InputError):
        store, root = _remote(url)
        root = root.rstrip("/")
        found = [path[len(root) + 1 :] for path in store.find(root)]
    for parts in sorted(name.split("/") for name in found):
        if not _is_hidden(parts) and Path(parts[-1]).suffix.lower() in suffixes:
            yield "/".join(parts)


def _is_hidden(parts: Sequence[str]) -> bool:
    return any(part.startswith(".") for part in parts)


# Names, and their index: a JSON string a line, since names may hold line breaks.


def _listed_names(source: str, columns: Columns) -> Iterator[str]:
    """The paths of a text file; what follows a tab, such as labels, is left out."""
    if Path(source).suffix.lower() in _TABLES:
        yield from _cells(source, columns.image)
        return
    for line in _lines(source):
        if name := line.rstrip("\r\n").split("\t")[0].strip(" "):
            yield name


def _lines(source: str) -> Iterator[str]:
    with _open(source) as file, _store_errors(source, InputError):
        for number, line in enumerate(file, start=1):
            try:
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                hint = "An input that is no folder or Parquet file lists a path or URL a line."
                raise InputError(f"{source}:{number}: is no UTF-8 text", hint) from error


def _cells(source: str, column: str | None) -> Iterator[str]:
    """The column of paths of a table of text: that named, or known by its name, or the first.

    The first line is a header where it holds such a name. An empty cell gives "".
    """
    lines = _lines(source)
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
    """Which column of a table of text has the paths, and whether its first row says so."""
    if column is not None:
        if column not in first:
            told = f"{source}: image_column={column}: there is no such column"
            raise InputError(told, f"The first line has: {', '.join(first)}.")
        return first.index(column), True
    names = [cell.strip().lower() for cell in first]
    known = [name for name in (*_PATH_COLUMNS, *_IMAGE_COLUMNS) if name in names]
    return (names.index(known[0]), True) if known else (0, False)


def _index(output: Path, digest: str) -> Path:
    return output / f"_index-{digest[:16]}.jsonl"


def _write_index(names: Iterator[str], output: Path) -> tuple[int, str]:
    """Number of names, and the checksum of the index, which is also in its name."""
    digest, count = hashlib.sha256(), 0
    temporary = output / f".index.{uuid.uuid4().hex}.tmp"
    try:
        with temporary.open("wb") as file:
            for name in names:
                line = json.dumps(name).encode() + b"\n"
                digest.update(line)
                file.write(line)
                count += 1
        place(temporary, _index(output, digest.hexdigest()))
    finally:
        temporary.unlink(missing_ok=True)
    return count, digest.hexdigest()


def _differences(old: Path, new: Path) -> tuple[int, int]:
    """How many lines of the old index the new one lacks, and the other way round.

    In one pass, as both are sorted in the same way; of lists that are not, it tells at least that
    they differ.
    """
    missing = added = 0
    with old.open("rb") as first, new.open("rb") as second:
        a, b = next(first, None), next(second, None)
        while a or b:
            if a == b:
                a, b = next(first, None), next(second, None)
            elif not b or (a and json.loads(a).split("/") < json.loads(b).split("/")):
                missing, a = missing + 1, next(first, None)
            else:
                added, b = added + 1, next(second, None)
    return missing, added


def _open_names(source: str, begun: Survey, output: Path) -> Read:
    index = _index(output, begun.sha256)
    try:
        with index.open("rb") as file:
            positions, count, position = [], 0, 0
            for line in file:
                if count % _STRIDE == 0:
                    positions.append(position)
                count, position = count + 1, position + len(line)
    except OSError as error:
        hint = "Begin anew with another output folder."
        raise WorkdirError(f"{index}: cannot be read: {error.strerror}", hint) from error
    if count != begun.images:
        told = f"{index}: damaged: {count:,} names, but the job has {begun.images:,}"
        raise WorkdirError(told, "Begin anew with another output folder.")
    # A list's names are relative to its folder; a folder's are shown as `mlcls predict` does.
    is_list = begun.kind == "list"
    base = source.rpartition("/")[0] if is_list else source.rstrip("/")
    shown = "" if is_list else begun.path.rstrip("/") + "/"

    def read(rows: range) -> Iterator[Item]:
        with index.open("rb") as file:
            file.seek(positions[rows.start // _STRIDE])
            skip = rows.start % _STRIDE
            for line in itertools.islice(file, skip, skip + len(rows)):
                name = json.loads(line)
                source = _join(base, name) if name else _null("path")
                yield Item(shown + name, source)

    return read


def _join(base: str, name: str) -> str:
    is_whole = "://" in name or os.path.isabs(name) or not base
    return name if is_whole else f"{base}/{name}"


# Parquet.


class _ParquetFile(NamedTuple):
    location: str
    name: str  # relative to the input
    rows: int
    size: int
    image: str  # columns
    path: str | None


def _parquet_files(source: str, columns: Columns) -> list[_ParquetFile]:
    is_one = Path(source).suffix.lower() == PARQUET and not os.path.isdir(source)
    base = source.rstrip("/")
    found = []
    for name in [""] if is_one else _parquet_names(source):
        location = base if is_one else f"{base}/{name}"
        with _open(location) as file, _store_errors(location, DataError):
            try:
                with pq.ParquetFile(file) as parquet:
                    schema, rows = parquet.schema_arrow, parquet.metadata.num_rows
            except (OSError, ValueError) as error:  # ArrowInvalid is a ValueError
                raise DataError(f"{location}: is no Parquet file: {error}") from error
            size = file.seek(0, os.SEEK_END)
        image, path = _choose_columns(schema, columns, location)
        found.append(_ParquetFile(location, name or Path(base).name, rows, size, image, path))
    return found


def _parquet_names(source: str) -> Iterator[str]:
    if "://" in source:
        return _remote_names(source, (PARQUET,))
    paths = (path.relative_to(source) for path in sorted(Path(source).rglob(f"*{PARQUET}")))
    return (path.as_posix() for path in paths if not _is_hidden(path.parts))


def _choose_columns(schema: Any, columns: Columns, place: str) -> tuple[str, str | None]:
    """The column of images, and that of names, if any."""
    kinds = {field.name: kind for field in schema if (kind := _kind_of_column(field.type))}
    texts = [name for name, kind in kinds.items() if kind == "text"]
    for option, name, known in (
        ("image_column", columns.image, kinds),
        ("path_column", columns.path, texts),
    ):
        if name is not None and name not in known:
            told = f"{place}: {option}={name}: there is no such column of text" + (
                " or of encoded images" if known is kinds else ""
            )
            raise InputError(told, f"It has: {', '.join(f'{f.name} ({f.type})' for f in schema)}.")
    image = columns.image
    if image is None:
        pictures = [name for name, kind in kinds.items() if kind != "text"]
        image = next((name for name in _IMAGE_COLUMNS if name in pictures), None)
        if len(pictures) == 1:
            image = pictures[0]
        elif not pictures:
            image = next((name for name in _PATH_COLUMNS + _IMAGE_COLUMNS if name in texts), None)
    if image is None:
        told = f"{place}: which column holds the images?"
        known = ", ".join(f"{field.name} ({field.type})" for field in schema)
        raise InputError(told, f"Say so with --image_column. It has: {known}.")
    path = columns.path
    if path is None and kinds[image] != "text":
        path = next((name for name in _PATH_COLUMNS if name in texts), None)
    return image, path


def _kind_of_column(kind: Any) -> str | None:
    if pa.types.is_dictionary(kind):  # as pandas writes its categories
        kind = kind.value_type
    if kind in (pa.string(), pa.large_string(), pa.string_view()):
        return "text"
    if kind in (pa.binary(), pa.large_binary(), pa.binary_view()):
        return "bytes"
    is_image = pa.types.is_struct(kind) and {"bytes", "path"} <= {field.name for field in kind}
    return "struct" if is_image else None


def _open_parquet(files: list[_ParquetFile]) -> Read:
    files = [file for file in files if file.rows]
    ends = list(itertools.accumulate(file.rows for file in files))

    def read(rows: range) -> Iterator[Item]:
        first = bisect.bisect_right(ends, rows.start)
        for file, end in zip(files[first:], ends[first:], strict=True):
            start = end - file.rows
            if start >= rows.stop:
                return
            yield from _parquet_rows(
                file, max(rows.start - start, 0), min(rows.stop - start, file.rows)
            )

    return read


def _parquet_rows(file: _ParquetFile, start: int, stop: int) -> Iterator[Item]:
    base = file.location.rpartition("/")[0]
    names = [file.image, *([file.path] if file.path else [])]
    try:
        # Buffered: else whole columns of a row group would be in memory.
        with (
            _store_errors(file.location, DataError),
            _open(file.location) as opened,
            pq.ParquetFile(opened, buffer_size=1 << 20) as parquet,
        ):
            groups, row = _row_groups(parquet.metadata, start, stop)
            for batch in parquet.iter_batches(_PARQUET_ROWS, row_groups=groups, columns=names):
                skip = min(max(start - row, 0), len(batch))
                row += skip
                for entry in batch.slice(skip, stop - row).to_pylist():
                    content, path = _content(entry[file.image])
                    name = (entry[file.path] if file.path else path) or f"{file.name}#{row}"
                    if content is None:
                        content = _join(base, path) if path else _null("image", f"{name}: ")
                    yield Item(name, content)
                    row += 1
                if row >= stop:
                    return
    except (OSError, ValueError) as error:  # ArrowInvalid is a ValueError
        raise DataError(f"{file.location}: cannot be read: {error}") from error


def _row_groups(metadata: Any, start: int, stop: int) -> tuple[list[int], int]:
    """The row groups with the rows from `start` to `stop`, and the row that they begin with."""
    sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    ends = list(itertools.accumulate(sizes))
    first = bisect.bisect_right(ends, start)
    last = bisect.bisect_left(ends, stop)
    return list(range(first, last + 1)), ends[first] - sizes[first]


def _null(what: str, name: str = "") -> DataError:
    return DataError(f"{name}null: there is no {what} in this row")


def _content(value: Any) -> tuple[bytes | None, str | None]:
    """Encoded image, and path, of a cell."""
    if isinstance(value, dict):
        return value["bytes"], value["path"]
    return (None, value) if isinstance(value, str) else (value, None)


# Packed data sets.


def _splits(source: str, columns: Columns) -> list[str]:
    manifest = read_manifest(Path(source))
    there = [split for split in manifest.shards if manifest.images(split)]
    if columns.split is None:
        return there
    if columns.split not in there:
        told = f"{source}: split={columns.split}: there is no such split"
        raise InputError(told, f"It has: {', '.join(there)}.")
    return [columns.split]


def _open_packed(source: str, names: list[str]) -> Read:
    splits = [open_packed(Data(dir=source, val_split=name), "validation") for name in names]
    ends = list(itertools.accumulate(len(split) for split in splits))

    def read(rows: range) -> Iterator[Item]:
        for row in rows:
            which = bisect.bisect_right(ends, row)
            split, index = splits[which], row - ends[which] + len(splits[which])
            yield Item(split.name(index), partial(_record, split, index))

    return read


def _record(split: PackedSplit, index: int) -> bytes:
    return split[index][0]


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()
