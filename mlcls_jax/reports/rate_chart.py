"""The picture of a learning-rate range test."""

import math
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from mlcls_jax.inference.fonts import find_font
from mlcls_jax.reports.canvas import FAINT, GRID, NAME_SIZE, RED, SMALL_SIZE, TEXT, save

WIDTH, HEIGHT = 760, 440
LEFT, RIGHT, TOP, BOTTOM = 80, 735, 50, 390  # of the area within the axes
HIGH = 1.25  # of the first loss: what lies above is cut off
BLUE, PALE = (26, 86, 190), (183, 204, 240)


def draw_rates(
    path: Path, rates: np.ndarray, losses: np.ndarray, smooth: np.ndarray, *, marked: float | None
) -> None:
    """Write losses by learning rate as a PNG, on a logarithmic axis, with one rate marked."""
    picture = Image.new("RGB", (WIDTH, HEIGHT), "white")
    draw = ImageDraw.Draw(picture)
    font, small = find_font("", size=NAME_SIZE), find_font("", size=SMALL_SIZE)
    first, last = math.log10(rates[0]), math.log10(rates[-1])
    high, low = HIGH * float(smooth[0]), float(min(smooth.min(), losses.min()))

    def x(rate: float) -> float:
        return LEFT + (math.log10(rate) - first) / max(last - first, 1e-9) * (RIGHT - LEFT)

    def y(loss: float) -> float:
        share = (min(loss, high) - low) / max(high - low, 1e-9)
        return BOTTOM - share * (BOTTOM - TOP)

    for power in range(math.ceil(first), math.floor(last) + 1):
        place = x(10.0**power)
        draw.line((place, TOP, place, BOTTOM), fill=GRID)
        draw.text((place, BOTTOM + 16), f"1e{power}", fill=FAINT, font=small, anchor="mm")
    for loss in np.linspace(low, high, 5):
        draw.line((LEFT, y(loss), RIGHT, y(loss)), fill=GRID)
        draw.text((LEFT - 8, y(loss)), f"{loss:.3g}", fill=FAINT, font=small, anchor="rm")
    for values, color, width in ((losses, PALE, 1), (smooth, BLUE, 3)):
        points = [(x(rate), y(loss)) for rate, loss in zip(rates, values, strict=True)]
        draw.line(points, fill=color, width=width, joint="curve")
    title = "loss by learning rate"
    if marked is not None:
        draw.line((x(marked), TOP, x(marked), BOTTOM), fill=RED, width=2)
        title += f"; suggested: {marked:.1e}"
    draw.text((LEFT, TOP - 24), title, fill=TEXT, font=font, anchor="lm")
    save(picture, path)
