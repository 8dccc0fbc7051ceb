"""CSV lists: train.csv and val.csv (and test.csv) of lines `path,label|label`, header or not.

Also with a column a label, as Roboflow's train/_classes.csv and Kaggle's lists have; see `dialects`
for what else is understood.
"""

import csv
import posixpath
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from mlcls_jax.config import Convert
from mlcls_jax.data.convert.csv_columns import arrange
from mlcls_jax.data.convert.dataset_format import Format, file_ending, files_named
from mlcls_jax.data.convert.dialects import (
    STYLES,
    Line,
    Table,
    describe,
    find_style,
    flags,
    has_columns,
    has_header,
    is_blank,
    read_table,
    shown,
)
from mlcls_jax.data.convert.labelled import Labelled
from mlcls_jax.data.convert.listings import Entry, Listing, joined, note_contradictions
from mlcls_jax.data.convert.places import Places
from mlcls_jax.data.convert.reading import LeftOut, annotation_files
from mlcls_jax.data.image_files import is_image_name
from mlcls_jax.data.lists import labels_there
from mlcls_jax.errors import ConvertFailedError, raise_faults

_HINT = (
    "A line is `path,label|label`; or, after a header `path,cat,dog`, has 0, 1 or -1 for each"
    " label."
    " Quote paths that hold commas."
)


class _File(NamedTuple):
    """The list of a split."""

    table: Table
    header: list[str]  # its cells; none if there is none
    folders: list[Path]  # where its images may lie

    @property
    def path(self) -> Path:
        return self.table.path

    @property
    def lines(self) -> list[Line]:
        return self.table.lines[bool(self.header) :]


def read(root: Path, label_file: Path, options: Convert) -> Listing:
    """Read rows in the order of the files; an image on several lines has the labels of all.

    A path, unless absolute, is relative to train_images or val_images; where these are not given,
    to the file's own folder, to `root` if it begins with one of its folders, to images/ or to a
    folder of the file's name.
    """
    lists = annotation_files(
        root, options, lambda name: [root / f"{name}.csv", root / name / "_classes.csv"]
    )
    if "train" not in lists:
        raise ConvertFailedError(
            f"{root}: no CSV list of training images",
            "Name it train.csv, or set check_dataset.convert.train_annotations.",
        )
    images = {"train": options.train_images, "val": options.val_images or options.train_images}
    files: dict[str, _File] = {}
    told = []
    for split, path in lists.items():
        table, note = arrange(read_table(path), options.dialect)
        told += [f"{path}: {note}"] if note else []
        if split == "test" and all(len(fields) == 1 for _, fields in table.lines):
            told.append(f"{path}: left out: has no labels")
            continue
        folders = _usual_folders(root, path)
        places = Places(root, given=images.get(split), usual=folders)
        files[split] = _File(table, _header(table, places, options.dialect), folders)
    if empty := [file.path for file in files.values() if not file.lines]:
        raise ConvertFailedError(f"{empty[0]}: lists no images", _HINT)
    known = [label.name for label in labels_there(label_file)]
    dialect = _dialect([*files.values()], options.dialect, known=known)
    declared = _columns([*files.values()]) if dialect == "columns" else []
    told += _blanks([*files.values()]) if dialect == "columns" else []

    splits: dict[str, list[Entry]] = {}
    left_out: LeftOut = {}
    for split, file in files.items():
        splits[split] = _entries(file, dialect, left_out)
        told.append(describe(file.table, dialect, header=bool(file.header), rows=splits[split]))
    usual = {split: file.folders for split, file in files.items()}
    return Listing(splits, declared, folders=usual, left_out=left_out, told=tuple(told))


def _usual_folders(root: Path, path: Path) -> list[Path]:
    own = [path.parent] if path.parent != root else []
    return [*own, root, root / "images", root / path.stem]


def _header(table: Table, places: Places, dialect: str) -> list[str]:
    """Return the cells of the header; none if there is none."""
    is_there = bool(table.lines) if dialect == "columns" else has_header(table, places.has)
    return [field.strip() for field in table.lines[0].fields] if is_there else []


def _dialect(files: Sequence[_File], asked: str, *, known: Collection[str]) -> str:
    """Return the dialect that all files are written in.

    Raises:
      ConvertFailedError: it cannot be told for sure.
    """
    if asked != "auto":
        return asked
    if has_columns([line for file in files for line in file.lines]):
        return "columns"
    cells: dict[str, str] = {}
    for file in files:
        for number, (_, *rest) in file.lines:
            if len(rest) == 1 and (cell := rest[0].strip()):
                cells.setdefault(cell, f"{file.path}:{number}")
    return find_style(cells, known)


def _columns(files: Sequence[_File]) -> list[str]:
    """Return the labels that the headers name.

    Raises:
      ConvertFailedError: a file has no header, or names a label twice, or they name different ones.
    """
    first = files[0].header[1:]
    for file in files:
        names, place = file.header[1:], f"{file.path}:1"
        if not names or (flags(names) is not None and is_image_name(file.header[0])):
            raise ConvertFailedError(
                f"{place}: no header names the labels of the columns",
                "Begin the file with a line such as `path,cat,dog`.",
            )
        if twice := next((name for name, count in Counter(names).items() if count > 1), None):
            raise ConvertFailedError(f"{place}: several columns are named {shown(twice)}")
        if sorted(names) != sorted(first):
            raise ConvertFailedError(
                f"{place}: the columns are {shown(names)}, but {shown(first)} in {files[0].path}",
                "All lists must have the same columns.",
            )
    return first


def _blanks(files: Sequence[_File]) -> list[str]:
    """Return remarks on cells in which nothing stands.

    Raises:
      ConvertFailedError: it is open whether they mean 0 or -1, as no cell is 0.
    """
    rows = (cells for file in files for _, (_, *cells) in file.lines)
    has_zero = any(flags([cell]) == [0] for cells in rows for cell in cells)
    told = []
    for file in files:
        empty = (n for n, (_, *cells) in file.lines for cell in cells if is_blank(cell))
        places = [f"{file.path}:{number}" for number in empty]
        if places and not has_zero:
            raise ConvertFailedError(
                f"{places[0]}: does an empty cell mean that the label is absent, or not known?",
                "Write 0 for absent, -1 for not known.",
            )
        if places:
            told.append(f"{file.path}: {len(places)} empty cells: not known (-1)")
    return told


def _entries(file: _File, dialect: str, left_out: LeftOut) -> list[Entry]:
    """Return the images in their order; on several lines an image has the labels of all."""
    entries: dict[str, Entry] = {}
    faults, columns = [], file.header[1:]
    for number, fields in file.lines:
        image, *cells = (field.strip() for field in fields)
        values = _values(cells, dialect, columns)
        if values is None or not image:
            wanted = "`path,label|label`"
            if dialect == "columns" or len(columns) > 1:
                wanted = f"a path and {len(columns)} cells of 0, 1 or -1"
            elif dialect == "lists":
                wanted = "`path,['label', 'label']`"
            faults.append(f"{file.path}:{number}: {shown(fields)} is not {wanted}")
            continue
        image = posixpath.normpath(image)
        if before := entries.get(image):
            if dialect == "columns":
                note_contradictions(image, before.values, values, 0, left_out)
            entries[image] = before._replace(values=joined(before.values, values, rest=0))
        else:
            entries[image] = Entry(image, values, f"{file.path}:{number}")
    raise_faults(ConvertFailedError, faults, _HINT)
    return list(entries.values())


def _values(cells: list[str], dialect: str, columns: list[str]) -> dict[str, int] | None:
    """Return the labels of a line; None if it is malformed."""
    if dialect == "columns":
        values = flags(cells)
        if values is None or len(values) != len(columns):
            return None
        return {name: value for name, value in zip(columns, values, strict=True) if value}
    if len(cells) != 1:
        return None
    try:
        names = [name.strip() for name in STYLES[dialect](cells[0])]
        return {name: 1 for name in names if name}
    except ValueError:  # no list
        return None if cells[0] else {}


def _write(data: Labelled, folder: Path, _: str | None) -> list[str]:
    """Write a column for each label: only so labels may have any names."""
    for split, rows in data.splits.items():
        with (folder / f"{split}.csv").open("w", encoding="utf-8", newline="") as file:
            lines = csv.writer(file, lineterminator="\n")
            lines.writerow(["path", *data.labels])
            for picture in rows:
                assert picture.target is not None
                lines.writerow([picture.name, *picture.target])
    if len(data.labels) == 1:
        return ["A column of 0 and 1 may be read in two ways: --dialect columns reads it again."]
    return []


FORMAT = Format(
    read,
    "CSV lists (train.csv, or the file)",
    files_named("the CSV list", "train.csv"),
    of_file=file_ending("the CSV list", ".csv", ".tsv"),
    write=_write,
    holds_unknown=True,
)
