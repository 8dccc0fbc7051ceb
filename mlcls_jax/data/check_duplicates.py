"""Lines and images of a data set that occur twice: as paths, as contents, as pictures."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mlcls_jax.data.check_tables import Images, Lines
from mlcls_jax.data.duplicates import candidates, closer_look, first_equal, is_alike
from mlcls_jax.data.findings import Collector, Finding
from mlcls_jax.data.image_files import read_file
from mlcls_jax.data.images import decode_image
from mlcls_jax.data.probe import content_digest
from mlcls_jax.errors import DataError

# Gives a function's values of many lines in order, under a progress bar with a title.
InOrder = Callable[..., Iterator[Any]]


def read_digests_of_twins(root: Path, lines: Lines, images: Images, in_order: InOrder) -> None:
    """Read the digests of files that share their size with another: only those can be copies."""

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


def report_repeated_paths(lines: Lines, images: Images, findings: Collector) -> None:
    """Report lines whose path was named before."""
    for line, other in _pairs(np.arange(len(images.first)), images.first):
        kind = lines.kind_of_pair(line, other, within="listed_twice", across="leak")
        message, image = f"{lines.image(line)} is in {lines.place(other)} too", lines.image(line)
        if lines.differ(line, other):
            kind = "contradiction" if kind == "listed_twice" else kind
            message += ", with other values"
        findings.add(Finding(kind, lines.place(line), message, image))


def report_copies(lines: Lines, images: Images, findings: Collector) -> None:
    """Report files with the same content as an earlier one."""
    known = np.flatnonzero(images.digest)
    for i, j in _pairs(known, first_equal(images.digest[known])):
        line, other = images.lines[i], images.lines[j]
        kind = lines.kind_of_pair(line, other, within="copy", across="leak_copy")
        image = lines.image(line)
        message = f"{image} is a copy of {lines.image(other)} ({lines.place(other)})"
        if lines.differ(line, other):
            message += ", with other values"
        findings.add(Finding(kind, lines.place(line), message, image))


def report_near_copies(
    root: Path,
    lines: Lines,
    images: Images,
    in_order: InOrder,
    findings: Collector,
) -> None:
    """Report pictures that look like an earlier one."""
    known = np.flatnonzero(images.pixel_hash)
    pairs = known[candidates(images.pixel_hash[known])]
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
        line, other = int(images.lines[i]), int(images.lines[j])
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


def _pairs(items: np.ndarray, first: np.ndarray) -> Iterable[tuple[int, int]]:
    """Pair every item that is not the first of its kind with that one; `first` holds positions."""
    is_later = first != np.arange(len(first))
    return zip(items[is_later], items[first[is_later]], strict=True)
