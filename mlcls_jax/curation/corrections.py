"""Lists of suspects as CSV, and what a person confirmed of them as new labels."""

import csv
import posixpath
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TextIO

from mlcls_jax.config import Data
from mlcls_jax.curation.judge import Suspect
from mlcls_jax.data.backups import recover, replace_files
from mlcls_jax.data.findings import Finding, is_error
from mlcls_jax.data.lists import (
    Row,
    checked_labels,
    find_root,
    groups_of,
    raise_findings,
    read_list,
)
from mlcls_jax.errors import DataError, raise_faults
from mlcls_jax.files import regular
from mlcls_jax.groups import close
from mlcls_jax.readable import csv_text

COLUMNS = ("image", "label", "given", "suggested", "confidence", "reason", "confirmed")

_Edits = dict[int, list[str]]  # line of a list → its values

_YES, _NO = ("1", "x", "y", "yes", "true"), ("", "0", "n", "no", "false")
_VALUES = ("0", "1", "-1")
_HINT = f"The audit writes the columns {', '.join(COLUMNS)}; put 1 into `confirmed`."


@dataclass(frozen=True)
class Correction:
    """A confirmed row."""

    line: int  # in the CSV
    image: str
    label: str
    given: str
    new: str


@dataclass(frozen=True)
class Applied:
    """What became of the confirmed rows."""

    root: Path
    changed: int  # entries
    before: int  # entries that had the new value already
    backups: dict[str, str]  # list → what its former content is called now


def as_csv(suspects: Iterable[Suspect], images: Sequence[str], labels: Sequence[str]) -> str:
    """Return the suspects as CSV; `images` are the names of the rows."""
    rows = (
        (images[s.row], labels[s.label], s.given, s.suggested, f"{s.doubt:.4f}", s.reason, "")
        for s in suspects
    )
    return csv_text([COLUMNS, *rows])


def read_confirmed(path: Path) -> list[Correction]:
    """Return the confirmed rows of a CSV.

    Raises:
      DataError: it cannot be read, lacks a column, or has other values; tells all lines at fault.
    """
    try:
        with regular(path).open(encoding="utf-8-sig", newline="") as file:
            # Spreadsheets of some countries write semicolons.
            header = file.readline()
            file.seek(0)
            reader = csv.DictReader(file, delimiter=";" if ";" in header else ",")
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read: {error}", _HINT) from error
    needed = {"image", "label", "given", "suggested", "confirmed"}
    if missing := needed - {*(reader.fieldnames or ())}:
        raise DataError(f"{path}: lacks the column {', '.join(sorted(missing))}", _HINT)
    found, faults = [], []
    for line, row in enumerate(rows, 2):
        answer = (row["confirmed"] or "").strip().lower()
        if answer not in _YES + _NO:
            faults.append(f"{path}:{line}: confirmed is {answer!r}, neither 1 nor 0")
        if answer not in _YES:
            continue
        given, new = ((row[name] or "").strip() for name in ("given", "suggested"))
        if given not in _VALUES or new not in _VALUES:
            faults.append(f"{path}:{line}: given and suggested must be 0, 1 or -1")
        image = posixpath.normpath(row["image"] or "")
        found.append(Correction(line, image, row["label"] or "", given, new))
    raise_faults(DataError, faults, _HINT)
    return found


def apply(data: Data, path: Path) -> Applied:
    """Write the confirmed rows of a CSV into the lists of the data; what was there is kept.

    An image that both lists have is corrected in both.

    Raises:
      DataError: the CSV or a list is malformed, or they do not fit together; nothing is changed.
    """
    confirmed = read_confirmed(path)
    root = find_root(Path(data.folder))
    lists = (data.train_list, data.val_list)
    recover(root, lists)
    labels = checked_labels(root / data.label_file)
    index, groups = {label.name: k for k, label in enumerate(labels)}, groups_of(labels)
    raise_faults(
        DataError,
        [
            f"{path}:{c.line}: no label is called {c.label!r}"
            for c in confirmed
            if c.label not in index
        ],
        f"The labels are those of {root / data.label_file}.",
    )
    wanted: dict[str, dict[int, Correction]] = {}  # image → label → what is to become of it
    for one in confirmed:
        wanted.setdefault(one.image, {})[index[one.label]] = one
    faults, seen, edits, counts = [], set[str](), dict[str, _Edits](), Counter[str]()
    for name in lists:
        if (root / name).exists():
            edits[name] = {}
            for row in _listed(root / name, len(labels), wanted):
                image = posixpath.normpath(row.image)
                seen.add(image)
                values = [str(value) for value in row.target.tolist()]
                close(row.target[None], groups)  # as the audit saw them
                for k, one in wanted[image].items():
                    if not {one.given, one.new} & {values[k], str(row.target[k])}:
                        faults.append(f"{path}:{one.line}: {name}:{row.line} has {values[k]} there")
                    counts["before" if values[k] == one.new else "changed"] += 1
                    values[k] = one.new
                edits[name][row.line] = values
    faults += [
        f"{path}:{c.line}: {c.image} is in no list" for c in confirmed if c.image not in seen
    ]
    raise_faults(DataError, faults, "The CSV is of other data, or these have changed: audit again.")
    writers = {
        name: partial(_write, source=root / name, edits=lines)
        for name, lines in edits.items()
        if lines
    }
    return Applied(root, counts["changed"], counts["before"], replace_files(root, writers))


def _listed(path: Path, num_classes: int, images: Container[str]) -> Iterator[Row]:
    """Yield the rows of a list that are about these images."""
    for row in read_list(path, num_classes, name=str(path)):
        if isinstance(row, Finding):
            raise_findings([row] if is_error(row) else [])
        elif posixpath.normpath(row.image) in images:
            yield row


def _write(file: TextIO, *, source: Path, edits: _Edits) -> None:
    """Write a list with other values in some lines, which are numbered as `read_list` does."""
    content = source.read_bytes().decode("utf-8-sig")
    for number, line in enumerate(content.replace("\r\n", "\n").replace("\r", "\n").split("\n"), 1):
        if number in edits:
            image = line.partition("\t")[0]
            line = f"{image}\t{','.join(edits[number])}"
        if line.strip():
            file.write(line + "\n")
