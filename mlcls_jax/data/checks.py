"""The check of an MLClsDataset: every line and every image, all faults at once.

Of a line and its image no more is kept than the path and about a hundred bytes, so that
lists of millions can be checked; of images that may be near duplicates, some hundred more.
"""

import os
import posixpath
import unicodedata
from array import array
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from mlcls_jax.config import Data
from mlcls_jax.data.duplicates import candidates, closer_look, first_equal, is_alike
from mlcls_jax.data.findings import (
    CheckReport,
    Collector,
    Finding,
    SplitSummary,
    is_error,
)
from mlcls_jax.data.image_files import read_file
from mlcls_jax.data.images import decode_image
from mlcls_jax.data.lists import TEST_LIST, Row, find_root, read_labels, read_list, usual_columns
from mlcls_jax.data.probe import content_digest, probe_file, probe_pixels
from mlcls_jax.errors import DataError
from mlcls_jax.lookahead import map_ahead
from mlcls_jax.readable import printable

NUM_SAMPLES = 10  # of every list
_TRAIN = 0  # position among the lists
_CHUNK = 32  # images that a thread takes at once


def check(
    folder: str | Path,
    data: Data,
    *,
    pixels: bool,
    threads: int,
    findings_file: Path | None = None,
) -> CheckReport:
    """Read label file, lists and images of the data set in `folder`, and tell all that is wrong.

    With `pixels` every image is decoded, and near duplicates are looked for; without, headers are
    read, and the contents of files that share their size with another. The result does not depend
    on `threads`. Every finding becomes a line of `findings_file`: severity, place, message.

    Raises:
      DatasetFileNotFoundError: there is no such folder, or no `images` in it.
      DataError: there are several data sets in it.
    """
    root = find_root(Path(folder))
    lists = {"train": data.train_list, "val": data.val_list}
    if TEST_LIST not in lists.values() and (root / TEST_LIST).exists():
        lists["test"] = TEST_LIST
    with Collector(findings_file) as findings, ThreadPoolExecutor(threads) as pool:
        names, found = read_labels(root / data.label_file, name=data.label_file)
        findings.add(*found)
        num_classes = len(names)
        if any(map(is_error, found)):
            num_classes = usual_columns(root / name for name in lists.values())
        labels = tuple(names.get(k, str(k)) for k in range(num_classes))
        lines = _Lines(tuple(lists.values()))
        cooccurrence = np.zeros((num_classes, num_classes), np.int64)
        splits = {
            split: _read_split(split, number, root, labels, lines, cooccurrence, findings)
            for number, split in enumerate(lists)
        }
        in_order = partial(_in_order, pool, ahead=2 * threads)
        images = _look_at_images(root, lines, findings, in_order, pixels=pixels)
        _read_twins(root, lines, images, in_order)
        _tell_missing_and_unlisted(root, lines, images, findings)
        _tell_repeated_paths(lines, images, findings)
        _tell_copies(lines, images, findings)
        if pixels:
            _tell_near_copies(root, lines, images, in_order, findings)
        for number, summary in enumerate(splits.values()):
            summary.samples += _samples(root, number, lines, images, num_classes)
    return CheckReport(
        root=root,
        label_file=data.label_file,
        labels=labels,
        splits=splits,
        groups=findings.groups(),
        cooccurrence=cooccurrence,
        images_checked=int(images.is_there.sum()),
        pixels=pixels,
    )


class _Lines:
    """The lines of all lists that name an image, in order."""

    def __init__(self, lists: tuple[str, ...]) -> None:
        self.lists = lists
        self.list_number, self.number = array("B"), array("I")
        self.path, self.target = array("q"), array("q")  # hashes; target 0: malformed values
        self._text, self._ends = bytearray(), array("Q", [0])

    def add(self, list_number: int, number: int, image: str, target: np.ndarray | None) -> None:
        self.list_number.append(list_number)
        self.number.append(number)
        self.path.append(hash(posixpath.normpath(image)))
        self.target.append(0 if target is None else hash(target.tobytes()) | 1)
        self._text += image.encode()
        self._ends.append(len(self._text))

    def image(self, line: int) -> str:
        return self._text[self._ends[line] : self._ends[line + 1]].decode()

    def place(self, line: int) -> str:
        return f"{self.lists[self.list_number[line]]}:{self.number[line]}"

    def kind_of_pair(self, line: int, other: int, *, within: str, across: str) -> str:
        """Which kind of finding it is that both lines have what only one should."""
        lists = self.list_number[line], self.list_number[other]
        if lists[0] == lists[1]:
            return within
        return across if _TRAIN in lists else "val_in_test"

    def differ(self, line: int, other: int) -> bool:
        """Whether their values are not the same."""
        targets = self.target[line], self.target[other]
        return all(targets) and targets[0] != targets[1]


@dataclass
class _Images:
    """What is known of the F different files that N lines name."""

    first: np.ndarray  # int64 [N], the first line with the same path
    lines: np.ndarray  # int64 [F], the first line of every file
    is_there: np.ndarray  # bool [F]
    is_readable: np.ndarray  # bool [F]
    num_bytes: np.ndarray  # int64 [F]
    digest: np.ndarray  # uint64 [F], of the content; 0: not known
    looks: np.ndarray  # uint64 [F], of the pixels; 0: not known


def _read_split(
    split: str,
    number: int,
    root: Path,
    labels: tuple[str, ...],
    lines: _Lines,
    cooccurrence: np.ndarray,
    findings: Collector,
) -> SplitSummary:
    """Tell what is wrong with a list; count its labels, and add its lines to those before."""
    name = lines.lists[number]
    positives, unknown = np.zeros((2, len(labels)), np.int64)
    images = unlabelled = 0
    items = read_list(root / name, len(labels), name=name)
    for item in tqdm(items, desc=name, unit=" lines", disable=None):
        if isinstance(item, Finding):
            findings.add(item)
            if item.image:
                lines.add(number, int(item.place.rpartition(":")[2]), item.image, None)
            continue
        lines.add(number, item.line, item.image, item.target)
        images += 1
        present, is_unknown = np.flatnonzero(item.target > 0), item.target < 0
        positives[present] += 1
        unknown += is_unknown
        cooccurrence[present[:, None], present] += 1
        if not len(present):
            unlabelled += 1
            kind, what = "unlabelled", "has no label"
            if is_unknown.all():
                kind, what = "unannotated", "has no annotation"
            place = f"{name}:{item.line}"
            findings.add(Finding(kind, place, f"{item.image} {what}", item.image))
    for k in np.flatnonzero(positives == 0) if images else ():
        kind, what = "no_positives", "no image has it"
        if unknown[k] == images:
            kind, what = "no_annotation", "it is annotated nowhere"
        findings.add(Finding(kind, name, f"label {k}, {labels[k]!r}: {what}"))
    return SplitSummary(split, name, images, positives, unknown, unlabelled, samples=[])


def _look_at_images(
    root: Path,
    lines: _Lines,
    findings: Collector,
    in_order: Callable[..., Iterator[Any]],
    *,
    pixels: bool,
) -> _Images:
    """Open every file once, in the order of the lists, and tell what is wrong or odd about it."""
    first = first_equal(np.asarray(lines.path))
    files = np.flatnonzero(first == np.arange(len(first)))
    images = _Images(
        first=first,
        lines=files,
        is_there=np.ones(len(files), bool),
        is_readable=np.zeros(len(files), bool),
        num_bytes=np.zeros(len(files), np.int64),
        digest=np.zeros(len(files), np.uint64),
        looks=np.zeros(len(files), np.uint64),
    )
    probe = probe_pixels if pixels else probe_file
    probes = in_order(lambda line: probe(f"{root}/{lines.image(line)}"), files, title="images")
    folders: set[str] = set()
    for i, (line, known) in enumerate(zip(files, probes, strict=True)):
        image, place = lines.image(line), lines.place(line)
        images.is_readable[i], images.num_bytes[i] = known.is_readable, known.num_bytes
        images.digest[i], images.looks[i] = known.digest, known.looks
        for kind, message in known.found:
            if kind == "missing_image":
                images.is_there[i] = False  # told when it is known what else is there
            else:
                findings.add(Finding(kind, place, f"{image}: {message}", image))
        if not images.is_there[i]:
            continue
        if link := _link_out(root, image, folders, is_link=known.is_link):
            message = f"{link} is a link to {printable(os.path.realpath(root / link))}"
            findings.add(Finding("outside_link", place, message, image))
    return images


def _read_twins(
    root: Path, lines: _Lines, images: _Images, in_order: Callable[..., Iterator[Any]]
) -> None:
    """Digests of the files that share their size with another: only those can be copies."""

    def digest_of(line: int) -> int:
        try:
            return content_digest((root / lines.image(line)).read_bytes())
        except OSError:
            return 0

    sizes, counts = np.unique(images.num_bytes, return_counts=True)
    has_twin = np.isin(images.num_bytes, sizes[counts > 1])
    twins = np.flatnonzero(has_twin & images.is_readable & (images.digest == 0))
    digests = in_order(digest_of, images.lines[twins], title="contents")
    for i, digest in zip(twins, digests, strict=True):
        images.digest[i] = digest


def _tell_missing_and_unlisted(
    root: Path, lines: _Lines, images: _Images, findings: Collector
) -> None:
    """Tell both together, because a missing image may be a file that is spelled otherwise."""
    missing = images.lines[~images.is_there]
    alike = {_spelling(lines.image(line)): "" for line in missing}  # → file that is spelled alike
    listed = np.sort(lines.path)
    for file, is_listed in _files(root / "images", listed, alike):
        spelling = _spelling(file) if alike else ""
        if alike.get(spelling) == "":
            alike[spelling] = file
        elif not is_listed:
            findings.add(Finding("unlisted", printable(file), "is in no list"))
    for line in missing:
        image, message = lines.image(line), "there is no such image"
        kind = "missing_image"
        if file := alike[_spelling(image)]:
            kind = "backslash" if "\\" in image else "spelling"
            message += f", but there is {file}"
        findings.add(Finding(kind, lines.place(line), f"{image}: {message}", image))


def _tell_repeated_paths(lines: _Lines, images: _Images, findings: Collector) -> None:
    for line, other in _pairs(np.arange(len(images.first)), images.first):
        kind = lines.kind_of_pair(line, other, within="listed_twice", across="leak")
        message, image = f"{lines.image(line)} is in {lines.place(other)} too", lines.image(line)
        if lines.differ(line, other):
            kind = "contradiction" if kind == "listed_twice" else kind
            message += ", with other values"
        findings.add(Finding(kind, lines.place(line), message, image))


def _tell_copies(lines: _Lines, images: _Images, findings: Collector) -> None:
    known = np.flatnonzero(images.digest)
    for i, j in _pairs(known, first_equal(images.digest[known])):
        line, other = images.lines[i], images.lines[j]
        kind = lines.kind_of_pair(line, other, within="copy", across="leak_copy")
        image = lines.image(line)
        message = f"{image} is a copy of {lines.image(other)} ({lines.place(other)})"
        if lines.differ(line, other):
            message += ", with other values"
        findings.add(Finding(kind, lines.place(line), message, image))


def _tell_near_copies(
    root: Path,
    lines: _Lines,
    images: _Images,
    in_order: Callable[..., Iterator[Any]],
    findings: Collector,
) -> None:
    known = np.flatnonzero(images.looks)
    pairs = known[candidates(images.looks[known])]
    pairs = pairs[images.digest[pairs[:, 0]] != images.digest[pairs[:, 1]]]
    wanted = np.unique(pairs)
    looks = in_order(
        lambda line: _closer_look(root, lines.image(line)), images.lines[wanted], title="looks"
    )
    closer = dict(zip(wanted.tolist(), looks, strict=True))
    told = set()
    for i, j in pairs.tolist():
        if i in told or closer[i] is None or closer[j] is None:
            continue
        if not is_alike(closer[i], closer[j]):
            continue
        told.add(i)
        line, other = images.lines[i], images.lines[j]
        same_list = lines.list_number[line] == lines.list_number[other]
        image, twin = lines.image(line), lines.image(other)
        message = f"{image} looks like {twin} ({lines.place(other)})"
        kind = "near_copy" if same_list else "near_leak"
        findings.add(Finding(kind, lines.place(line), message, image, twin))


def _closer_look(root: Path, image: str) -> np.ndarray | None:
    try:
        content = read_file(root / image)
        # Four times what it is made smaller to is enough, and decoding it costs less.
        return closer_look(decode_image(content, name=image, at_least=(68, 68)))
    except DataError:  # it was there a minute ago
        return None


def _samples(
    root: Path, number: int, lines: _Lines, images: _Images, num_classes: int
) -> list[tuple[str, np.ndarray]]:
    """Path and target int8 [K] of the first readable images of a list."""
    file = np.searchsorted(images.lines, images.first)  # [N]
    is_good = (np.asarray(lines.list_number) == number) & (np.asarray(lines.target) != 0)
    is_good &= images.is_readable[file]
    wanted = set(np.asarray(lines.number)[is_good][:NUM_SAMPLES].tolist())
    items = read_list(root / lines.lists[number], num_classes, name="")
    rows = (item for item in items if isinstance(item, Row) and item.line in wanted)
    return [(row.image, row.target) for row in islice(rows, len(wanted))]


def _in_order(
    pool: ThreadPoolExecutor,
    function: Callable[[int], Any],
    numbers: np.ndarray,
    *,
    title: str,
    ahead: int,
) -> Iterator[Any]:
    """Yield the function's values in order; at most `ahead` chunks of numbers are under way."""
    chunks = (numbers[i : i + _CHUNK].tolist() for i in range(0, len(numbers), _CHUNK))
    with (
        tqdm(total=len(numbers), desc=title, unit=" images", disable=None) as bar,
        closing(map_ahead(pool, lambda chunk: list(map(function, chunk)), chunks, ahead)) as found,
    ):
        for values in found:
            for value in values:
                yield value
                bar.update()


def _pairs(items: np.ndarray, first: np.ndarray) -> Iterable[tuple[int, int]]:
    """Every item that is not the first of its kind, with that one; `first` holds positions."""
    is_later = first != np.arange(len(first))
    return zip(items[is_later], items[first[is_later]], strict=True)


def _files(images: Path, listed: np.ndarray, alike: Collection[str]) -> Iterator[tuple[str, bool]]:
    """Files below images/, and whether they are among the sorted hashes `listed`.

    Of those that are, only the ones whose spelling is in `alike` are given. Nothing is given of
    folders behind links that is not listed: they may hold what belongs to other data sets. Only
    what is given is kept and sorted: a folder may hold millions that are listed.
    """
    seen: set[str] = set()
    waiting = [(images, "images", False)]
    while waiting:
        folder, name, is_linked = waiting.pop()
        found, folders = [], []
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    file = f"{name}/{entry.name}"
                    if entry.name.startswith("."):
                        continue
                    if entry.is_dir():
                        folders.append((entry.name, is_linked or entry.is_symlink()))
                        continue
                    place = bisect_left(listed, hash(file))
                    is_listed = place < len(listed) and listed[place] == hash(file)
                    is_wanted = bool(alike) and _spelling(file) in alike
                    if is_wanted or not (is_listed or is_linked):
                        found.append((file, is_listed))
        except OSError:  # it may not be read
            continue
        yield from sorted(found)
        for inner, is_linked in sorted(folders, reverse=True):
            if is_linked:  # only for the spelling, and each once
                target = os.path.realpath(folder / inner)
                if not alike or target in seen:
                    continue
                seen.add(target)
            waiting.append((folder / inner, f"{name}/{inner}", is_linked))


def _link_out(root: Path, image: str, folders: set[str], *, is_link: bool) -> str | None:
    """The part of an image's path that is a link out of `root`.

    `is_link` says whether the image itself is one; a folder is told once, and then is in `folders`.
    """
    path = posixpath.normpath(image)
    folder = posixpath.dirname(path)
    parts = [path] if is_link else []
    while folder and folder not in folders:
        folders.add(folder)
        parts.append(folder)
        folder = posixpath.dirname(folder)
    top = os.path.realpath(root) if parts else ""
    for part in reversed(parts):  # the topmost first
        target = os.path.realpath(root / part)
        if os.path.islink(root / part) and os.path.commonpath([top, target]) != top:
            return part
    return None


def _spelling(path: str) -> str:
    """What is left of a path when case, the form of accents and the kind of slash are forgiven."""
    path = posixpath.normpath(path.replace("\\", "/"))
    return unicodedata.normalize("NFC", path).casefold()
