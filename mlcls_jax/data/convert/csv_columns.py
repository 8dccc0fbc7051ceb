"""Which columns of a CSV file count: the image's, then that of its labels, or one a label.

Tables that programs write have others as well: row numbers, sizes, boxes.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from mlcls_jax.data.convert.dialects import LABEL_WORDS, SAMPLE, Line, Table, has_columns, shown
from mlcls_jax.data.image_files import is_image_name
from mlcls_jax.errors import ConvertFailedError

_ROW_NUMBER = {"", "id", "index", "unnamed: 0"}
_SPLIT = {"split", "subset", "partition"}


class Arranged(NamedTuple):
    """A table whose first column is the image's, and how it came about."""

    table: Table
    told: str  # empty: the file has no other columns


def arrange(table: Table, dialect: str) -> Arranged:
    """Return the image's column and those of its labels, in this order.

    Raises:
      ConvertFailedError: several columns may hold the labels, or one says what a row is for.
    """
    width = max((len(line.fields) for line in table.lines), default=0)
    last = max(map(_filled, table.lines), default=0)
    filled = [*range(min(width, max(2, last)))]
    header = table.lines[0].fields if table.lines else []
    header = [] if any(map(is_image_name, header)) else header
    image = _image_column(table.lines, width)
    others = [k for k in filled if k != image]
    if len(header) > 2:
        others = _label_columns(table, header, image, others, dialect)
    order = [image, *others]
    if order == filled:
        return Arranged(_picked(table, order), "")
    told = "The image is in column " + (shown(header[image]) if header else str(image + 1))
    if header and len(others) == 1:
        told += f", labels are in {shown(header[others[0]])}"
    read = {*order}
    if passed := [header[k] for k in filled if k not in read and k < len(header)]:
        told += f"; not read: {', '.join(map(shown, passed))}"
    return Arranged(_picked(table, order), f"{told}.")


def _filled(line: Line) -> int:
    """Return how many columns there are up to the last one that holds something."""
    return next((k for k in range(len(line.fields), 0, -1) if line.fields[k - 1]), 0)


def _image_column(lines: Sequence[Line], width: int) -> int:
    """Return the first column that names images in most lines; 0 where none does."""
    sample = lines[: SAMPLE + 1]
    for k in range(width):
        named = sum(len(fields) > k and is_image_name(fields[k].strip()) for _, fields in sample)
        if named > (len(sample) - 1) / 2:
            return k
    return 0


def _label_columns(
    table: Table, header: Sequence[str], image: int, others: list[int], dialect: str
) -> list[int]:
    """Return those of the `others` that tell labels."""
    names = {k: header[k].strip().lower() for k in others if k < len(header)}
    if split := [k for k, name in names.items() if name in _SPLIT]:
        raise ConvertFailedError(
            f"{table.path}:1: the column {shown(header[split[0]])} seems to say which list a line"
            " belongs to",
            "Write the lines for training, validation and test to train.csv, val.csv and test.csv.",
        )
    numbered = [k for k in others if names.get(k) not in _ROW_NUMBER]
    flagged = has_columns(_picked(table, [image, *numbered]).lines[1:])
    named = [k for k, name in names.items() if LABEL_WORDS & {*re.split(r"[^a-z]+", name)}]
    if flagged or dialect == "columns" or not named:
        return numbered
    if len(named) > 1:
        raise ConvertFailedError(
            f"{table.path}:1: several columns may hold the labels:"
            f" {', '.join(shown(header[k]) for k in named)}",
            "Leave one of them in the file.",
        )
    return named


def _picked(table: Table, order: Sequence[int]) -> Table:
    lines = [
        Line(number, [fields[k] for k in order if k < len(fields)])
        for number, fields in table.lines
    ]
    return table._replace(lines=lines)
