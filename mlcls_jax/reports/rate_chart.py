"""The picture of a learning-rate range test."""

import math
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from mlcls_jax.inference.fonts import find_font
from mlcls_jax.reports.axes import BLUE, PALE, Area
from mlcls_jax.reports.canvas import NAME_SIZE, RED, SMALL_SIZE, TEXT, save, write

WIDTH, HEIGHT = 760, 440
AREA = Area(80, 50, 735, 390)  # within the axes
HIGH = 1.25  # of the first loss: what lies above is cut off


def draw_rates(
    path: Path, rates: np.ndarray, losses: np.ndarray, smooth: np.ndarray, *, marked: float | None
) -> None:
    """Write losses by learning rate as a PNG, on a logarithmic axis, with one rate marked."""
    picture = Image.new("RGB", (WIDTH, HEIGHT), "white")
    draw = ImageDraw.Draw(picture)
    small = find_font("", size=SMALL_SIZE)
    first, last = math.log10(rates[0]), math.log10(rates[-1])
    high, low = HIGH * float(smooth[0]), float(min(smooth.min(), losses.min()))

    def place(rate: float, loss: float) -> tuple[float, float]:
        share = (min(loss, high) - low) / max(high - low, 1e-9)
        return AREA.place((math.log10(rate) - first) / max(last - first, 1e-9), share)

    powers = range(math.ceil(first), math.floor(last) + 1)
    AREA.grid(
        draw,
        small,
        x_ticks=[((power - first) / max(last - first, 1e-9), f"1e{power}") for power in powers],
        y_ticks=zip(
            np.linspace(0, 1, 5), (f"{v:.3g}" for v in np.linspace(low, high, 5)), strict=True
        ),
    )
    for values, color, width in ((losses, PALE, 1), (smooth, BLUE, 3)):
        points = [place(rate, loss) for rate, loss in zip(rates, values, strict=True)]
        draw.line(points, fill=color, width=width, joint="curve")
    title = "loss by learning rate"
    if marked is not None:
        x, _ = place(marked, low)
        draw.line((x, AREA.top, x, AREA.bottom), fill=RED, width=2)
        title += f"; suggested: {marked:.1e}"
    write(draw, (AREA.left, AREA.top - 24), title, size=NAME_SIZE, color=TEXT, anchor="lm")
    save(picture, path)
