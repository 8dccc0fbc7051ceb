"""In which way a CSV file is written: what divides its cells, its header, what its labels are.

What the files themselves do not decide is asked: no label is made up from a guess.
"""

import csv
import io
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from mlcls_jax.data.convert.listings import Entry
from mlcls_jax.data.convert.reading import annotation_text
from mlcls_jax.data.image_files import is_image_name
from mlcls_jax.errors import ConvertFailedError
from mlcls_jax.parsing import EXCEL, shorten

SHOWN = 3  # rows, as they are read
SAMPLE = 100  # rows that say what divides cells
_DELIMITERS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "pipes"}
_BLANK = ("", "nan", "null", "none", "na", "n/a")  # what programs write where nothing is known
_UNCLEAR = ("/", "+", "&", ":", "#", " and ")  # signs that divide in no dialect
_IMAGE_WORDS = {
    *("file", "files", "filename", "filenames", "filepath", "id", "image", "imageid", "imagename"),
    *("imagepath", "images", "img", "index", "name", "path", "paths", "photo", "picture", "uri"),
    "url",
}
LABEL_WORDS = {
    *("annotation", "annotations", "categories", "category", "class", "classes", "label", "labels"),
    *("tag", "tags", "target", "targets"),
}
_FLAGS = {
    **{"0": 0, "1": 1, "-1": -1, "0.0": 0, "1.0": 1, "-1.0": -1},
    **{"false": 0, "true": 1, "no": 0, "yes": 1},
    **dict.fromkeys(_BLANK, -1),
}
_NUMBER = re.compile(r"[-+]?\d+(\.\d*)?")
_QUOTED = r"""(?:'[^']*'|"[^"]*")"""
# As Python, JSON and NumPy write lists; without quotes only in square brackets.
_LIST = re.compile(
    rf"[\[({{]\s*(?:{_QUOTED}(?:[\s,]+{_QUOTED})*[\s,]*)?[\])}}]" r"|\[[^'\"\[\]]*\]"
)


def _items(cell: str) -> list[str]:
    if not _LIST.fullmatch(cell):
        raise ValueError
    quoted = re.findall(_QUOTED, cell)
    return [item[1:-1] for item in quoted] or cell[1:-1].split(",")


# dialect → the labels of a cell; "columns" has one a column
STYLES: dict[str, Callable[[str], list[str]]] = {
    "pipes": lambda cell: re.split("[|｜]", cell),
    "commas": lambda cell: re.split("[,，、]", cell),
    "semicolons": lambda cell: re.split("[;；]", cell),
    "spaces": str.split,
    "lists": _items,
    "single": lambda cell: [cell],
}


class Line(NamedTuple):
    """A line that is not blank."""

    number: int  # the first is 1
    fields: list[str]


class Table(NamedTuple):
    """A file, divided into cells."""

    path: Path
    delimiter: str
    lines: list[Line]


def read_table(path: Path) -> Table:
    """Return the cells of a file, whatever divides them.

    Raises:
      ConvertFailedError: it is not there, not UTF-8, or no CSV.
    """
    text = annotation_text(path, kind="file")
    usual = csv.field_size_limit(2**31 - 1)  # a cell may hold any number of labels
    try:
        return _divided(path, text)
    finally:
        csv.field_size_limit(usual)


def _divided(path: Path, text: str) -> Table:
    if told := EXCEL.match(text):  # a blank line, so that lines keep their numbers
        text = "\n" + text[told.end() :]
    delimiter = max(_DELIMITERS, key=lambda sign: _fitness(text, sign))
    lines = _reader(text, delimiter)
    try:
        rows = [Line(lines.line_num, fields) for fields in lines if any(map(str.strip, fields))]
    except csv.Error as error:
        raise ConvertFailedError(f"{path}:{lines.line_num}: is not CSV: {error}") from error
    return Table(path, delimiter, rows)


def _reader(text: str, delimiter: str):  # a reader, whose class has no public name
    lines = io.StringIO(text, newline="")
    return csv.reader(lines, strict=True, delimiter=delimiter, skipinitialspace=True)


def _fitness(text: str, delimiter: str) -> tuple[int, int]:
    """Count the first rows that begin with an image's name, and those that are divided at all."""
    images = divided = 0
    try:
        for fields in islice(_reader(text, delimiter), SAMPLE):
            divided += len(fields) > 1
            images += len(fields) > 1 and is_image_name(fields[0].strip())
    except csv.Error:
        pass  # told once the delimiter is chosen
    return images, divided


def has_header(table: Table, has_image: Callable[[str], bool]) -> bool:
    """Return whether the first line names the columns.

    Raises:
      ConvertFailedError: it may as well be an image that is not there.
    """
    if not table.lines:
        return False
    name, *rest = (field.strip() for field in table.lines[0].fields)
    if not name or is_image_name(name) or has_image(name):
        return False
    words = re.split(r"[ _-]", name.lower())
    if _IMAGE_WORDS.issuperset(words) or (rest and rest[0].lower() in LABEL_WORDS):
        return True
    if len(rest) > 1:
        below = table.lines[1 : 1 + SAMPLE]
        return flags(rest) is None and any(flags(line.fields[1:]) for line in below)
    number, fields = table.lines[0]
    raise ConvertFailedError(
        f"{table.path}:{number}: {shown(fields)}: is this a header, or an image that is not there?",
        "Call the first column of a header `path`, or correct the path of the image.",
    )


def flags(cells: Sequence[str]) -> list[int] | None:
    """Return what cells of 0, 1 and -1 say, -1 for empty ones; None if one is something else."""
    values = [_FLAGS.get(cell.strip().lower()) for cell in cells]
    known = [value for value in values if value is not None]
    return known if len(known) == len(values) else None


def has_columns(lines: Collection[Line]) -> bool:
    """Return whether lines have a cell of 0 or 1 for each of several labels."""
    rows = [line.fields[1:] for line in lines if len(line.fields) > 2]
    fitting = sum(flags(row) is not None and not all(map(is_blank, row)) for row in rows)
    return fitting > len(lines) / 2


def is_blank(cell: str) -> bool:
    """Return whether nothing stands in a cell, or what programs write for nothing."""
    return cell.strip().lower() in _BLANK


def find_style(cells: Mapping[str, str], known: Collection[str]) -> str:
    """Return the key of `STYLES` that label cells are written in; `cells` maps each to its place.

    `known` are labels that are known by other means: they decide where they can.

    Raises:
      ConvertFailedError: they may be read in several ways; shows each.
    """
    if cells and all(map(_is_row_of_values, cells)):
        cell, place = next(iter(cells.items()))
        raise ConvertFailedError(
            f"{place}: {shown(cell)}: no header says which label each value belongs to",
            "Give each label a column of its own and a header: `path,cat,dog`. If this is a list of"
            " an MLClsDataset, `path<TAB>0,1`, with its label.txt, it needs no conversion.",
        )
    if any(len(STYLES["pipes"](cell)) > 1 for cell in cells):
        tokens = _parts(cells, STYLES["pipes"])
        mixed = [s for s in ("commas", "semicolons") if _stand_alone(tokens, STYLES[s])]
        return _ask(cells, ["pipes", *mixed]) if mixed else "pipes"
    lists = [cell for cell in cells if _LIST.fullmatch(cell)]
    if lists:
        return "lists" if len(lists) == len(cells) else _ask(cells, ["lists", "single"])
    is_known = set(cells) <= set(known)
    is_flag = flags(list(cells)) is not None
    if cells and (is_flag or all(map(_NUMBER.fullmatch, cells))) and not is_known:
        return _ask(cells, ["single", "columns"] if is_flag else ["single"])
    usual = ("commas", "semicolons")
    styles = [s for s in usual if any(len(STYLES[s](cell)) > 1 for cell in cells)]
    if not styles and not is_known and (unclear := _of_other_labels(cells)):
        return _ask({unclear: cells[unclear]}, ["single"])
    if not styles and not any(len(cell.split()) > 1 for cell in cells):
        return "single"
    styles = styles or ["spaces"]
    parts = {style: _parts(cells, STYLES[style]) for style in styles}
    fitting = [s for s in (*styles, "single") if parts.get(s, set(cells)) <= set(known)]
    if fitting:
        return fitting[0]
    if styles == ["spaces"]:
        # Blanks are usual within names: "traffic light". Many names of few words are not.
        is_likely = _stand_alone(cells, str.split) or len(parts["spaces"]) <= len(cells)
        return _ask(cells, ["spaces", "single"]) if is_likely else "single"
    if len(styles) == 1 and _recur(cells, STYLES[styles[0]]):
        return styles[0]
    return _ask(cells, [*styles, "single"])


def _is_row_of_values(cell: str) -> bool:
    values = re.split(r"[,;\s]+", cell)
    return len(values) > 1 and {"0", "1", "-1"}.issuperset(values)


def _parts(cells: Iterable[str], divide: Callable[[str], list[str]]) -> set[str]:
    return {part.strip() for cell in cells for part in divide(cell)} - {""}


def _stand_alone(cells: Collection[str], divide: Callable[[str], list[str]]) -> bool:
    """Return whether a part of a cell is elsewhere the whole of one."""
    divided = (cell for cell in cells if len(divide(cell)) > 1)
    return any(part in cells for part in _parts(divided, divide))


def _of_other_labels(cells: Collection[str]) -> str | None:
    """Return a cell such as cat/dog where cat and dog are whole cells, too; None: there is none."""
    for cell in cells:
        for parts in (cell.split(sign) for sign in _UNCLEAR):
            if len(parts) > 1 and all(part.strip() in cells for part in parts):
                return cell
    return None


def _recur(cells: Collection[str], divide: Callable[[str], list[str]]) -> bool:
    """Return whether a part is in several of these different cells."""
    return len(_parts(cells, divide)) < sum(len(_parts([cell], divide)) for cell in cells)


def _ask(cells: Mapping[str, str], styles: Sequence[str]) -> str:
    """Raise ConvertFailedError: shows a cell as each style reads it."""

    def read(cell: str, style: str) -> list[str]:
        try:
            return [part.strip() for part in STYLES[style](cell)]
        except (KeyError, ValueError):  # columns; lists
            return []

    told = max(cells, key=lambda cell: len({tuple(read(cell, style)) for style in styles}))
    lines = [f"{cells[told]}: {shown(told)}: which labels are these?"]
    for style in styles:
        labels = shorten(", ".join(map(repr, read(told, style))))
        if style == "columns":
            labels = "the header's label, where 1 stands"
        lines.append(f"  dialect={style}: {labels or 'not readable so'}")
    hint = (
        f"Add --config.check_dataset.convert.dialect={styles[0]} (mlcls convert: --dialect"
        f" {styles[0]}){' or another' if len(styles) > 1 else ''}, or write labels as cat|dog."
    )
    raise ConvertFailedError("\n".join(lines), hint)


def shown(value: object) -> str:
    """For a message."""
    return shorten(repr(value))


def describe(table: Table, dialect: str, *, header: bool, rows: Sequence[Entry]) -> str:
    """Describe how a file was read, with its first rows."""
    first = f"its line {table.lines[0].number} is a header" if header else "no header"
    lines = [
        f"{table.path}: cells divided by {_DELIMITERS[table.delimiter]}; {first};"
        f" dialect={dialect}. As read:"
    ]
    for name, values, *_ in rows[:SHOWN]:
        labels = sorted(label for label, value in values.items() if value == 1)
        lines.append(f"    {shorten(name)}: {shorten(', '.join(labels)) or '(no label)'}")
    if dialect == "single" and any(len(name.split()) > 1 for row in rows for name in row.values):
        lines.append("    Blanks belong to the names; dialect=spaces would divide there.")
    return "\n".join(lines)
