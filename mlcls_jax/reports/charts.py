"""The diagrams of the evaluation's page: their numbers, and where these go in an SVG.

The SVG itself is in templates/chart.html. It is ours rather than a plotting library's because its
colours are those of the page, light or dark, its text is set by the browser, which has fonts for
names in any script, and all of it is about as long as the calls of a library would be.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import numpy as np

from mlcls_jax.metrics.blocks import row_blocks
from mlcls_jax.thresholds import Bins

_POINTS = 200  # of a curve
_SHIFT = 12  # bits of a float32 that are dropped: scores are told apart to 1/4000 of their size


class Curve(NamedTuple):
    """A line with its name."""

    name: str
    x: np.ndarray
    y: np.ndarray


class Tick(NamedTuple):
    """A line of the grid, with its name."""

    name: str
    at: float


class Line(NamedTuple):
    """A polyline, and the classes of its style."""

    style: str
    points: str


class Bar(NamedTuple):
    """A rectangle in the colour of its series; its title is shown under the pointer."""

    series: int
    x: float
    y: float
    width: float
    height: float
    title: str


@dataclass(frozen=True, kw_only=True)
class Chart:
    """Data of templates/chart.html, in units of the SVG."""

    width: ClassVar[int] = 400
    height: ClassVar[int] = 300
    left: ClassVar[float] = 52.0  # the edges of the area within the axes
    right: ClassVar[float] = 390.0
    top: ClassVar[float] = 10.0
    bottom: ClassVar[float] = 260.0

    caption: str
    x_label: str
    y_label: str
    y_ticks: Sequence[Tick] = field(default_factory=lambda: _unit_ticks(_y))
    x_ticks: Sequence[Tick] = field(default_factory=lambda: _unit_ticks(_x))
    bars: Sequence[Bar] = ()
    lines: Sequence[Line] = ()
    names: Sequence[str] = ()  # of the series, for the key


def precision_recall(scores: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return recall and precision [p] over all decisions [N, K], the highest threshold first.

    Scores are counted by their leading bits: no sorting of what may be a billion numbers.
    """
    counts = np.zeros((2, (0x3F800000 >> _SHIFT) + 1))  # absent and present, up to a score of 1.0
    for rows in row_blocks(scores):
        some, truth = scores[rows], targets[rows]
        # The bits of floats from 0 to 1 rise as the floats do.
        bits = np.ascontiguousarray(some, np.float32).view(np.int32) >> _SHIFT
        counts[0] += np.bincount(bits[(truth >= 0) & (truth < 1)], minlength=counts.shape[1])
        counts[1] += np.bincount(bits[truth >= 1], minlength=counts.shape[1])
    absent, present = counts[:, ::-1].cumsum(1)
    rises = np.flatnonzero(np.diff(present, prepend=0))
    if not rises.size:
        return np.zeros(0), np.zeros(0)
    recall = present[rises] / present[-1]
    precision = present[rises] / (present + absent)[rises]
    # About evenly by recall, both ends among them.
    kept = np.unique(np.searchsorted(recall, np.linspace(0, 1, _POINTS)))
    return recall[kept], precision[kept]


def score_counts(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Count decisions by score, absent and present labels apart: [2, bins]."""
    bins = 20
    counts = np.zeros((2, bins))
    for rows in row_blocks(scores):
        some, truth = scores[rows], targets[rows]
        places = np.minimum((some * bins).astype(np.int64), bins - 1)
        counts[0] += np.bincount(places[(truth >= 0) & (truth < 1)], minlength=bins)
        counts[1] += np.bincount(places[truth >= 1], minlength=bins)
    return counts


def line_chart(
    curves: Sequence[Curve], *, x_label: str, y_label: str, caption: str, scaled: bool = False
) -> Chart:
    """Draw lines with a key below: in the unit square, or between their extremes if `scaled`."""
    axes = []
    for axis, place in ((1, _x), (2, _y)):
        if scaled:
            axes.append(_scale(np.concatenate([curve[axis] for curve in curves]), place))
        else:
            axes.append((_unit_ticks(place), np.asarray))
    (x_ticks, x), (y_ticks, y) = axes
    return Chart(
        caption=caption,
        x_label=x_label,
        y_label=y_label,
        x_ticks=x_ticks,
        y_ticks=y_ticks,
        lines=[Line(f"line c{i}", _points(x(c.x), y(c.y))) for i, c in enumerate(curves)],
        names=[curve.name for curve in curves],
    )


def _scale(
    values: np.ndarray, place: Callable[[float], float]
) -> tuple[list[Tick], Callable[[np.ndarray], np.ndarray]]:
    """Return ticks at round numbers around the values, and what makes shares of an axis of them."""
    low, high = float(values.min()), float(values.max())
    span = high - low or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(span / 5))
    step = next(m * power for m in (1, 2, 5, 10) if span / (m * power) <= 6)
    first, last = math.floor(low / step), max(math.ceil(high / step), math.floor(low / step) + 1)
    digits = max(0, -math.floor(math.log10(step)))
    size = (last - first) * step
    ticks = [
        Tick(f"{i * step:.{digits}f}", place((i - first) * step / size))
        for i in range(first, last + 1)
    ]
    return ticks, lambda numbers: (numbers - first * step) / size


def reliability(bins: Bins, *, caption: str) -> Chart:
    """Draw how often labels of a score are right as bars, and the diagonal where they should be."""
    width = 1 / len(bins.decisions)
    return Chart(
        caption=caption,
        x_label="score",
        y_label="share that is right",
        bars=[
            _bar(0, i * width, (i + 1) * width, share, f"{int(n):,} decisions: {share:.3f}")
            for i, (n, share) in enumerate(zip(bins.decisions, bins.positive, strict=True))
            if n
        ],
        lines=[Line("ideal", _points([0, 1], [0, 1]))],
    )


def histogram(counts: np.ndarray, names: Sequence[str], *, caption: str) -> Chart:
    """Draw counts [series, bins] of equal parts of 0…1 as bars on a logarithmic axis.

    The bars of a bin stand side by side.
    """
    top = max(1, math.ceil(math.log10(max(counts.max(), 1) + 1)))
    exponents = range(0, top + 1, -(-top // 6))
    series, bins = counts.shape

    def height(exponent: float) -> float:
        return (exponent + 0.1) / (top + 0.1)  # a single decision can be seen, too

    return Chart(
        caption=caption,
        x_label="score",
        y_label="decisions",
        y_ticks=[Tick(_short(10**e), _y(height(e))) for e in exponents],
        bars=[
            _bar(
                s,
                (b + 0.08 + 0.84 * s / series) / bins,
                (b + 0.08 + 0.84 * (s + 1) / series) / bins,
                height(math.log10(n)),
                f"{int(n):,}",
            )
            for s in range(series)
            for b, n in enumerate(counts[s])
            if n
        ],
        names=names,
    )


def scatter(
    places: np.ndarray,
    series: np.ndarray,
    titles: Sequence[str],
    names: Sequence[str],
    caption: str,
) -> Chart:
    """Draw points [N, 2] as small squares in the colour of their series [N].

    The axes, which are alike, have no numbers: nothing but distances means anything.
    """
    middle = (places.max(0) + places.min(0)) / 2
    side = max(float((places.max(0) - places.min(0)).max()), 1e-12) * 1.04
    unit = (places - middle) / side + 0.5
    return Chart(
        caption=caption,
        x_label="",
        y_label="",
        x_ticks=(),
        y_ticks=(),
        bars=[
            Bar(int(s), _x(x) - 2, _y(y) - 2, 4, 4, title)
            for (x, y), s, title in zip(unit, series, titles, strict=True)
        ],
        names=names,
    )


def _bar(series: int, left: float, right: float, height: float, title: str) -> Bar:
    x, y = _x(left), _y(height)
    return Bar(series, x, y, round(_x(right) - x, 1), round(_y(0) - y, 1), title)


def _points(x: Sequence[float] | np.ndarray, y: Sequence[float] | np.ndarray) -> str:
    both = [f"{_x(a)},{_y(b)}" for a, b in zip(x, y, strict=True)]
    return " ".join(both * 2 if len(both) == 1 else both)  # a line of one point is a dot


def _x(share: float) -> float:
    return round(Chart.left + float(share) * (Chart.right - Chart.left), 1)


def _y(share: float) -> float:
    return round(Chart.bottom - float(share) * (Chart.bottom - Chart.top), 1)


def _unit_ticks(place: Callable[[float], float]) -> list[Tick]:
    return [Tick(f"{i / 5:.1f}", place(i / 5)) for i in range(6)]


def _short(number: int) -> str:
    for unit, name in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if number >= unit:
            return f"{number // unit}{name}"
    return str(number)
