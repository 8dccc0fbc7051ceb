"""Colours, sizes and text for the charts of a checked data set.

They are drawn by Pillow, and not by a plotting library, because names of labels may be of any
script, and `inference/fonts.py` finds a font for each character of a name.
"""

import bisect
from pathlib import Path

from PIL import Image, ImageDraw

from mlcls_jax.files import replacing
from mlcls_jax.inference.fonts import Color, Font, draw_line, find_font, text_width
from mlcls_jax.readable import shorten

MAX_ROWS = 40  # names below each other

RED = (208, 0, 30)  # for what is missing
TEXT, FAINT, GRID = (32, 33, 36), (95, 99, 104), (222, 225, 230)

TITLE_SIZE, NAME_SIZE, SMALL_SIZE = 22, 15, 12
MARGIN, HEAD_HEIGHT = 24, 84


def write(
    draw: ImageDraw.ImageDraw,
    place: tuple[float, float],
    text: str,
    *,
    size: int = SMALL_SIZE,
    color: Color = FAINT,
    anchor: str = "la",
) -> None:
    """Draw text of our own, such as numbers, which Pillow's font has; `anchor` as Pillow's."""
    draw.text(place, text, fill=color, font=find_font("", size=size), anchor=anchor)


def draw_head(picture: Image.Image, title: str, text: str = "") -> None:
    """Draw the title of a chart, and a line below it."""
    draw = ImageDraw.Draw(picture)
    write(draw, (MARGIN, 20), title, size=TITLE_SIZE, color=TEXT)
    write(draw, (MARGIN, 54), text, size=NAME_SIZE)


def draw_name(
    draw: ImageDraw.ImageDraw, place: tuple[int, int], text: str, font: Font, color: Color | int
) -> None:
    """Draw text that ends at `place` = (right, middle)."""
    right, middle = place
    corner = (right - text_width(text, font=font), middle - sum(font.getmetrics()) / 2)
    draw_line(draw, corner, text, font=font, color=color)


def fit(text: str, font: Font, width: int) -> str:
    """Return one line of at most `width` pixels, its end replaced by … where it is longer."""
    text = shorten(" ".join(text.split()))
    if text_width(text, font=font) <= width:
        return text
    # The longest beginning that fits; longer ones are wider.
    beginnings = range(len(text))
    kept = bisect.bisect_right(
        beginnings, width, key=lambda n: text_width(text[:n] + "…", font=font)
    )
    return text[: max(kept - 1, 0)] + "…"


def notice(text: str) -> Image.Image:
    """Draw a picture with one line of text."""
    picture = Image.new("RGB", (760, 100), "white")
    draw = ImageDraw.Draw(picture)
    write(draw, (MARGIN, 50), text, size=NAME_SIZE, color=TEXT, anchor="lm")
    return picture


def save(picture: Image.Image, path: Path) -> None:
    """Write the picture as PNG."""
    with replacing(path) as temporary:
        picture.save(temporary, format="PNG", optimize=True)
