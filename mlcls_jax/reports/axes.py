"""The area of a drawn chart, with its grid."""

from collections.abc import Iterable
from typing import NamedTuple

from PIL import ImageDraw

from mlcls_jax.inference.fonts import Font
from mlcls_jax.reports.canvas import FAINT, GRID

BLUE, PALE = (26, 86, 190), (183, 204, 240)


class Area(NamedTuple):
    """A rectangle of pixels, in which places are shares from its lower left corner."""

    left: float
    top: float
    right: float
    bottom: float

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Return the pixel of a place."""
        return (
            self.left + x * (self.right - self.left),
            self.bottom - y * (self.bottom - self.top),
        )

    def grid(
        self,
        draw: ImageDraw.ImageDraw,
        font: Font,
        *,
        x_ticks: Iterable[tuple[float, str]],
        y_ticks: Iterable[tuple[float, str]],
    ) -> None:
        """Draw lines at the ticks, with their names below and to the left."""
        for share, name in x_ticks:
            x, _ = self.place(share, 0)
            draw.line((x, self.top, x, self.bottom), fill=GRID)
            place = (x, self.bottom + 10)
            draw.text(place, name, fill=FAINT, font=font, anchor="ma", align="center")
        for share, name in y_ticks:
            _, y = self.place(0, share)
            draw.line((self.left, y, self.right, y), fill=GRID)
            draw.text((self.left - 8, y), name, fill=FAINT, font=font, anchor="rm")
