"""The check of an MLClsDataset: every line and every image, all faults at once.

Of a line and its image no more is kept than the path and about a hundred bytes, so that
lists of millions can be checked; of images that may be near duplicates, some hundred more.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from mlcls_jax.bars import progress
from mlcls_jax.config import Data
from mlcls_jax.data.check_duplicates import (
    InOrder,
    read_digests_of_twins,
    report_copies,
    report_near_copies,
    report_repeated_paths,
)
from mlcls_jax.data.check_folders import link_out, report_missing_and_unlisted
from mlcls_jax.data.check_tables import Images, Lines
from mlcls_jax.data.findings import CheckReport, Collector, Finding, SplitSummary, is_error
from mlcls_jax.data.lists import (
    TEST_LIST,
    Row,
    find_root,
    groups_of,
    read_label_lines,
    read_list,
    usual_columns,
)
from mlcls_jax.data.probe import probe
from mlcls_jax.groups import NO_GROUPS, Groups, contradictions
from mlcls_jax.lookahead import map_ahead
from mlcls_jax.readable import printable

NUM_SAMPLES = 10  # of every list
FREQUENT = 40  # labels of which pairs are counted: of all, memory grew with their square
_CHUNK = 32  # images that a thread takes at once


def check(
    folder: str | Path,
    data: Data,
    *,
    pixels: bool,
    threads: int,
    findings_file: Path | None = None,
) -> CheckReport:
    """Read label file, lists and images of the data set in `folder`, and report all that is wrong.

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
        known, found = read_label_lines(root / data.label_file, name=data.label_file)
        findings.add(*found)
        num_classes, groups = len(known), NO_GROUPS
        if any(map(is_error, found)):
            num_classes = usual_columns(root / name for name in lists.values())
        else:
            groups = groups_of([known[k] for k in range(num_classes)])
        labels = tuple(known[k].name if k in known else str(k) for k in range(num_classes))
        lines = Lines(tuple(lists.values()))
        splits = {
            split: _read_split(split, number, root, labels, groups, lines, findings)
            for number, split in enumerate(lists)
        }
        in_order = partial(_in_order, pool, ahead=2 * threads)
        images = _look_at_images(root, lines, findings, in_order, pixels=pixels)
        read_digests_of_twins(root, lines, images, in_order)
        report_missing_and_unlisted(root, lines, images, findings)
        report_repeated_paths(lines, images, findings)
        report_copies(lines, images, findings)
        if pixels:
            report_near_copies(root, lines, images, in_order, findings)
        for number, summary in enumerate(splits.values()):
            summary.samples += _samples(root, number, lines, images, num_classes)
    totals = np.sum([summary.positives for summary in splits.values()], axis=0)
    frequent = np.sort(np.argsort(-totals, kind="stable")[:FREQUENT])
    return CheckReport(
        root=root,
        label_file=data.label_file,
        labels=labels,
        splits=splits,
        groups=findings.groups(),
        frequent=frequent,
        cooccurrence=_count_pairs(root, lines.lists, num_classes, frequent),
        images_checked=int(images.is_there.sum()),
        pixels=pixels,
    )


def _read_split(
    split: str,
    number: int,
    root: Path,
    labels: tuple[str, ...],
    groups: Groups,
    lines: Lines,
    findings: Collector,
) -> SplitSummary:
    """Report what is wrong with a list; count its labels, and add its lines to those before."""
    name = lines.lists[number]
    positives, unknown = np.zeros((2, len(labels)), np.int64)
    images = unlabelled = 0
    items = read_list(root / name, len(labels), name=name)
    for item in progress(items, desc=name, unit=" lines"):
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
        for told in contradictions(labels, present.tolist(), item.target == 0, groups):
            place = f"{name}:{item.line}"
            message = f"{item.image} {told}"
            findings.add(Finding("against_groups", place, message, item.image))
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
    lines: Lines,
    findings: Collector,
    in_order: InOrder,
    *,
    pixels: bool,
) -> Images:
    """Open every file once, in the order of the lists, and report what is wrong or odd about it."""
    images = Images.of(lines)
    files = images.lines
    probes = in_order(
        lambda line: probe(f"{root}/{lines.image(line)}", pixels=pixels), files, title="images"
    )
    folders: set[str] = set()
    for i, (line, known) in enumerate(zip(files, probes, strict=True)):
        image, place = lines.image(line), lines.place(line)
        images.is_readable[i], images.num_bytes[i] = known.is_readable, known.num_bytes
        images.digest[i], images.pixel_hash[i] = known.digest, known.pixel_hash
        for kind, message in known.found:
            if kind == "missing_image":
                images.is_there[i] = False  # told when it is known what else is there
            else:
                findings.add(Finding(kind, place, f"{image}: {message}", image))
        if not images.is_there[i]:
            continue
        if link := link_out(root, image, folders, is_link=known.is_link):
            message = f"{link} is a link to {printable(os.path.realpath(root / link))}"
            findings.add(Finding("outside_link", place, message, image))
    return images


def _samples(
    root: Path, number: int, lines: Lines, images: Images, num_classes: int
) -> list[tuple[str, np.ndarray]]:
    """Return path and target int8 [K] of the first readable images of a list."""
    file = np.searchsorted(images.lines, images.first)  # [N]
    is_good = (np.asarray(lines.list_number) == number) & (np.asarray(lines.target) != 0)
    is_good &= images.is_readable[file]
    wanted = set(np.asarray(lines.number)[is_good][:NUM_SAMPLES].tolist())
    items = read_list(root / lines.lists[number], num_classes, name="")
    rows = (item for item in items if isinstance(item, Row) and item.line in wanted)
    return [(row.image, row.target) for row in islice(rows, len(wanted))]


def _count_pairs(
    root: Path, lists: Sequence[str], num_classes: int, frequent: np.ndarray
) -> np.ndarray:
    """Return how many images have both of the `frequent` labels, int64 [n, n], over all lists."""
    pairs = np.zeros((len(frequent), len(frequent)), np.int64)
    for name in lists:
        for item in read_list(root / name, num_classes, name=name):
            if isinstance(item, Row):
                present = np.flatnonzero(item.target[frequent] > 0)
                pairs[present[:, None], present] += 1
    return pairs


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
        progress(total=len(numbers), desc=title, unit=" images") as bar,
        closing(map_ahead(pool, lambda chunk: list(map(function, chunk)), chunks, ahead)) as found,
    ):
        for values in found:
            for value in values:
                yield value
                bar.update()
