"""Runs side by side as one HTML file: templates/compare.html and what it needs."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from markupsafe import Markup
from PIL import Image

from mlcls_jax.data.images import read_image
from mlcls_jax.errors import DataError
from mlcls_jax.reports import page
from mlcls_jax.reports.curves import History, charts_of
from mlcls_jax.reports.decisions_file import Difference

SHOWN = 12  # images that became better, and as many that became worse
DRAWN = 6  # runs in a chart: so many colours there are
_SIDE = 200  # pixels of a picture


@dataclass(frozen=True)
class Comparison:
    """What is known of some runs, the first of which the others are held against."""

    names: Sequence[str]
    facts: Sequence[tuple[str, ...]]  # name, and a text per run
    metrics: Sequence[tuple[str, Sequence[float | None], Sequence[Sequence[float] | None]]]
    histories: Sequence[History]
    metric: str  # that is drawn by epoch
    by_label: Sequence[Mapping[str, float | None]]  # of each run; empty: not evaluated
    label_metric: str
    differing: Sequence[Difference] | None  # between the first and the last; None: not known
    intervals: Mapping[str, Sequence[float]]  # of the change of each label, as far as known


def make_page(comparison: Comparison) -> page.Page:
    """Return the page, which needs no other file."""
    are_several = len(comparison.names) > 1
    rows = label_rows(comparison.by_label, comparison.intervals)
    differing = comparison.differing or []
    better = [one for one in differing if one.gain > 0][:SHOWN]
    worse = [one for one in reversed(differing) if one.gain < 0][:SHOWN]
    return page.render(
        "compare.html",
        comparison=comparison,
        charts=charts_of(comparison.histories[:DRAWN], comparison.metric),
        are_several=are_several,
        columns=["index", "name", *comparison.names, *["change", "95 %"] * are_several],
        label_rows=rows,
        counts=[sum(sign * d.gain > 0 for d in differing) for sign in (1, -1)],
        groups=[
            ("Fewer mistakes in the last run", [(one, _picture(one)) for one in better]),
            ("More mistakes in the last run", [(one, _picture(one)) for one in worse]),
        ],
    )


class LabelRow(NamedTuple):
    """A label's metric in some runs."""

    index: int
    name: str
    values: list[float | None]  # of the runs
    interval: str  # of the change; empty: not known
    change: float | None  # from the first run to the last; None: one of them does not know it


def label_rows(
    by_label: Sequence[Mapping[str, float | None]], intervals: Mapping[str, Sequence[float]]
) -> list[LabelRow]:
    """Return a row for every label that a run knows, the largest rise first."""
    names = dict.fromkeys(name for values in by_label for name in values)
    rows = []
    for index, name in enumerate(names):
        values = [run.get(name) for run in by_label]
        first, last = values[0], values[-1]
        change = None if first is None or last is None else last - first
        low, high = intervals.get(name, (math.nan, math.nan))
        interval = "" if math.isnan(low) else f"{low:+.4f} … {high:+.4f}"
        rows.append(LabelRow(index, name, values, interval, change))
    return sorted(rows, key=lambda row: (row.change is None, -(row.change or 0)))


def _picture(one: Difference) -> Markup | None:
    try:
        picture = Image.fromarray(read_image(one.image))
    except DataError:  # of a data set that is not made of files, or has moved
        return None
    picture.thumbnail((_SIDE, _SIDE))
    return page.jpeg(picture)
