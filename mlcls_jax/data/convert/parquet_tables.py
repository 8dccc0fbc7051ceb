"""Parquet and Arrow tables with a column of images and columns of labels.

As the Hugging Face hub and `datasets` have them, and as a data frame is saved. Images are encoded
bytes, structs of `bytes` and `path`, or paths. Labels are a column of numbers or texts, or of
lists of these, with an `unknown` one beside it if need be; or a column of 1, 0 and -1 for each.
Numbers get the names that the hub's description of the columns has.
"""

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NamedTuple

from mlcls_jax import lazy
from mlcls_jax.bars import progress
from mlcls_jax.config import Convert
from mlcls_jax.data.convert.dataset_format import Format, Sign, file_ending
from mlcls_jax.data.convert.labelled import Labelled, Picture
from mlcls_jax.data.convert.listings import Entry, Listing
from mlcls_jax.data.convert.reading import SPLIT_FOLDERS, LeftOut, split_of_file
from mlcls_jax.data.image_files import read_file
from mlcls_jax.errors import ConvertFailedError, DataError
from mlcls_jax.parsing import parse_json, shorten
from mlcls_jax.remote import open_store, store_errors

HUB = "hf://datasets/"
LABELS = ("labels", "label", "tags", "categories", "classes")  # usual names of the column
UNKNOWN = "unknown"  # the column of labels that are not known
_IMAGES = ("image", "image_path", "path", "file", "file_name", "filename", "filepath", "img")
_OFFLINE = "Where there is no network: fetch its Parquet files elsewhere, and name their folder."
_ROWS = 64  # of paths, decoded at once; of images in a group of what is written
_SUFFIXES = (".parquet", ".arrow")


class _Columns(NamedTuple):
    """Which columns are read, and what numbers of labels mean."""

    image: str
    labels: str | None  # None: a column a label
    flags: tuple[str, ...]
    names: list[str]

    @property
    def used(self) -> list[str]:
        return [self.image, *filter(None, [self.labels]), *self.flags]


def parquet_files(place: str) -> list[str]:
    """Return the Parquet files in a folder of a store, the hub for instance, and below it.

    Raises:
      DataError: there are none, or the place cannot be reached.
      UserError: the library that reaches it is missing.
    """
    with (
        store_errors(place, DataError, _OFFLINE),
        lazy.optional(f"{place} is read through a library", extra="hub"),
    ):
        store, path = open_store(place)
        found = sorted(store.glob(f"{path.rstrip('/')}/**/*.parquet"))
        if not found:
            raise DataError(
                f"{place}: there are no Parquet files",
                "The hub makes some of most data sets: add @refs/convert/parquet to the name.",
            )
        return [store.unstrip_protocol(name) for name in found]


def read(root: Path, label_file: Path, options: Convert) -> Listing:
    """Read the tables of a folder or of the hub, in the order of their names.

    What a file is for is told by its name, `validation-00000-of-00001.parquet` for instance, or its
    folder; all is for training where none begins so.
    """
    with lazy.optional("Parquet files are read by pyarrow", extra="score"):
        import pyarrow.parquet  # noqa: F401  (before anything is written)
    named = options.train_annotations
    if named and "://" in named:
        files = parquet_files(named)
    else:
        files = [str(root / named)] if named else [str(path) for path in _tables(root)]
    if options.val_annotations:
        files.append(str(root / options.val_annotations))
    if not files:
        raise ConvertFailedError(f"{root}: there are no Parquet or Arrow files")
    splits: dict[str, list[str]] = {}
    for name in files:
        is_val = bool(options.val_annotations) and name == files[-1]
        splits.setdefault("val" if is_val else split_of_file(PurePosixPath(name)), []).append(name)
    labels: list[str] = []
    for name in files:  # all headers, before hours are spent on images
        columns = _columns(name)
        labels = labels or columns.names or [*columns.flags]
    left_out: LeftOut = {}
    entries = {split: _entries(names, left_out) for split, names in splits.items()}
    return Listing(entries, labels, left_out=left_out)


def write_frame(frame: Any, path: Path) -> None:
    """Write a data frame, of pandas or another library that speaks Arrow, as a table to read.

    Paths of images in it become whole ones: they are relative to the current folder.

    Raises:
      DataError: it is none, or holds what Parquet cannot.
    """
    with lazy.optional("data frames are read by pyarrow", extra="score"):
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    try:
        if hasattr(frame, "to_parquet"):  # of pandas
            table = arrow.Table.from_pandas(frame, preserve_index=False)
        else:
            table = arrow.table(frame)
    except (arrow.ArrowException, TypeError, ValueError) as error:
        raise DataError(
            f"{type(frame).__name__}: is no data frame of images and labels: {shorten(error)}",
            "It has a column `path` or `image`, and one `labels` of lists or one for each label.",
        ) from error
    for name in _IMAGES:
        values = table.column(name).to_pylist() if name in table.column_names else []
        if any(isinstance(value, str) for value in values):
            whole = [value and os.path.abspath(value) for value in values]
            place = table.column_names.index(name)
            table = table.set_column(place, name, arrow.array(whole, arrow.string()))
            break
    parquet.write_table(table, path)


def _tables(root: Path) -> list[Path]:
    places = [root, root / "data", *(root / name for name in SPLIT_FOLDERS)]
    return sorted(p for place in places for end in _SUFFIXES for p in place.glob(f"*{end}"))


def _batches(name: str, used: Sequence[str] | None) -> Iterator[Any]:
    """Yield the schema of a table, and then batches of its rows, with these columns.

    Raises:
      ConvertFailedError: it is damaged.
    """
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    store, path = open_store(name)
    try:
        with store_errors(name, DataError), store.open(path, "rb") as opened:
            if not name.endswith(".arrow"):
                table = parquet.ParquetFile(opened)
                yield table.schema_arrow
                rows = rows_at_once(table.schema_arrow, used)
                yield from table.iter_batches(batch_size=rows, columns=used)
                return
            # Of `datasets`, a stream; of others, a file.
            is_file = opened.read(6) == b"ARROW1"
            opened.seek(0)
            kind = arrow.ipc.open_file if is_file else arrow.ipc.open_stream
            with kind(opened) as table:
                yield table.schema
                numbers = range(table.num_record_batches) if is_file else ()
                for batch in map(table.get_batch, numbers) if is_file else table:
                    batch = batch.select(used)
                    rows = rows_at_once(batch.schema, used)
                    yield from (batch.slice(n, rows) for n in range(0, batch.num_rows, rows))
    except (arrow.ArrowException, OSError) as error:  # OSError: of a damaged page, too
        raise ConvertFailedError(f"{name}: is no such table: {shorten(error)}") from error


def rows_at_once(schema: Any, used: Sequence[str] | None) -> int:
    """Return how many rows to decode: one of images, which a small file can repeat without end."""
    kinds = (column_kind(field.type) for field in schema if used is None or field.name in used)
    return 1 if any(kind in ("bytes", "struct") for kind in kinds) else _ROWS


def column_kind(kind: Any) -> Literal["text", "bytes", "struct"] | None:
    """Return what an Arrow type can hold of an image: a path, its content, or both in a struct."""
    import pyarrow as arrow

    if arrow.types.is_dictionary(kind):  # as pandas writes its categories
        kind = kind.value_type
    if kind in (arrow.string(), arrow.large_string(), arrow.string_view()):
        return "text"
    if kind in (arrow.binary(), arrow.large_binary(), arrow.binary_view()):
        return "bytes"
    is_image = arrow.types.is_struct(kind) and any(field.name == "bytes" for field in kind)
    return "struct" if is_image else None


def _columns(name: str) -> _Columns:
    """Return the columns of images and labels, and the names of numbered labels.

    Raises:
      ConvertFailedError: there are no such columns, or several.
    """
    import pyarrow.types as types

    schema = next(_batches(name, None))
    kinds = {field.name: field.type for field in schema}

    def is_label(kind: Any) -> bool:
        is_list = types.is_list(kind) or types.is_large_list(kind)
        kind = kind.value_type if is_list else kind
        return types.is_integer(kind) or column_kind(kind) == "text"

    def is_flag(kind: Any) -> bool:
        return types.is_integer(kind) or types.is_boolean(kind) or types.is_floating(kind)

    images = [c for c, kind in kinds.items() if column_kind(kind) in ("bytes", "struct")]
    images = images or [c for c in _IMAGES if c in kinds and column_kind(kinds[c]) == "text"][:1]
    labels = next((c for c in LABELS if c in kinds and is_label(kinds[c])), None)
    others = {column: kind for column, kind in kinds.items() if column not in images}
    flags = () if labels else (*(c for c in others if not c.startswith("__")),)
    if len(images) != 1 or not (labels or (flags and all(is_flag(others[c]) for c in flags))):
        told = ", ".join(f"{column} ({kind})" for column, kind in kinds.items())
        raise ConvertFailedError(
            f"{name}: no column of images and one of labels: {shorten(told)}",
            f"The labels' column is one of {', '.join(LABELS)}: numbers, texts, or lists of them."
            f" Or all columns but the image's are labels, of 1, 0 and -1.",
        )
    content = (schema.metadata or {}).get(b"huggingface", b"{}")
    feature = parse_json(content, f"{name}: its description", ConvertFailedError)
    for key in ("info", "features", labels):
        feature = feature.get(key) if isinstance(feature, dict) else None
    if labels and UNKNOWN in kinds and kinds[UNKNOWN] == kinds[labels]:
        flags = (UNKNOWN,)
    names = _names(feature)
    if wrong := [one for one in names if not isinstance(one, str)]:
        raise ConvertFailedError(
            f"{name}: its description has {shorten(wrong[0])} as the name of a label"
        )
    return _Columns(images[0], labels, flags, names)


def _names(feature: Any) -> list[str]:
    """Return the names in the hub's description of a column, or of what its lists hold."""
    while isinstance(feature, dict | list):
        if isinstance(feature, list):
            feature = next(iter(feature), None)
        elif isinstance(feature.get("names"), list):
            return feature["names"]
        else:
            feature = feature.get("feature")
    return []


def _entries(files: Sequence[str], left_out: LeftOut) -> Iterator[Entry]:
    """Yield the image and the labels of each row; those without, null or the hub's -1, are told."""
    for name in files:
        columns, number = _columns(name), 0
        batches = _batches(name, columns.used)
        next(batches)
        for batch in batches:
            for row in batch.to_pylist():
                number += 1
                image = row[columns.image]
                if isinstance(image, dict):
                    image = image["bytes"] or image.get("path")
                place = f"{name}: row {number}"
                label = row[columns.labels] if columns.labels else ()
                if label is None or (columns.names and label == -1):
                    left_out.setdefault("rows without labels", []).append(place)
                    continue
                yield Entry(image or b"", _values(row, columns, place), place)


def _values(row: dict[str, Any], columns: _Columns, place: str) -> dict[str, int]:
    if columns.labels:
        unknown = row.get(UNKNOWN) if columns.flags else None
        known = row[columns.labels]
        return {
            _name(label, columns.names, place): value
            for labels, value in ((unknown, -1), (known, 1))
            for label in (labels if isinstance(labels, list) else [labels])
            if label is not None
        }
    values = {}
    for label in columns.flags:
        value = row[label]
        value = -1 if value is None or value != value else value  # null, or NaN
        if value not in (0, 1, -1):
            raise ConvertFailedError(
                f"{place}: {label} is {value}, which is neither 1, 0 nor -1",
                "If this column is no label, leave it out.",
            )
        values[label] = int(value)
    return values


def _name(label: int | str, names: list[str], place: str) -> str:
    if not names or isinstance(label, str):
        return str(label)
    if not 0 <= label < len(names):
        raise ConvertFailedError(f"{place}: label {label}, but there are {len(names)} names")
    return names[label]


def _usual(folder: Path) -> Iterator[Sign]:
    if files := _tables(folder):
        kind = "Arrow" if files[0].suffix == ".arrow" else "Parquet"
        yield Sign(f"{kind} files ({files[0].name}{', …' if len(files) > 1 else ''})")


def _write(data: Labelled, folder: Path, _: str | None) -> list[str]:
    """Write data/SPLIT-00000-of-N.parquet, with the description that `load_dataset` reads."""
    with lazy.optional("Parquet files are written by pyarrow", extra="score"):
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    (folder / "data").mkdir()
    labels = {"feature": {"names": [*data.labels], "_type": "ClassLabel"}, "_type": "Sequence"}
    features = {"image": {"_type": "Image"}, "labels": labels, UNKNOWN: labels}
    classes = arrow.list_(arrow.int64())
    image = arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])
    schema = arrow.schema(
        [("image", image), ("labels", classes), (UNKNOWN, classes)],
        {"huggingface": json.dumps({"info": {"features": features}})},
    )
    for split, rows in data.splits.items():
        name = {"val": "validation"}.get(split, split)
        files = range(0, len(rows), _ROWS_OF_A_FILE)
        for number, first in enumerate(files):
            path = folder / "data" / f"{name}-{number:05}-of-{len(files):05}.parquet"
            with parquet.ParquetWriter(path, schema) as file:
                part = rows[first : first + _ROWS_OF_A_FILE]
                for start in progress(range(0, len(part), _ROWS), desc=path.name, unit=" groups"):
                    few = part[start : start + _ROWS]
                    file.write_table(arrow.Table.from_pylist([*map(_row, few)], schema))
    place = str(folder)
    return [f"Hugging Face datasets reads it by: datasets.load_dataset({place!r})"]


_ROWS_OF_A_FILE = 10_000


def _row(picture: Picture) -> dict[str, Any]:
    assert picture.target is not None
    content = {"bytes": read_file(picture.file), "path": PurePosixPath(picture.name).name}
    values = {"labels": 1, UNKNOWN: -1}
    lists = {key: (picture.target == v).nonzero()[0].tolist() for key, v in values.items()}
    return {"image": content, **lists}


FORMAT = Format(
    read,
    "Parquet or Arrow files with images, or their paths, and labels in them, also of the hub"
    " (hf://datasets/OWNER/NAME)",
    _usual,
    of_file=file_ending("the table", *_SUFFIXES),
    write=_write,
    holds_unknown=True,
    embeds=True,
)
