"""A matrix of the labels that occur together."""

import math
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from mlcls_jax.data.findings import CheckReport
from mlcls_jax.inference.fonts import Color, Font, find_font, text_width
from mlcls_jax.reports import canvas

_DIAGONAL = (205, 208, 212)


def draw_cooccurrence(report: CheckReport, path: Path) -> None:
    """Write a PNG of how often the column's label occurs, given the row's: percent of its images.

    The `MAX_ROWS` most frequent labels are shown, and none that has no image.
    """
    totals = np.diagonal(report.cooccurrence)
    shown = [k for k in np.argsort(-totals, kind="stable")[: canvas.MAX_ROWS] if totals[k] > 0]
    if not shown:
        canvas.save(canvas.notice("Labels that occur together: no image has a label."), path)
        return
    shares = report.cooccurrence[np.ix_(shown, shown)] / totals[shown, None]  # [n, n]
    cell = 64 if len(shown) <= 10 else 44 if len(shown) <= 20 else 28
    labels = [report.labels[report.frequent[k]] for k in shown]
    font = find_font("".join(labels), size=canvas.NAME_SIZE)
    labels = [canvas.fit(label, font, 220) for label in labels]
    longest = max(text_width(label, font=font) for label in labels)
    side = cell * len(shown)
    left = canvas.MARGIN + longest + 80  # names, and how many images each has
    top = canvas.HEAD_HEIGHT + longest + 16
    size = (max(left + side + canvas.MARGIN, 760), top + side + 84)

    picture = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(picture)
    count = len(report.labels)
    is_all = len(shown) == count
    which = f"all {count}" if is_all else f"the {len(shown)} most frequent of {count:,}"
    title = f"Labels that occur together: {which} labels"
    text = "Of the images with the row's label, so many percent have the column's label, too."
    canvas.draw_head(picture, title, text)
    draw.rectangle((left - 1, top - 1, left + side - 1, top + side - 1), outline=canvas.GRID)
    for i, label in enumerate(labels):
        middle = top + i * cell + cell // 2
        canvas.draw_name(draw, (left - 72, middle), label, font, canvas.TEXT)
        number = _short_count(int(totals[shown[i]]))
        canvas.write(draw, (left - 8, middle), number, anchor="rm")
        _draw_upwards(picture, (left + i * cell + cell // 2, top - 8), label, font)
        for j, share in enumerate(shares[i]):
            color = _DIAGONAL if i == j else _shade(share)
            x, y = left + j * cell, top + i * cell
            draw.rectangle((x, y, x + cell - 2, y + cell - 2), fill=color)
            if i != j and share > 0:
                ink = "white" if share > 0.3 else canvas.TEXT
                place = (x + cell // 2 - 1, y + cell // 2 - 1)
                canvas.write(draw, place, _percent(share), color=ink, anchor="mm")
    _draw_scale(draw, (left, top + side + 24, left + max(side, 280)))
    canvas.save(picture, path)


def _draw_upwards(picture: Image.Image, place: tuple[int, int], text: str, font: Font) -> None:
    """Draw text turned by a quarter, which ends at `place` = (middle, bottom)."""
    size = int(font.size)
    strip = Image.new("L", (text_width(text, font=font), 2 * size))
    canvas.draw_name(ImageDraw.Draw(strip), (strip.width, size), text, font, 255)
    mask = strip.transpose(Image.Transpose.ROTATE_90)
    corner = (place[0] - mask.width // 2, place[1] - mask.height)
    picture.paste(canvas.TEXT, corner, mask)


def _draw_scale(draw: ImageDraw.ImageDraw, place: tuple[int, int, int]) -> None:
    """Draw the colours from 0 to 100 percent below the matrix; `place` = (left, top, right)."""
    left, top, right = place
    for across in range(left, right):
        share = ((across - left) / (right - left)) ** 2
        draw.line((across, top, across, top + 14), fill=_shade(share))
    for percent in (0, 1, 5, 10, 25, 50, 75, 100):
        across = left + math.sqrt(percent / 100) * (right - left)
        draw.line((across, top + 14, across, top + 19), fill=canvas.FAINT)
        canvas.write(draw, (across, top + 22), f"{percent}%", anchor="ma")


def _shade(share: float) -> Color:
    """Return white to dark blue; by the root, because most labels seldom meet."""
    depth = math.sqrt(share)
    red, green, blue = (round(255 + (end - 255) * depth) for end in (0, 60, 120))
    return red, green, blue


def _percent(share: float) -> str:
    percent = 100 * share
    return "<1" if percent < 1 else f"{math.floor(percent + 0.5)}"


def _short_count(count: int) -> str:
    """Return at most five characters: 999, 1.2k, 64k, 3.1M."""
    for unit, name in ((10**6, "M"), (10**3, "k")):
        if count >= unit:
            return f"{count / unit:.1f}{name}" if count < 10 * unit else f"{count // unit}{name}"
    return str(count)
