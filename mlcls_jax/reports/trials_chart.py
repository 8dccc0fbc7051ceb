"""The picture of a search: its metric by trial and by each value that was tried."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from mlcls_jax.inference.fonts import Font, find_font
from mlcls_jax.reports.axes import BLUE, PALE, Area
from mlcls_jax.reports.canvas import MARGIN, NAME_SIZE, RED, SMALL_SIZE, TEXT, fit, save

COLUMNS = 2
WIDTH, HEIGHT = 380, 300  # of a panel
LEFT, RIGHT, TOP, BOTTOM = 64, 366, 36, 224  # of its axes
HEAD = 56
RADIUS = 4
COLORS = {"pale": PALE, "plain": BLUE, "best": RED}  # in the order in which they cover each other


class Point(NamedTuple):
    """A trial in a panel."""

    x: Any  # a number, or one of the panel's choices
    y: float
    kind: Literal["pale", "plain", "best"]


class Panel(NamedTuple):
    """The trials by one of their values."""

    name: str
    is_log: bool
    choices: Sequence[str]
    points: Sequence[Point]


def draw_trials(path: Path, title: str, panels: Sequence[Panel]) -> None:
    """Write the panels, two a row, as a PNG; all have the same vertical axis."""
    rows = math.ceil(len(panels) / COLUMNS)
    picture = Image.new("RGB", (COLUMNS * WIDTH, HEAD + rows * HEIGHT), "white")
    draw = ImageDraw.Draw(picture)
    font, small = find_font("", size=NAME_SIZE), find_font("", size=SMALL_SIZE)
    draw.text((MARGIN, HEAD / 2), title, fill=TEXT, font=font, anchor="lm")
    values = [point.y for panel in panels for point in panel.points] or [0.0, 1.0]
    low, high = min(values), max(values)
    span = max(high - low, 1e-3)
    for number, panel in enumerate(panels):
        x, y = number % COLUMNS * WIDTH, HEAD + number // COLUMNS * HEIGHT
        area = Area(x + LEFT, y + TOP, x + RIGHT, y + BOTTOM)
        draw.text((area.left, area.top - 16), panel.name, fill=TEXT, font=small, anchor="lm")
        _draw(draw, area, panel, small, low - 0.05 * span, high + 0.05 * span)
    save(picture, path)


def _draw(
    draw: ImageDraw.ImageDraw, area: Area, panel: Panel, font: Font, low: float, high: float
) -> None:
    if panel.choices:
        width = 1 / len(panel.choices)
        places = {choice: (i + 0.5) * width for i, choice in enumerate(panel.choices)}
        pixels = int(width * (area.right - area.left)) - 4
        lines = ["\n".join(fit(w, font, pixels) for w in c.split(",")) for c in panel.choices]
        x_ticks = list(zip(places.values(), lines, strict=True))
        x = [places[point.x] for point in panel.points]
    else:
        x, x_ticks = _on_axis([float(p.x) for p in panel.points], is_log=panel.is_log)
    y_ticks = [((v - low) / (high - low), f"{v:.3f}") for v in np.linspace(low, high, 5)]
    area.grid(draw, font, x_ticks=x_ticks, y_ticks=y_ticks)
    drawn = zip(x, panel.points, strict=True)
    for share, point in sorted(drawn, key=lambda pair: [*COLORS].index(pair[1].kind)):
        a, b = area.place(share, (point.y - low) / (high - low))
        box = (a - RADIUS, b - RADIUS, a + RADIUS, b + RADIUS)
        draw.ellipse(box, fill=COLORS[point.kind])


def _on_axis(
    values: Sequence[float], *, is_log: bool
) -> tuple[list[float], list[tuple[float, str]]]:
    """Return the places of the values on an axis that they fill, and its ticks."""
    if not values:
        return [], []
    numbers = np.log10(values) if is_log else np.asarray(values)
    first, last = float(numbers.min()), float(numbers.max())
    span = last - first or 1.0
    ticks = [first + share * span for share in (0.0, 0.5, 1.0)]
    names = [f"{10**tick if is_log else tick:.2g}" for tick in ticks]
    places = [0.05 + 0.9 * (float(number) - first) / span for number in numbers]
    return places, list(zip((0.05, 0.5, 0.95), names, strict=True))
