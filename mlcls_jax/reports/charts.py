"""The diagrams of the evaluation's page, as SVG that follows its colours, and their numbers.

Every function gives one `<figure>`.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mlcls_jax.reports.page import escape
from mlcls_jax.thresholds import Bins

STYLE = """
.plots { display: grid; gap: 1.5rem; grid-template-columns: repeat(auto-fit, minmax(18rem, 1fr)) }
figure { margin: 0 } figcaption { font-size: .9rem; color: var(--faint) }
svg { display: block; width: 100%; max-width: 34rem; height: auto; font: 11px system-ui, sans-serif;
  fill: var(--text) }
svg .grid { stroke: var(--line) } svg .ideal { stroke: var(--text); stroke-dasharray: 4 4 }
svg .line { fill: none; stroke: var(--series); stroke-width: 2 } svg .bar { fill: var(--series) }
.c0 { --series: #1a73e8 } .c1 { --series: #188038 } .c2 { --series: #b06000 }
.c3 { --series: #c5221f }
@media (prefers-color-scheme: dark) { .c0 { --series: #8ab4f8 } .c1 { --series: #81c995 }
  .c2 { --series: #fcad70 } .c3 { --series: #f28b82 } }
.key { display: flex; flex-wrap: wrap; gap: .1rem 1rem; margin: .25rem 0 0; padding: 0;
  list-style: none; font-size: .9rem }
.key svg { display: inline; width: .8rem; margin-right: .35rem }
"""

_WIDTH, _HEIGHT = 400, 300
_LEFT, _TOP, _RIGHT, _BOTTOM = 46, 10, 10, 40
_POINTS = 200  # of a curve
_SHIFT = 12  # bits of a float32 that are dropped: scores are told apart to 1/4000 of their size
_CHUNK = 2**22


class Curve(NamedTuple):
    """A line with its name."""

    name: str
    x: np.ndarray
    y: np.ndarray


def precision_recall(scores: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Recall and precision [p] over all decisions [N, K] together, the highest threshold first.

    Scores are counted by their leading bits: no sorting of what may be a billion numbers.
    """
    counts = np.zeros((2, (0x3F800000 >> _SHIFT) + 1))  # absent and present, up to a score of 1.0
    step = max(1, _CHUNK // scores.shape[1])
    for start in range(0, len(scores), step):
        some, truth = scores[start : start + step], targets[start : start + step]
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


def line_chart(curves: Sequence[Curve], *, x_label: str, y_label: str, caption: str) -> str:
    """Lines in the unit square, with a key below."""
    lines = "".join(
        f'<polyline class="line c{i}" points="{_points(c.x, c.y)}"/>' for i, c in enumerate(curves)
    )
    frame = _frame(x_label, y_label, _unit_ticks(), _unit_ticks())
    return _figure(frame + lines, caption, [curve.name for curve in curves])


def reliability(bins: Bins, *, caption: str) -> str:
    """How often labels of a score are right, as bars, beside the diagonal where they should be."""
    width = 1 / len(bins.decisions)
    bars = "".join(
        _bar(i * width, (i + 1) * width, share, "c0", f"{int(n):,} decisions: {share:.3f}")
        for i, (n, share) in enumerate(zip(bins.decisions, bins.positive, strict=True))
        if n
    )
    ideal = f'<polyline class="ideal" points="{_points([0, 1], [0, 1])}"/>'
    frame = _frame("score", "share that is right", _unit_ticks(), _unit_ticks())
    return _figure(frame + bars + ideal, caption, [])


def histogram(counts: np.ndarray, names: Sequence[str], *, caption: str) -> str:
    """Counts [series, bins] of equal parts of 0…1 as bars on a logarithmic axis.

    The bars of a bin stand side by side.
    """
    top = max(1, math.ceil(math.log10(max(counts.max(), 1) + 1)))
    step = -(-top // 6)
    ticks = [(10**e, e / top) for e in range(0, top + 1, step)]
    series, bins = counts.shape
    bars = "".join(
        _bar(
            (b + 0.08 + 0.84 * s / series) / bins,
            (b + 0.08 + 0.84 * (s + 1) / series) / bins,
            (math.log10(n) + 0.1) / (top + 0.1),  # a single one can be seen, too
            f"c{s}",
            f"{int(n):,}",
        )
        for s in range(series)
        for b, n in enumerate(counts[s])
        if n
    )
    named = [(_short(value), (place * top + 0.1) / (top + 0.1)) for value, place in ticks]
    return _figure(_frame("score", "decisions", _unit_ticks(), named) + bars, caption, names)


def score_counts(scores: np.ndarray, targets: np.ndarray, *, bins: int = 20) -> np.ndarray:
    """Decisions by score, absent and present labels apart: [2, bins]."""
    counts = np.zeros((2, bins))
    step = max(1, _CHUNK // scores.shape[1])
    for start in range(0, len(scores), step):
        some, truth = scores[start : start + step], targets[start : start + step]
        places = np.minimum((some * bins).astype(np.int64), bins - 1)
        counts[0] += np.bincount(places[(truth >= 0) & (truth < 1)], minlength=bins)
        counts[1] += np.bincount(places[truth >= 1], minlength=bins)
    return counts


def _figure(inside: str, caption: str, names: Sequence[str]) -> str:
    items = "".join(
        f'<li><svg viewBox="0 0 10 10" aria-hidden="true"><rect class="bar c{i}" width="10"'
        f' height="10"/></svg><bdi>{escape(name)}</bdi></li>'
        for i, name in enumerate(names)
    )
    key = f'<ul class="key">{items}</ul>' if items else ""
    return f"""<figure><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{caption}">
{inside}</svg>{key}<figcaption>{caption}</figcaption></figure>"""


def _frame(
    x_label: str, y_label: str, x_ticks: list[tuple[str, float]], y_ticks: list[tuple[str, float]]
) -> str:
    """Grid and names of the axes; ticks are names with their places in 0…1."""
    parts = []
    for name, place in x_ticks:
        x = _x(place)
        parts.append(f'<path class="grid" d="M{x} {_y(0)}V{_y(1)}"/>')
        parts.append(f'<text x="{x}" y="{_y(0) + 15}" text-anchor="middle">{name}</text>')
    for name, place in y_ticks:
        y = _y(place)
        parts.append(f'<path class="grid" d="M{_x(0)} {y}H{_x(1)}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4}" text-anchor="end">{name}</text>')
    middle = _y(0.5)
    parts.append(
        f'<text x="{_x(0.5)}" y="{_HEIGHT - 6}" text-anchor="middle">{x_label}</text>'
        f'<text x="12" y="{middle}" text-anchor="middle" transform="rotate(-90 12 {middle})">'
        f"{y_label}</text>"
    )
    return "".join(parts)


def _bar(left: float, right: float, height: float, style: str, title: str) -> str:
    x, y = _x(left), _y(height)
    return (
        f'<rect class="bar {style}" x="{x}" y="{y}"'
        f' width="{round(_x(right) - x, 1)}"'
        f' height="{round(_y(0) - y, 1)}"><title>{title}</title></rect>'
    )


def _points(x: Sequence[float] | np.ndarray, y: Sequence[float] | np.ndarray) -> str:
    return " ".join(f"{_x(a)},{_y(b)}" for a, b in zip(x, y, strict=True))


def _x(share: float) -> float:
    return round(_LEFT + float(share) * (_WIDTH - _LEFT - _RIGHT), 1)


def _y(share: float) -> float:
    return round(_HEIGHT - _BOTTOM - float(share) * (_HEIGHT - _TOP - _BOTTOM), 1)


def _unit_ticks() -> list[tuple[str, float]]:
    return [(f"{i / 5:.1f}", i / 5) for i in range(6)]


def _short(number: int) -> str:
    for unit, name in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if number >= unit:
            return f"{number // unit}{name}"
    return str(number)
