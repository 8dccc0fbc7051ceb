"""Findings of a data set check: the types that the checker fills and the report shows."""

from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from mlcls_jax.files import replacing
from mlcls_jax.readable import printable

Severity = Literal["error", "warning", "note"]

MAX_SHOWN = 1000  # findings of one kind kept in memory; the rest are counted and in findings.txt


class Kind(NamedTuple):
    """A sort of finding."""

    severity: Severity  # only errors fail the check
    title: str  # for a heading: "images that cannot be decoded"
    remedy: str  # what would be right, and how to get there


class Finding(NamedTuple):
    """One thing that is wrong, or worth knowing, at one place."""

    kind: str  # key of KINDS
    place: str  # file and line relative to the data set, "train.txt:12"; or "train, val"
    message: str  # what is there, with the value at fault
    image: str | None = None  # the picture it is about, relative to the data set
    twin: str | None = None  # another that is to be seen beside it


@dataclass
class Group:
    """All findings of one kind."""

    name: str  # key of KINDS
    kind: Kind
    count: int = 0
    findings: list[Finding] = field(default_factory=list)  # the first MAX_SHOWN


@dataclass
class SplitSummary:
    """One list: train, val or test."""

    name: str
    list_file: str  # relative to the data set
    images: int  # well-formed lines
    positives: np.ndarray  # int64 [K], images with the label
    unknown: np.ndarray  # int64 [K], images where it is not annotated (-1)
    unlabelled: int  # images without any label
    samples: list[tuple[str, np.ndarray]]  # first readable images: path, target int8 [K]


@dataclass
class CheckReport:
    """Findings of a check."""

    root: Path  # the folder that holds images/
    label_file: str  # relative to root
    labels: tuple[str, ...]
    splits: dict[str, SplitSummary]  # by name, in the order train, val, test
    groups: list[Group]  # errors first, then warnings, then notes; none is empty
    frequent: np.ndarray  # [n], numbers of the most frequent labels, ascending
    cooccurrence: np.ndarray  # int64 [n, n]: images with both of these labels, over all lists
    images_checked: int  # different files that were opened
    pixels: bool  # whether they were decoded, or only their headers read

    @property
    def passed(self) -> bool:
        """Return whether there is no error."""
        return all(group.kind.severity != "error" for group in self.groups)


# Name → what it is called, and what would be right, and how to get there.
_ERRORS = {
    # label.txt and the lists
    "missing_file": (
        "files that are not there",
        "A data set has images/, label.txt, train.txt and val.txt; data.label_file, data.train_list"
        " and data.val_list give other names.",
    ),
    "unreadable_file": ("files that cannot be read", "Give a text file you may read."),
    "not_utf8": ("text that is not UTF-8", "Save it as UTF-8."),
    "empty_labels": ("no labels", "Write one line a label: `<index> <name>`."),
    "label_line": ("malformed lines of labels", "A line is `<index> <name>`: `0 dining table`."),
    "label_index": ("indices given twice", "Give every label an index of its own."),
    "label_parent": (
        "parents that cannot be",
        "A parent is another label, and the way up ends: `7 Royal-Gala<TAB>parent=Apple`.",
    ),
    "label_name": ("names given twice", "Give every label a name of its own."),
    "label_start": (
        "indices that do not start at 0",
        "The first index is 0. COCO's category ids start at 1 and have holes: number the labels"
        " anew, in the order of the lists' columns.",
    ),
    "label_gap": (
        "indices with gaps",
        "The index is the column in the lists: number from 0 without gaps.",
    ),
    "list_line": (
        "malformed lines of lists",
        "A line is the image's path, a TAB, and one value a label: `images/x.jpg<TAB>0,1,0`.",
    ),
    "delimiter": (
        "wrong delimiters",
        "A TAB stands between image and values, and commas between the values.",
    ),
    "columns": ("wrong numbers of values", "Give one value for every label."),
    "value": (
        "values that mean nothing",
        "Write 1 where the label is present, 0 where it is not, -1 where nobody has looked.",
    ),
    "empty_list": ("lists without images", "Give every list at least one image."),
    "leaves_folder": (
        "paths that leave the data set's folder",
        "Paths start at the folder that holds images/: `images/x.jpg`.",
    ),
    # images
    "backslash": ("paths with \\", "Write / between folders."),
    "spelling": (
        "paths spelt differently from the files",
        "Spell the path like the file: case counts, and so does the encoding of accents.",
    ),
    "missing_image": ("missing images", "Add the image, correct its path, or remove the line."),
    "unreadable_image": (
        "images that cannot be opened",
        "Check that it is a file with read permission.",
    ),
    "empty_image": ("empty files", "Fetch or copy the image again, or remove its line."),
    "not_image": (
        "files that are no images",
        "Supported are JPEG, PNG, BMP, WebP, PNM, Sun, TIFF and GIF.",
    ),
    "zero_size": ("images without pixels", "Create the image again, or remove its line."),
    "too_large": (
        "absurdly large images",
        "Shrink the image; if you trust it, raise PIL.Image.MAX_IMAGE_PIXELS.",
    ),
    "damaged": ("images cut off or damaged", "Fetch or copy the image again, or remove its line."),
    # the lists together
    "contradiction": ("images listed twice with different values", "Keep the line that is right."),
    "leak": (
        "training images in another list",
        "Remove the image from one of the lists: scores on trained images say nothing.",
    ),
    # An error like the same path in both: only the name hides that validation sees training data.
    "leak_copy": (
        "copies of training images in another list",
        "The files are identical: remove one of them from its list.",
    ),
}

# Accepted, but perhaps not meant.
_WARNINGS = {
    "bom": ("byte order marks", "Save the file as UTF-8 without BOM."),
    "line_ends": ("line ends of Windows or old Macs", "Save it with LF line ends."),
    "blank_line": ("blank lines", "Remove them; other tools may fail on them."),
    "outside_link": (
        "links out of the data set's folder",
        "Copy the files into the folder if the data set is to be moved or packed.",
    ),
    "cut_end": (
        "images whose end marker is missing, though no pixel is",
        "Fetch or copy the image again; other readers may refuse it.",
    ),
    "doubtful": (
        "images that are decoded with a warning",
        "Look at it: part of it may be grey. Fetch or copy the image again.",
    ),
    "dark": (
        "images of more than 8 bits that are nearly black",
        "White is the greatest number that fits the bits: if these are of a camera with 12, store"
        " 16 times the values.",
    ),
    "listed_twice": ("images listed twice", "Remove one line, or the image counts double."),
    "copy": ("copies of images in the same list", "Keep one of them."),
    "val_in_test": (
        "validation images in the test list",
        "Test on images that were not used to choose anything.",
    ),
    "near_leak": (
        "images that look like one in another list",
        "Look at both; keep near duplicates in one list (check_dataset.split.group).",
    ),
    "near_copy": ("images that look alike", "Look at both; one may be enough."),
    "against_groups": (
        "images whose labels contradict the groups",
        "Correct the line, or the columns of the label file. Training counts ancestors as present,"
        " and two labels of one group as half each.",
    ),
    "no_annotation": (
        "labels that a list annotates nowhere",
        "Annotate some images, or remove the label.",
    ),
    "no_positives": (
        "labels that no image of a list has",
        "Add images with the label, split the images again, or remove the label.",
    ),
    "unannotated": ("images without any annotation", "Annotate the image, or remove its line."),
}

# Worth knowing.
_NOTES = {
    "unlabelled": ("images without any label", "They count as negatives."),
    "unlisted": ("files in images/ that no list names", "They are left alone."),
    "cmyk": ("CMYK images", "They are converted to RGB."),
    "sixteen_bit": ("images of more than 8 bits", "They are scaled to 8 bits."),
    "alpha": ("images with transparency", "They are laid over white."),
    "rotated": ("images that EXIF turns", "They are turned upright."),
    "animated": ("images of several frames", "The first frame counts."),
}

_BY_SEVERITY: dict[Severity, dict[str, tuple[str, str]]] = {
    "error": _ERRORS,
    "warning": _WARNINGS,
    "note": _NOTES,
}
KINDS = {
    name: Kind(severity, title, remedy)
    for severity, kinds in _BY_SEVERITY.items()
    for name, (title, remedy) in kinds.items()
}


def is_error(finding: Finding) -> bool:
    """Return whether it fails the check, and stops training."""
    return KINDS[finding.kind].severity == "error"


class Collector:
    """Counts findings, keeps the first of every kind, and writes them all to a file.

    The file stands under its name when the `with` block has ended without an exception.
    """

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._stack = ExitStack()
        self._groups: dict[str, Group] = {}

    def __enter__(self) -> "Collector":
        if self._file:
            temporary = self._stack.enter_context(replacing(self._file))
            self._stream = self._stack.enter_context(temporary.open("w", encoding="utf-8"))
        return self

    def __exit__(self, *failure: Any) -> None:
        self._stack.__exit__(*failure)

    def add(self, *findings: Finding) -> None:
        for finding in findings:
            kind = KINDS[finding.kind]
            group = self._groups.setdefault(finding.kind, Group(finding.kind, kind))
            group.count += 1
            if group.count <= MAX_SHOWN:
                group.findings.append(finding)
            if self._file:
                line = f"{kind.severity}: {finding.place}: {finding.message}"
                self._stream.write(printable(line) + "\n")

    def groups(self) -> list[Group]:
        """Return the groups in the order of `KINDS`."""
        return [self._groups[name] for name in KINDS if name in self._groups]
