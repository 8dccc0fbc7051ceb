"""The report of a check as one HTML file: templates/check.html and what it needs."""

from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
from markupsafe import Markup

from mlcls_jax.data.findings import CheckReport, Finding, Group
from mlcls_jax.errors import DataError, DatasetFileNotFoundError
from mlcls_jax.reports import page
from mlcls_jax.reports.samples import MAX_SAMPLES, read_listed, sample_entries

MAX_ROWS = 50  # findings of one kind on the page
MAX_THUMBNAILS = 200  # of faulty images on the page
THUMBNAIL_SIDE, SAMPLE_SIDE = 160, 360  # pixels


class _Image(NamedTuple):
    """An image of the data set; has neither source nor fault where there is no such file."""

    name: str
    source: Markup | None = None
    fault: str | None = None


def write_page(
    report: CheckReport, path: Path, *, histogram: Path | None, cooccurrence: Path | None
) -> None:
    """Write the report as one HTML page, which needs no other file: pictures are embedded.

    Of every kind the first `MAX_ROWS` findings are shown; `findings.txt`, which the page names,
    is expected beside it. Images that cannot be decoded, or lie outside the data set, have a
    placeholder. `histogram` and `cooccurrence` are files of the charts; None leaves one out.
    """
    illustrated = sum(any(f.image for f in group.findings) for group in report.groups)
    share = MAX_THUMBNAILS // max(illustrated, 1)  # a fair one, though some may not need theirs
    charts = [
        ("Images per class", histogram, "Bar chart of the images that each label has in each list"),
        ("Labels that occur together", cooccurrence, "Matrix of how often labels occur together"),
    ]
    splits = report.splits.values()
    unknown = [split for split in splits if split.unknown.any()]
    page.write(
        path,
        "check.html",
        name=report.root.resolve().name,
        report=report,
        totals=_totals(report),
        groups=[_group(report.root, group, share) for group in report.groups],
        charts=[
            (title, page.data_uri("image/png", file.read_bytes()), description)
            for title, file, description in charts
            if file is not None
        ],
        samples=[(split.list_file, _samples(report, split.samples)) for split in splits],
        columns=[
            *("index", "name"),
            *(split.name for split in splits),
            *(f"{split.name}, not annotated" for split in unknown),
        ],
        counts=[
            *((split.positives, True) for split in splits),
            *((split.unknown, False) for split in unknown),
        ],
    )


def _totals(report: CheckReport) -> str:
    totals: Counter[str] = Counter()
    for group in report.groups:
        totals[group.kind.severity] += group.count
    return ", ".join(page.count(totals[word], word) for word in ("error", "warning", "note"))


def _group(
    root: Path, group: Group, thumbnails: int
) -> tuple[Group, list[tuple[Finding, list[_Image]]], bool]:
    """Return the group, its first findings with their images, and whether one can be shown."""
    rows = [
        (finding, _images(root, finding) if number < thumbnails else [])
        for number, finding in enumerate(group.findings[:MAX_ROWS])
    ]
    return group, rows, any(image.source or image.fault for _, some in rows for image in some)


def _images(root: Path, finding: Finding) -> list[_Image]:
    """Return the image that a finding is about, and the other one where there are two."""
    named = [name for name in (finding.image, finding.twin) if name]
    return [_image(root, name, THUMBNAIL_SIDE) for name in named]


def _samples(
    report: CheckReport, samples: list[tuple[str, np.ndarray]]
) -> list[tuple[_Image, list[str]]]:
    return [
        (_image(report.root, name, SAMPLE_SIDE), sample_entries(report.labels, target))
        for name, target in samples[:MAX_SAMPLES]
    ]


def _image(root: Path, name: str, side: int) -> _Image:
    """Return the image, at most `side` pixels wide and high, or why it cannot be shown.

    That there is no such file is said by the finding itself.
    """
    try:
        return _Image(name, page.jpeg(read_listed(root, name, side)))
    except DatasetFileNotFoundError:
        return _Image(name)
    except DataError as error:
        return _Image(name, fault=error.message)
