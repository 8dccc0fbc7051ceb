"""A bar chart of how many images each label has."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from mlcls_jax.data.findings import CheckReport
from mlcls_jax.inference.fonts import Font, find_font, text_width
from mlcls_jax.reports import canvas

MAX_NAMED = 120  # more classes than that: a curve over all of them, and the names of the extremes

# Okabe and Ito's colours, which the colour-blind can tell apart.
SPLIT_COLORS = ((0, 114, 178), (230, 159, 0), (0, 158, 115))

_PANEL_WIDTHS = (880, 720, 560)  # of one, two and three columns
_CURVE_HEIGHT = 380
_HEADING_HEIGHT, _TICK_HEIGHT = 30, 20


def draw_histogram(report: CheckReport, path: Path) -> None:
    """Write a PNG with the images per class in each list, classes by falling train count.

    Up to `MAX_NAMED` classes have a group of bars each, with name and counts. More classes are a
    curve, and the `MAX_ROWS` most frequent and rarest of them have bars. Red are the classes that
    a list has no image of. Counts over more than two orders of magnitude get a logarithmic axis.
    """
    counts = np.array([split.positives for split in report.splits.values()])  # int64 [S, K]
    if not counts.size:
        canvas.save(canvas.notice("Images per class: there is no label or no list to count."), path)
        return
    num_classes = counts.shape[1]
    order = np.argsort(-counts[0], kind="stable")  # the first list is train
    if num_classes <= MAX_NAMED:
        panels = [
            ("", classes) for classes in np.array_split(order, -(-num_classes // canvas.MAX_ROWS))
        ]
        curve_height = 0
    else:
        panels = _extremes(order, counts[0], next(iter(report.splits)))
        curve_height = _CURVE_HEIGHT
    rows = max(len(classes) for _, classes in panels)
    bar = 17 if rows <= 12 else 13  # thickness
    panel_width = _PANEL_WIDTHS[len(panels) - 1]
    width = canvas.MARGIN + len(panels) * (panel_width + canvas.MARGIN)
    top = canvas.HEAD_HEIGHT + curve_height
    axis = _axis(counts)
    shown = (report.labels[k] for _, classes in panels for k in classes)
    font = find_font("".join(shown), size=canvas.NAME_SIZE)

    picture = Image.new("RGB", (width, top + _panel_height(rows, len(counts), bar)), "white")
    draw = ImageDraw.Draw(picture)
    scale = ", logarithmic scale" if axis.logarithmic else ""
    canvas.draw_head(picture, f"Images per class: {len(report.labels):,} classes{scale}")
    _draw_key(draw, report, counts)
    if curve_height:
        box = (canvas.MARGIN + 60, canvas.HEAD_HEIGHT + 12, width - canvas.MARGIN, top - 64)
        _draw_curve(draw, box, counts[:, order], axis)
    for number, (heading, classes) in enumerate(panels):
        left = canvas.MARGIN + number * (panel_width + canvas.MARGIN)
        names = [report.labels[k] for k in classes]
        box = (left, top, left + panel_width)
        _draw_panel(draw, box, heading, names, font, counts[:, classes], axis, bar=bar)
    canvas.save(picture, path)


class _Axis(NamedTuple):
    """A scale from counts to lengths: 0 is at 0, `largest` at 1."""

    largest: int
    logarithmic: bool = False

    def share(self, count: int) -> float:
        if self.logarithmic:  # of count + 1, so that 0 has a place and 1 is seen
            return math.log1p(count) / math.log1p(self.largest)
        return count / self.largest

    def ticks(self) -> list[int]:
        power = 10 ** int(math.log10(self.largest))
        if self.logarithmic:
            return [0, *(10**i for i in range(int(math.log10(self.largest)) + 1))]
        steps = (power // 5, power // 2, power, 2 * power)
        step = next(step for step in steps if step and self.largest <= 5 * step)
        return list(range(0, self.largest + 1, step))


def _axis(counts: np.ndarray) -> _Axis:
    positive = counts[counts > 0]
    if not positive.size:
        return _Axis(1)
    return _Axis(int(positive.max()), bool(positive.max() > 100 * positive.min()))


def _extremes(order: np.ndarray, counts: np.ndarray, split: str) -> list[tuple[str, np.ndarray]]:
    """Return the ends of `order`, classes [K] by falling count [K] in `split`, with headings."""
    present, empty = order[counts[order] > 0], order[counts[order] == 0]
    frequent, rarest = present[: canvas.MAX_ROWS], present[canvas.MAX_ROWS :][-canvas.MAX_ROWS :]
    panels = [
        (f"the {len(frequent)} most frequent", frequent),
        (f"the {len(rarest)} rarest that occur", rarest),
        (
            f"{min(len(empty), canvas.MAX_ROWS)} of {len(empty):,} without an image in {split}",
            empty[: canvas.MAX_ROWS],
        ),
    ]
    return [panel for panel in panels if len(panel[1])]


def _draw_key(draw: ImageDraw.ImageDraw, report: CheckReport, counts: np.ndarray) -> None:
    entries = [
        (color, f"{split.name} ({split.images:,} images)")
        for color, split in zip(SPLIT_COLORS, report.splits.values(), strict=False)
    ]
    if (counts == 0).any():
        entries.append((canvas.RED, "no image in this list"))
    font = find_font("", size=canvas.NAME_SIZE)
    left, middle = canvas.MARGIN, 66
    for color, text in entries:
        draw.rectangle((left, middle - 6, left + 12, middle + 6), fill=color)
        draw.text((left + 20, middle), text, fill=canvas.TEXT, font=font, anchor="lm")
        left += 20 + math.ceil(font.getlength(text)) + 28


def _draw_curve(
    draw: ImageDraw.ImageDraw,
    box: tuple[int, int, int, int],
    counts: np.ndarray,  # [S, K], classes by falling count in the first list
    axis: _Axis,
) -> None:
    """Draw all classes from left to right: an area for the first list, dots for the others."""
    left, top, right, bottom = box
    num_classes = counts.shape[1]
    x = left + (np.arange(num_classes) + 0.5) / num_classes * (right - left)
    y = [[bottom - axis.share(count) * (bottom - top) for count in row] for row in counts]
    for tick in axis.ticks():
        height = bottom - axis.share(tick) * (bottom - top)
        draw.line((left, height, right, height), fill=canvas.GRID)
        canvas.write(draw, (left - 8, height), f"{tick:,}", anchor="rm")
    outline = [(left, y[0][0]), *zip(x, y[0], strict=True), (right, y[0][-1])]
    draw.polygon([(left, bottom), *outline, (right, bottom)], fill=(191, 219, 236))
    draw.line(outline, fill=SPLIT_COLORS[0], width=3)
    for row, heights, color in zip(counts[1:], y[1:], SPLIT_COLORS[1:], strict=False):
        for count, across, height in zip(row, x, heights, strict=True):
            dot = (across - 2, height - 2, across + 2, height + 2)
            draw.ellipse(dot, fill=color if count else canvas.RED)
    for rank in [1, *_Axis(num_classes).ticks()[1:]]:
        across = x[rank - 1]
        draw.line((across, bottom, across, bottom + 5), fill=canvas.FAINT)
        canvas.write(draw, (across, bottom + 8), f"{rank:,}", anchor="ma")
    canvas.write(draw, (left, bottom + 26), "rank by images in the first list")
    if empty := np.count_nonzero(counts[0] == 0):
        draw.line((x[-empty], bottom, right, bottom), fill=canvas.RED, width=5)
        text = f"{empty:,} classes without one"
        canvas.write(draw, (right, bottom + 26), text, color=canvas.RED, anchor="ra")


def _panel_height(rows: int, lists: int, bar: int) -> int:
    return _HEADING_HEIGHT + 2 * _TICK_HEIGHT + rows * (lists * bar + 8) + canvas.MARGIN


def _draw_panel(
    draw: ImageDraw.ImageDraw,
    place: tuple[int, int, int],  # left, top, right
    heading: str,
    names: Sequence[str],
    font: Font,
    counts: np.ndarray,  # [S, len(names)]
    axis: _Axis,
    *,
    bar: int,
) -> None:
    """Draw a group of bars per class, one per list, with the name before and counts behind."""
    left, top, right = place
    small = find_font("", size=canvas.SMALL_SIZE)
    names = [canvas.fit(name, font, (right - left) // 3) for name in names]
    start = left + max(text_width(name, font=font) for name in names) + 10
    length = right - start - math.ceil(small.getlength(f"{axis.largest:,}")) - 8

    canvas.write(draw, (start, top), heading, size=canvas.NAME_SIZE, color=canvas.TEXT)
    first, step = top + _HEADING_HEIGHT + _TICK_HEIGHT, len(counts) * bar + 8
    last = first + len(names) * step
    for tick in axis.ticks():
        across = start + axis.share(tick) * length
        draw.line((across, first - 4, across, last + 4), fill=canvas.GRID)
        for height, anchor in ((first - 6, "ms"), (last + 6, "ma")):
            canvas.write(draw, (across, height), f"{tick:,}", anchor=anchor)
    for row, name in enumerate(names):
        upper = first + row * step + 4
        color = canvas.TEXT if counts[:, row].all() else canvas.RED
        middle = upper + len(counts) * bar // 2
        canvas.draw_name(draw, (start - 8, middle), name, font, color)
        for count, color in zip(counts[:, row], SPLIT_COLORS, strict=False):
            end = start + axis.share(count) * length
            box = (start, upper, max(end, start + 2), upper + bar - 2)
            draw.rectangle(box, fill=color if count else canvas.RED)
            color, text = (canvas.FAINT, f"{count:,}") if count else (canvas.RED, "none")
            canvas.write(draw, (end + 6, upper + bar // 2), text, color=color, anchor="lm")
            upper += bar
