"""An MLClsDataset's text files: the one reader of label.txt and lists, for training and check.

Files are read as bytes, line by line. Byte order marks and the line ends of Windows and old Macs
are accepted and told; where a line is malformed, its place is told and reading goes on.
"""

import codecs
import os
import posixpath
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import islice, takewhile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mlcls_jax.data.findings import KINDS, Finding, is_error
from mlcls_jax.errors import DataError, DatasetFileNotFoundError, raise_faults
from mlcls_jax.files import regular
from mlcls_jax.groups import LEVELS, NO_GROUPS, NONE, Groups, endless
from mlcls_jax.readable import shorten

TEST_LIST = "test.txt"  # the others' names are options

MAX_NAME = 1000  # characters of a label: pictures and messages hold no megabyte

_ZERO, _COMMA = b"0,"
_VALUES = np.array([0, 1, -1], np.int8)
_UNDIVIDED = {  # values that something else than commas divides
    "spaces": re.compile(rb"(?:[01]|-1)(?:\s+(?:[01]|-1))+"),
    "semicolons": re.compile(rb"(?:[01]|-1)(?:\s*;\s*(?:[01]|-1))+"),
}
_DIVIDER = re.compile(r"[\s,;]+")
_SIGNS = {",": "comma", ";": "semicolon"}
# What follows a TAB otherwise belongs to the name, as it did before there were columns.
COLUMNS = re.compile(r"\t[ \t]*(parent|group)=")
_DRIVE = re.compile(r"[A-Za-z]:[/\\]")


class Label(NamedTuple):
    """A line of a label file."""

    name: str
    parent: str | None = None  # the label that it is a kind of
    group: str | None = None  # of labels of which an image has one at most
    line: int = 0


class Row(NamedTuple):
    """A well-formed line of a list."""

    line: int  # the first is 1
    image: str  # path relative to the data set, as it is written
    target: np.ndarray  # int8 [K]: 1 present, 0 absent, -1 not annotated


def find_root(folder: Path) -> Path:
    """Return the folder that holds `images`, which may be nested below `folder`.

    Raises:
      DatasetFileNotFoundError: there is no such folder, or no `images` in it.
      DataError: several folders hold `images`; lists them.
    """
    if not folder.is_dir():
        raise DatasetFileNotFoundError(f"{folder}: there is no such folder", "Check the path.")
    if (folder / "images").is_dir():
        return folder
    found = []
    for here, folders, _ in os.walk(folder):
        if "images" in folders:
            found.append(Path(here))
            folders.clear()  # images/ may hold another folder named images
    if len(found) == 1:
        return found[0]
    if not found:
        raise DatasetFileNotFoundError(
            f"{folder}: holds no folder named images",
            "An MLClsDataset has images/, label.txt, train.txt and val.txt.",
        )
    listed = ", ".join(map(str, found[:5]))
    raise DataError(f"{folder}: several data sets in it: {listed}", "Set data.dir to one of them.")


def labels_there(path: Path) -> list[Label]:
    """Return the labels of a file in their order; none if it is missing or malformed."""
    labels, findings = read_label_lines(path, name=path.name)
    return [] if any(map(is_error, findings)) else [labels[index] for index in sorted(labels)]


def read_label_lines(path: Path, *, name: str) -> tuple[dict[int, Label], list[Finding]]:
    """Labels by index, from lines `<index> <name>`, and what is to be said about the file.

    TAB-separated columns `parent=<name>` and `group=<name>` may follow. Without an error among the
    findings the indices are 0 … K - 1 and parents are labels. `name` is what findings call the
    file.
    """
    labels: dict[int, Label] = {}
    taken: set[str] = set()
    findings = []
    for item in _lines(path, name=name):
        finding = item if isinstance(item, Finding) else _add_label(*item, labels, taken, name=name)
        if finding:
            findings.append(finding)
    faults = sum(map(is_error, findings))
    gaps = (i for i in range(max(labels, default=-1) + 1) if i not in labels)
    missing = list(islice(gaps, max(10, faults + 1)))  # one wrong index may leave millions
    if len(missing) > faults:  # else the faulty lines may be the missing ones
        shown = ", ".join(map(str, missing[:10]))
        message = f"indices must run from 0 without gaps; missing: {shown}"
        findings.append(Finding("label_gap" if 0 in labels else "label_start", name, message))
    if not labels and not faults:
        findings.append(Finding("empty_labels", name, "is empty"))
    return labels, [*findings, *_parent_faults(labels.values(), name=name)]


def checked_labels(path: Path, *, name: str = "", kind: type[DataError] = DataError) -> list[Label]:
    """Return the labels in their order; `name` is what errors call the file.

    Raises:
      kind: the file is missing or malformed; tells every fault.
    """
    labels, findings = read_label_lines(path, name=name or str(path))
    raise_findings([finding for finding in findings if is_error(finding)], kind)
    return [labels[index] for index in range(len(labels))]


def label_names(
    path: Path, *, name: str = "", kind: type[DataError] = DataError
) -> tuple[str, ...]:
    """Return the names of the labels in their order; see `checked_labels`."""
    return tuple(label.name for label in checked_labels(path, name=name, kind=kind))


def groups_of(labels: Sequence[Label]) -> Groups:
    """Return the groups that the columns of a label file without errors tell."""
    places = {label.name: index for index, label in enumerate(labels)}
    names = dict.fromkeys(label.group for label in labels if label.group)
    numbers = {name: number for number, name in enumerate(names)}
    parents = tuple(NONE if one.parent is None else places[one.parent] for one in labels)
    exclusive = tuple(NONE if one.group is None else numbers[one.group] for one in labels)
    groups = Groups(parents, exclusive)
    return groups if groups else NO_GROUPS


def read_list(path: Path, num_classes: int, *, name: str) -> Iterator[Row | Finding]:
    """Yield the lines of a list in their order: rows, and findings about lines and file.

    `name` is what findings call the file; a finding about values names the line's image. Nothing
    is kept: memory does not grow with the list.
    """
    is_empty = True
    for item in _lines(path, name=name):
        if not isinstance(item, Finding):
            item = _parse_row(*item, num_classes, name=name)
        is_empty = is_empty and isinstance(item, Finding) and not is_error(item)
        yield item
    if is_empty:
        yield Finding("empty_list", name, "lists no images")


def usual_columns(paths: Iterable[Path]) -> int:
    """Return the number of values that most lines of these lists have; 0 where none has a TAB."""
    counts: Counter[int] = Counter()
    for path in paths:
        for item in _lines(path, name=path.name):
            if not isinstance(item, Finding):
                _, tab, values = item[1].partition(b"\t")
                counts.update([values.count(b",") + 1] if tab else [])
    return counts.most_common(1)[0][0] if counts else 0


def raise_findings(findings: Collection[Finding], kind: type[DataError] = DataError) -> None:
    """Raise one error that tells all findings, with the first one's remedy; none: do nothing."""
    told = [f"{finding.place}: {finding.message}" for finding in findings]
    remedy = next((KINDS[finding.kind].remedy for finding in findings), None)
    raise_faults(kind, told, remedy)


def _lines(path: Path, *, name: str) -> Iterator[tuple[int, bytes] | Finding]:
    """Number and content of every line that is not blank."""
    number, is_plain = 0, True
    try:
        with regular(path).open("rb") as file:
            for chunk in file:
                if number == 0:
                    if chunk.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                        yield Finding("not_utf8", name, "is not UTF-8: it begins as UTF-16 does")
                        return
                    if chunk.startswith(codecs.BOM_UTF8):
                        yield Finding("bom", f"{name}:1", "begins with a byte order mark")
                        chunk = chunk[len(codecs.BOM_UTF8) :]
                if is_plain and b"\r" in chunk:
                    ending = "CR LF" if b"\r\n" in chunk else "CR"
                    yield Finding("line_ends", f"{name}:{number + 1}", f"ends in {ending}")
                    is_plain = False
                content = chunk.removesuffix(b"\n").removesuffix(b"\r")
                for line in content.split(b"\r"):
                    number += 1
                    if line.strip():
                        yield number, line
                    else:
                        yield Finding("blank_line", f"{name}:{number}", "is blank")
    except FileNotFoundError:
        yield Finding("missing_file", name, "there is no such file")
    except OSError as error:
        yield Finding("unreadable_file", name, f"cannot be read: {error.strerror}")


def _add_label(
    number: int, content: bytes, labels: dict[int, Label], taken: set[str], *, name: str
) -> Finding | None:
    """Put one line's label into `labels` and `taken`, or say why not."""
    place = f"{name}:{number}"
    try:
        line = content.decode()
    except UnicodeDecodeError as error:
        return Finding("not_utf8", place, f"is not UTF-8: {error}")
    text, *columns = COLUMNS.split(line.strip())  # keys and values in turn
    index, _, label = (part.strip() for part in text.partition(" "))
    if not index.isdecimal() or len(index) > 18 or not label:
        return Finding("label_line", place, f"{shorten(line, 60)!r} is not `<index> <name>`")
    if len(label) > MAX_NAME:
        told = f"{shorten(repr(label), 60)} has {len(label):,} characters, more than {MAX_NAME:,}"
        return Finding("label_name", place, f"the name {told}")
    if int(index) in labels:
        return Finding("label_index", place, f"index {index} was given before")
    if label in taken:
        return Finding("label_name", place, f"the name {label!r} was given before")
    keys, values = columns[::2], [value.strip() for value in columns[1::2]]
    if len({*keys}) < len(keys) or not all(values):
        return Finding("label_line", place, "a column is there twice, or has no value")
    given = dict(zip(keys, values, strict=True))
    labels[int(index)] = Label(label, given.get("parent"), given.get("group"), number)
    taken.add(label)
    return None


def _parent_faults(labels: Collection[Label], *, name: str) -> Iterator[Finding]:
    """Yield what is wrong with parents: no label, a way up without an end, or one excluded."""
    known = {label.name: number for number, label in enumerate(labels)}
    parents = []
    for label in labels:
        if label.parent is not None and label.parent not in known:
            message = f"the parent {label.parent!r} is no label"
            yield Finding("label_parent", f"{name}:{label.line}", message)
        parents.append(NONE if label.parent is None else known.get(label.parent, NONE))
    if (number := endless(parents)) is not None:
        label = [*labels][number]
        yield Finding(
            "label_parent",
            f"{name}:{label.line}",
            f"ancestors of {label.name!r} do not end within {LEVELS} levels",
        )
        return
    ordered = [*labels]
    for label, number in zip(labels, parents, strict=True):
        while label.group and number != NONE:
            if (above := ordered[number]).group == label.group:
                message = f"{label.name!r} excludes {above.name!r}, of which it is a kind"
                yield Finding("label_parent", f"{name}:{label.line}", message)
            number = parents[number]


def _parse_row(number: int, content: bytes, num_classes: int, *, name: str) -> Row | Finding:
    place = f"{name}:{number}"
    try:
        line = content.decode()
    except UnicodeDecodeError as error:
        return Finding("not_utf8", place, f"is not UTF-8: {error}")
    head, tab, _ = line.partition("\t")
    image, fault = head.strip() if tab else "", list[str]()
    _, _, values = content.partition(b"\t")
    target = _parse_values(values, num_classes)
    if not image:
        image, *fault = _fault_of_line(line)
    elif target is None:
        fault = [*_fault_of_values(values, num_classes)]
    if _leaves_folder(image):
        return Finding("leaves_folder", place, f"{image!r} leaves the data set's folder")
    if target is None or fault:
        kind, message = fault
        return Finding(kind, place, message, image or None)
    return Row(number, image, target)


def _parse_values(text: bytes, num_classes: int) -> np.ndarray | None:
    """Return targets int8 [K] of b"0,1,-1"; None unless they are K of these values."""
    text = b"".join(text.split())
    if b"2" in text:
        return None
    codes = np.frombuffer(text.replace(b"-1", b"2"), np.uint8)  # one byte a value
    if len(codes) != 2 * num_classes - 1 or (codes[1::2] != _COMMA).any():
        return None
    values = codes[::2] - _ZERO  # below "0" it wraps around
    return None if values.max() > 2 else _VALUES[values]


def _fault_of_line(line: str) -> tuple[str, str, str]:
    """Image, kind and message of a line without TAB or image; the image is "" if none is seen."""
    message = f"{shorten(line, 60)!r} is not `<image><TAB>0,1,0,…`"
    text = "" if "\t" in line else line.strip()
    parts, dividers = _DIVIDER.split(text), list(_DIVIDER.finditer(text))
    count = sum(1 for _ in takewhile(lambda part: part in ("0", "1", "-1"), reversed(parts)))
    if not 0 < count < len(parts):
        return "", "list_line", message
    divider = dividers[-count]  # before the first value
    sign = next((name for sign, name in _SIGNS.items() if sign in divider.group()), "space")
    return text[: divider.start()], "delimiter", f"{message}: it has a {sign} for the TAB"


def _fault_of_values(values: bytes, num_classes: int) -> tuple[str, str]:
    """Kind and message."""
    for divider, pattern in _UNDIVIDED.items():
        if pattern.fullmatch(values.strip()):
            shown = shorten(values.decode().strip(), 60)
            return "delimiter", f"{divider} divide the values {shown!r}, not commas"
    cells = b"".join(values.split()).split(b",")
    if len(cells) != num_classes:
        return "columns", f"{len(cells)} values, but there are {num_classes} labels"
    column = next(i for i, cell in enumerate(cells) if cell not in (b"0", b"1", b"-1"))
    cell = shorten(cells[column].decode(), 60)
    return "value", f"{cell!r} in column {column + 1} is neither 0, 1 nor -1"


def _leaves_folder(image: str) -> bool:
    if image.startswith("/") or _DRIVE.match(image):
        return True
    if ".." not in image:
        return False
    return posixpath.normpath(image.replace("\\", "/")).split("/")[0] == ".."
