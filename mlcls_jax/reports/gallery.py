"""All validation images beside a report: images/index.html, and their thumbnails in sheets."""

import itertools
import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from markupsafe import Markup
from PIL import Image

from mlcls_jax.bars import progress
from mlcls_jax.data.sources import load
from mlcls_jax.data.types import Source
from mlcls_jax.errors import DataError
from mlcls_jax.files import replace_folder
from mlcls_jax.lookahead import map_ahead
from mlcls_jax.reports import page
from mlcls_jax.reports.mistakes import Decisions

GALLERY = "images"  # folder beside the report
SIDE = 120  # pixels of a thumbnail
ACROSS = 5  # thumbnails of a sheet, and as many down: small enough for pages of any mixture
TITLE = "<title>Validation images</title>"  # by which its page is known
MAX_LABELS = 20  # told of an image

_BESIDE = "'self' file:"  # which browsers do not take for the same in a page that is a file


def write_gallery(
    folder: Path,
    decisions: Decisions,
    labels: Sequence[str],
    source: Source,
    indices: np.ndarray,
    count: int,
) -> int:
    """Write a folder, in one step, with a page of images to look through; return how many it has.

    Its size is bounded: of more than `count` images it has those with the largest mistakes, and of
    those without a mistake the least certain ones. Decisions are about one image or more;
    `indices` [N] are the places of their rows in the source.
    """
    rows = np.argsort(-_gaps(decisions), kind="stable")[:count]

    def fill(new: Path) -> None:
        thumbnails = _thumbnails(source, indices[rows].tolist())
        bar = iter(progress(thumbnails, total=len(rows), desc="thumbnails", unit=" images"))
        sizes: list[tuple[int, int]] = []
        for number in range(-(-len(rows) // ACROSS**2)):
            sheet = [*itertools.islice(bar, ACROSS**2)]
            sizes += _save(sheet, new / f"{number}.jpg")
        names = [source.name(int(index)) for index in indices[rows]]
        place = names[0].rpartition("/")[0]
        while place and not all(name.startswith(f"{place}/") for name in names):
            place = place.rpartition("/")[0]
        data = {
            "labels": [*labels],
            "limits": None if decisions.threshold is None else decisions.threshold.tolist(),
            "sheet": ACROSS**2,
            "side": SIDE,
            "rows": [
                [name.removeprefix(f"{place}/"), *size, *_told(decisions, row)]
                for name, row, size in zip(names, rows.tolist(), sizes, strict=True)
            ],
        }
        page.write(
            new / "index.html",
            "gallery.html",
            script="gallery.js",
            images=_BESIDE,
            labels=labels,
            place=place,
            side=SIDE,
            shown=len(rows),
            total=len(indices),
            data=Markup(json.dumps(data).replace("<", r"\u003c")),
        )

    replace_folder(folder, fill, durable=False)
    return len(rows)


def remove_gallery(folder: Path) -> None:
    """Delete what `write_gallery` wrote there, if anything; whatever else lies there stays."""
    index = folder / "index.html"
    if not index.is_file() or TITLE not in index.read_text(encoding="utf-8", errors="replace"):
        return
    for sheet in folder.glob("*.jpg"):
        if sheet.stem.isdecimal():
            sheet.unlink()
    index.unlink()
    if not any(folder.iterdir()):
        folder.rmdir()


def _gaps(decisions: Decisions) -> np.ndarray:
    """Return of each image how far its worst decision is beyond a threshold: float32 [N].

    Below 0 where all are right. Of one label an image it is how far the best wrong one is above the
    right one.
    """
    gaps = np.empty(len(decisions.scores), np.float32)
    for rows in decisions.chunks():
        scores, targets = decisions.scores[rows], decisions.targets[rows]
        if decisions.threshold is None:
            beyond = np.where(targets == 0, scores, -np.inf).max(1, initial=-np.inf)
            gaps[rows] = beyond - np.where(targets >= 1, scores, 0).max(1)
        else:
            above = scores - decisions.threshold
            wrong = np.where(targets >= 1, -above, np.where(targets == 0, above, -np.inf))
            gaps[rows] = wrong.max(1)
    return gaps


def _told(decisions: Decisions, row: int) -> tuple[int, list[tuple[int, float, int]]]:
    """Return how many labels are left out, and index, score and state of the others.

    The states are 1 for missed, 2 for reported falsely, 3 for right, 4 for reported where nobody
    knows. Mistakes come first.
    """
    scores, targets = decisions.scores[row], decisions.targets[row]
    reported = decisions.reported(np.array([row]))[0]
    states = np.where(targets >= 1, 1, 0) + np.where(reported, 2, 0)
    states[reported & (targets < 0)] = 4
    found = np.flatnonzero(states)
    order = found[np.lexsort((-scores[found], states[found] > 2))]
    told = [(int(k), round(float(scores[k]), 4), int(states[k])) for k in order[:MAX_LABELS]]
    return len(order) - len(told), told


def _thumbnails(source: Source, indices: Sequence[int]) -> Iterator[Image.Image | None]:
    """Yield a thumbnail of each image; None: it cannot be read any more."""

    def read(index: int) -> Image.Image | None:
        try:
            picture = Image.fromarray(load(source, index, at_least=(SIDE, SIDE))[0])
        except DataError:
            return None
        picture.thumbnail((SIDE, SIDE))
        return picture

    threads = os.cpu_count() or 1
    with ThreadPoolExecutor(threads) as pool:
        yield from map_ahead(pool, read, indices, 2 * threads)


def _save(pictures: Sequence[Image.Image | None], file: Path) -> list[tuple[int, int]]:
    """Write a sheet, and return the sizes of its pictures; (0, 0): there is none."""
    sheet = Image.new("RGB", (ACROSS * SIDE, -(-len(pictures) // ACROSS) * SIDE))
    for place, picture in enumerate(pictures):
        if picture is not None:
            sheet.paste(picture, (place % ACROSS * SIDE, place // ACROSS * SIDE))
    sheet.save(file, quality=80)
    return [picture.size if picture else (0, 0) for picture in pictures]
