"""Pictures of a checked data set: images a class, labels that occur together, labelled samples."""

import bisect
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from mlcls_jax.data.findings import CheckReport
from mlcls_jax.data.images import decode_image, read_file
from mlcls_jax.errors import DataError, DatasetFileNotFoundError
from mlcls_jax.files import replace_folder, replacing
from mlcls_jax.inference.drawing import (
    Color,
    Font,
    draw_labels,
    draw_line,
    find_font,
    text_width,
)

MAX_NAMED = 120  # more classes than that: a curve over all of them, and the names of the extremes
MAX_ROWS = 40  # names below each other
MAX_SAMPLES = 10  # of a list
MAX_SAMPLE_SIDE = 1024  # pixels
MAX_SAMPLE_LABELS = 100  # drawn below one picture

# Okabe and Ito's colours, which the colour-blind can tell apart; red is for what is missing.
SPLIT_COLORS = ((0, 114, 178), (230, 159, 0), (0, 158, 115))
RED = (208, 0, 30)
_TEXT, _FAINT, _GRID, _DIAGONAL = (32, 33, 36), (95, 99, 104), (222, 225, 230), (205, 208, 212)

_TITLE_SIZE, _NAME_SIZE, _SMALL_SIZE = 22, 15, 12
_MARGIN = 24
_PANEL_WIDTHS = (880, 720, 560)  # of one, two and three columns
_HEAD_HEIGHT, _CURVE_HEIGHT = 84, 380
_HEADING_HEIGHT, _TICK_HEIGHT = 30, 20


def draw_histogram(report: CheckReport, path: Path) -> None:
    """Writes a PNG with the images a class in each list, classes by falling train count.

    Up to `MAX_NAMED` classes have a group of bars each, with name and counts. More classes are a
    curve, and the `MAX_ROWS` most frequent and rarest of them have bars. Red are the classes that
    a list has no image of. Counts over more than two orders of magnitude get a logarithmic axis.
    """
    counts = np.array([split.positives for split in report.splits.values()])  # int64 [S, K]
    if not counts.size:
        _save(_notice("Images per class: there is no label or no list to count."), path)
        return
    num_classes = counts.shape[1]
    order = np.argsort(-counts[0], kind="stable")  # the first list is train
    if num_classes <= MAX_NAMED:
        panels = [("", classes) for classes in np.array_split(order, -(-num_classes // MAX_ROWS))]
        curve_height = 0
    else:
        panels = _extremes(order, counts[0], next(iter(report.splits)))
        curve_height = _CURVE_HEIGHT
    rows = max(len(classes) for _, classes in panels)
    bar = 17 if rows <= 12 else 13  # thickness
    panel_width = _PANEL_WIDTHS[len(panels) - 1]
    width = _MARGIN + len(panels) * (panel_width + _MARGIN)
    top = _HEAD_HEIGHT + curve_height
    axis = _axis(counts)
    shown = (report.labels[k] for _, classes in panels for k in classes)
    font = find_font("".join(shown), size=_NAME_SIZE)

    picture = Image.new("RGB", (width, top + _panel_height(rows, len(counts), bar)), "white")
    draw = ImageDraw.Draw(picture)
    _draw_head(draw, report, counts, axis)
    if curve_height:
        box = (_MARGIN + 60, _HEAD_HEIGHT + 12, width - _MARGIN, top - 64)
        _draw_curve(draw, box, counts[:, order], axis)
    for number, (heading, classes) in enumerate(panels):
        left = _MARGIN + number * (panel_width + _MARGIN)
        names = [report.labels[k] for k in classes]
        box = (left, top, left + panel_width)
        _draw_panel(draw, box, heading, names, font, counts[:, classes], axis, bar=bar)
    _save(picture, path)


def draw_cooccurrence(report: CheckReport, path: Path) -> None:
    """Writes a PNG of how often the column's label occurs, given the row's: percent of its images.

    The `MAX_ROWS` most frequent labels are shown, and none that has no image.
    """
    totals = np.diagonal(report.cooccurrence)
    shown = [k for k in np.argsort(-totals, kind="stable")[:MAX_ROWS] if totals[k] > 0]
    if not shown:
        _save(_notice("Labels that occur together: no image has a label."), path)
        return
    shares = report.cooccurrence[np.ix_(shown, shown)] / totals[shown, None]  # [n, n]
    cell = 64 if len(shown) <= 10 else 44 if len(shown) <= 20 else 28
    small = find_font("", size=_SMALL_SIZE)
    labels = [report.labels[k] for k in shown]
    font = find_font("".join(labels), size=_NAME_SIZE)
    labels = [_fit(label, font, 220) for label in labels]
    longest = max(text_width(label, font=font) for label in labels)
    side = cell * len(shown)
    left = _MARGIN + longest + 80  # names, and how many images each has
    top = _HEAD_HEIGHT + longest + 16
    size = (max(left + side + _MARGIN, 760), top + side + 84)

    picture = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(picture)
    number, is_all = len(report.labels), len(shown) == len(report.labels)
    which = f"all {number}" if is_all else f"the {len(shown)} most frequent of {number:,}"
    title = f"Labels that occur together: {which} labels"
    draw.text((_MARGIN, 20), title, fill=_TEXT, font=find_font("", size=_TITLE_SIZE))
    text = "Of the images with the row's label, so many percent have the column's label, too."
    draw.text((_MARGIN, 54), text, fill=_FAINT, font=find_font("", size=_NAME_SIZE))
    draw.rectangle((left - 1, top - 1, left + side - 1, top + side - 1), outline=_GRID)
    for i, label in enumerate(labels):
        middle = top + i * cell + cell // 2
        _draw_name(draw, (left - 72, middle), label, font, _TEXT)
        draw.text((left - 8, middle), _short_count(totals[shown[i]]), _FAINT, small, anchor="rm")
        _draw_upwards(picture, (left + i * cell + cell // 2, top - 8), label, font)
        for j, share in enumerate(shares[i]):
            color = _DIAGONAL if i == j else _shade(share)
            x, y = left + j * cell, top + i * cell
            draw.rectangle((x, y, x + cell - 2, y + cell - 2), fill=color)
            if i != j and share > 0:
                ink = "white" if share > 0.3 else _TEXT
                place = (x + cell // 2 - 1, y + cell // 2 - 1)
                draw.text(place, _percent(share), fill=ink, font=small, anchor="mm")
    _draw_scale(draw, (left, top + side + 24, left + max(side, 280)))
    _save(picture, path)


def draw_samples(report: CheckReport, folder: Path) -> dict[str, list[Path]]:
    """Writes the first images of train and val with their labels; replaces `folder`.

    Images that cannot be read are left out; larger ones than `MAX_SAMPLE_SIDE` pixels shrunk.

    Returns:
      List ("train", "val") → the JPEG files written, in the order of the list.
    """
    written: dict[str, list[Path]] = {"train": [], "val": []}

    def fill(new: Path) -> None:
        for name, files in written.items():
            split = report.splits.get(name)
            for path, target in split.samples[:MAX_SAMPLES] if split else ():
                try:
                    image = read_listed(report.root, path, MAX_SAMPLE_SIDE)
                except DataError:
                    continue
                entries = [_shorten(entry, 80) for entry in sample_entries(report.labels, target)]
                picture = draw_labels(np.asarray(image), entries)
                file_name = f"{name}_{len(files):02d}.jpg"
                picture.save(new / file_name, quality=90, subsampling=0)  # else text is blurred
                files.append(folder / file_name)

    replace_folder(folder, fill)
    return written


def read_listed(root: Path, name: str, side: int) -> Image.Image:
    """An image that a list names, in RGB, shrunk to `side` pixels where it is wider or higher.

    Raises:
      DatasetFileNotFoundError: it is not there.
      DataError: it cannot be shown; says why in a few words. Files outside the data set are not
        shown either: lists may name any file of the machine, and reports are passed on.
    """
    if os.path.isabs(name) or Path(os.path.normpath(name)).parts[:1] == ("..",):
        raise DataError("outside the data set")
    try:
        is_file = (root / name).is_file()  # a device or a pipe could be read for ever
    except OSError:  # a name too long for the file system
        is_file = False
    if not is_file:
        raise DatasetFileNotFoundError("no such file")
    try:
        pixels = decode_image(read_file(root / name), name=name, at_least=(side, side))
    except DataError as error:
        raise DataError("cannot be decoded") from error
    picture = Image.fromarray(pixels)
    picture.thumbnail((side, side))
    return picture


def sample_entries(labels: Sequence[str], target: np.ndarray) -> list[str]:
    """What is written below a sample with the target int8 [K]; never empty."""
    present = [labels[k] for k in np.flatnonzero(target == 1)]
    entries = present[:MAX_SAMPLE_LABELS] or ["(no label)"]
    if len(present) > MAX_SAMPLE_LABELS:
        entries.append(f"(and {len(present) - MAX_SAMPLE_LABELS} more)")
    if unknown := np.count_nonzero(target == -1):
        entries.append(f"({unknown} not annotated)")
    return entries


class _Axis(NamedTuple):
    """From counts to lengths: 0 is at 0, `largest` at 1."""

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
    """The ends of `order`, classes [K] by falling count [K] in `split`, and headings."""
    present, empty = order[counts[order] > 0], order[counts[order] == 0]
    frequent, rarest = present[:MAX_ROWS], present[MAX_ROWS:][-MAX_ROWS:]
    panels = [
        (f"the {len(frequent)} most frequent", frequent),
        (f"the {len(rarest)} rarest that occur", rarest),
        (
            f"{min(len(empty), MAX_ROWS)} of {len(empty):,} without an image in {split}",
            empty[:MAX_ROWS],
        ),
    ]
    return [panel for panel in panels if len(panel[1])]


def _draw_head(
    draw: ImageDraw.ImageDraw, report: CheckReport, counts: np.ndarray, axis: _Axis
) -> None:
    scale = ", logarithmic scale" if axis.logarithmic else ""
    title = f"Images per class: {len(report.labels):,} classes{scale}"
    draw.text((_MARGIN, 20), title, fill=_TEXT, font=find_font("", size=_TITLE_SIZE))
    entries = [
        (color, f"{split.name} ({split.images:,} images)")
        for color, split in zip(SPLIT_COLORS, report.splits.values(), strict=False)
    ]
    if (counts == 0).any():
        entries.append((RED, "no image in this list"))
    font = find_font("", size=_NAME_SIZE)
    left, middle = _MARGIN, 66
    for color, text in entries:
        draw.rectangle((left, middle - 6, left + 12, middle + 6), fill=color)
        draw.text((left + 20, middle), text, fill=_TEXT, font=font, anchor="lm")
        left += 20 + math.ceil(font.getlength(text)) + 28


def _draw_curve(
    draw: ImageDraw.ImageDraw,
    box: tuple[int, int, int, int],
    counts: np.ndarray,  # [S, K], classes by falling count in the first list
    axis: _Axis,
) -> None:
    """All classes from left to right: the first list as an area, a dot a class for the others."""
    left, top, right, bottom = box
    num_classes = counts.shape[1]
    small = find_font("", size=_SMALL_SIZE)
    x = left + (np.arange(num_classes) + 0.5) / num_classes * (right - left)
    y = [[bottom - axis.share(count) * (bottom - top) for count in row] for row in counts]
    for tick in axis.ticks():
        height = bottom - axis.share(tick) * (bottom - top)
        draw.line((left, height, right, height), fill=_GRID)
        draw.text((left - 8, height), f"{tick:,}", fill=_FAINT, font=small, anchor="rm")
    outline = [(left, y[0][0]), *zip(x, y[0], strict=True), (right, y[0][-1])]
    draw.polygon([(left, bottom), *outline, (right, bottom)], fill=(191, 219, 236))
    draw.line(outline, fill=SPLIT_COLORS[0], width=3)
    for row, heights, color in zip(counts[1:], y[1:], SPLIT_COLORS[1:], strict=False):
        for count, across, height in zip(row, x, heights, strict=True):
            dot = (across - 2, height - 2, across + 2, height + 2)
            draw.ellipse(dot, fill=color if count else RED)
    for rank in [1, *_Axis(num_classes).ticks()[1:]]:
        across = x[rank - 1]
        draw.line((across, bottom, across, bottom + 5), fill=_FAINT)
        draw.text((across, bottom + 8), f"{rank:,}", fill=_FAINT, font=small, anchor="ma")
    draw.text(
        (left, bottom + 26),
        "rank by images in the first list",
        fill=_FAINT,
        font=small,
        anchor="la",
    )
    if empty := np.count_nonzero(counts[0] == 0):
        draw.line((x[-empty], bottom, right, bottom), fill=RED, width=5)
        text = f"{empty:,} classes without one"
        draw.text((right, bottom + 26), text, fill=RED, font=small, anchor="ra")


def _panel_height(rows: int, lists: int, bar: int) -> int:
    return _HEADING_HEIGHT + 2 * _TICK_HEIGHT + rows * (lists * bar + 8) + _MARGIN


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
    """Horizontal bars: a group a class, a bar a list, with the name before and counts behind."""
    left, top, right = place
    small = find_font("", size=_SMALL_SIZE)
    names = [_fit(name, font, (right - left) // 3) for name in names]
    start = left + max(text_width(name, font=font) for name in names) + 10
    length = right - start - math.ceil(small.getlength(f"{axis.largest:,}")) - 8

    draw.text((start, top), heading, fill=_TEXT, font=find_font("", size=_NAME_SIZE))
    first, step = top + _HEADING_HEIGHT + _TICK_HEIGHT, len(counts) * bar + 8
    last = first + len(names) * step
    for tick in axis.ticks():
        across = start + axis.share(tick) * length
        draw.line((across, first - 4, across, last + 4), fill=_GRID)
        for height, anchor in ((first - 6, "ms"), (last + 6, "ma")):
            draw.text((across, height), f"{tick:,}", fill=_FAINT, font=small, anchor=anchor)
    for row, name in enumerate(names):
        upper = first + row * step + 4
        color = _TEXT if counts[:, row].all() else RED
        middle = upper + len(counts) * bar // 2
        _draw_name(draw, (start - 8, middle), name, font, color)
        for count, color in zip(counts[:, row], SPLIT_COLORS, strict=False):
            end = start + axis.share(count) * length
            box = (start, upper, max(end, start + 2), upper + bar - 2)
            draw.rectangle(box, fill=color if count else RED)
            color, text = (_FAINT, f"{count:,}") if count else (RED, "none")
            draw.text((end + 6, upper + bar // 2), text, fill=color, font=small, anchor="lm")
            upper += bar


def _draw_name(
    draw: ImageDraw.ImageDraw, place: tuple[int, int], text: str, font: Font, color: Color | int
) -> None:
    """Text that ends at `place` = (right, middle)."""
    right, middle = place
    corner = (right - text_width(text, font=font), middle - sum(font.getmetrics()) / 2)
    draw_line(draw, corner, text, font=font, color=color)


def _draw_upwards(picture: Image.Image, place: tuple[int, int], text: str, font: Font) -> None:
    """Text turned by a quarter, which ends at `place` = (middle, bottom)."""
    strip = Image.new("L", (text_width(text, font=font), 2 * font.size))
    _draw_name(ImageDraw.Draw(strip), (strip.width, font.size), text, font, 255)
    mask = strip.transpose(Image.Transpose.ROTATE_90)
    corner = (place[0] - mask.width // 2, place[1] - mask.height)
    picture.paste(_TEXT, corner, mask)


def _draw_scale(draw: ImageDraw.ImageDraw, place: tuple[int, int, int]) -> None:
    """The colours from 0 to 100 percent below the matrix; `place` = (left, top, right)."""
    left, top, right = place
    small = find_font("", size=_SMALL_SIZE)
    for across in range(left, right):
        share = ((across - left) / (right - left)) ** 2
        draw.line((across, top, across, top + 14), fill=_shade(share))
    for percent in (0, 1, 5, 10, 25, 50, 75, 100):
        across = left + math.sqrt(percent / 100) * (right - left)
        draw.line((across, top + 14, across, top + 19), fill=_FAINT)
        draw.text((across, top + 22), f"{percent}%", fill=_FAINT, font=small, anchor="ma")


def _shade(share: float) -> Color:
    """White to dark blue; by the root, because most labels seldom meet."""
    depth = math.sqrt(share)
    return tuple(round(255 + (end - 255) * depth) for end in (0, 60, 120))


def _percent(share: float) -> str:
    percent = 100 * share
    return "<1" if percent < 1 else f"{math.floor(percent + 0.5)}"


def _short_count(count: int) -> str:
    """At most five characters: 999, 1.2k, 64k, 3.1M."""
    for unit, name in ((10**6, "M"), (10**3, "k")):
        if count >= unit:
            return f"{count / unit:.1f}{name}" if count < 10 * unit else f"{count // unit}{name}"
    return str(count)


def _shorten(text: str, length: int) -> str:
    text = " ".join(text.split())
    return text if len(text) <= length else text[: length - 1] + "…"


def _fit(text: str, font: Font, width: int) -> str:
    """One line of at most `width` pixels, its end replaced by … where it is longer."""
    text = _shorten(text, 200)
    if text_width(text, font=font) <= width:
        return text
    # The longest beginning that fits; longer ones are wider.
    beginnings = range(len(text))
    kept = bisect.bisect_right(
        beginnings, width, key=lambda n: text_width(text[:n] + "…", font=font)
    )
    return text[: max(kept - 1, 0)] + "…"


def _notice(text: str) -> Image.Image:
    picture = Image.new("RGB", (760, 100), "white")
    font = find_font("", size=_NAME_SIZE)
    ImageDraw.Draw(picture).text((_MARGIN, 50), text, fill=_TEXT, font=font, anchor="lm")
    return picture


def _save(picture: Image.Image, path: Path) -> None:
    """As PNG."""
    with replacing(path) as temporary:
        picture.save(temporary, format="PNG", optimize=True)
