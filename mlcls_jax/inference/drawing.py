"""Pictures with text: one image with its labels below, and contact sheets with captions.

Text is laid out first, by functions that return lines and boxes, and drawn second; the canvas takes
its size from the layout, so that no text is ever cut off.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from mlcls_jax.data.frame import Frame
from mlcls_jax.inference.fonts import Color, Font, draw_line, find_font, text_width, wrap_text

Box = tuple[int, int, int, int]  # left, top, right, bottom, in pixels; right and bottom are outside

_MIN_WIDTH = 320
_MAX_ENLARGED_HEIGHT = 960
_MIN_FONT_SIZE = 14
_WIDTH_TO_FONT_SIZE = 36

_BACKGROUND = "white"
_CELL_BACKGROUND = (241, 243, 244)
_CHIP = (229, 238, 251)
_TEXT = (32, 33, 36)


@dataclass(frozen=True)
class TextBox:
    """Lines of text, and the part of the canvas that they fill."""

    lines: list[str]
    box: Box


@dataclass(frozen=True)
class GridCell:
    """Position and caption of one image on a contact sheet."""

    left: int
    top: int
    caption: TextBox


def draw_labels(image: np.ndarray, entries: Sequence[str]) -> Image.Image:
    """Draw `entries` on a strip below the image uint8 [H, W, 3]; return the RGB picture.

    The result is at least 320 pixels wide: smaller images are enlarged, and very tall ones get
    white sides. The strip is as high as the entries need.
    """
    picture = _enlarge(image)
    width = max(picture.width, _MIN_WIDTH)
    font = find_font("".join(entries), size=max(_MIN_FONT_SIZE, width // _WIDTH_TO_FONT_SIZE))
    text_boxes, strip_height = layout_labels(entries, width, font=font)

    strip = Image.new("RGB", (width, strip_height), _BACKGROUND)
    draw = ImageDraw.Draw(strip)
    for text_box in text_boxes:
        left, top, right, bottom = text_box.box
        pad = font.size // 2
        chip = (left - pad, top - pad // 3, right + pad, bottom + pad // 3)
        draw.rounded_rectangle(chip, radius=pad, fill=_CHIP)
        _draw_text(draw, text_box, font=font, color=_TEXT)

    canvas = Image.new("RGB", (width, picture.height + strip_height), _BACKGROUND)
    canvas.paste(picture, ((width - picture.width) // 2, 0))
    canvas.paste(strip, (0, picture.height))
    return canvas


def draw_evidence(
    image: np.ndarray, evidence: np.ndarray, frame: Frame | None = None
) -> Image.Image:
    """Draw a map of attention over the image uint8 [H, W, 3]; return the RGB picture.

    `evidence` [h, w] holds numbers of any scale: the lowest leaves the picture grey, the highest is
    red. The map is enlarged bilinearly, so that its cells do not look sharper than they are. It
    lies over the part of the image that `frame` shows the network; None: over the whole image.
    """
    low, high = float(evidence.min()), float(evidence.max())
    strength = (evidence - low) / (high - low) if high > low else np.zeros_like(evidence)
    height, width = image.shape[:2]
    heat = Image.fromarray(strength.astype(np.float32))
    heat = _spread(heat, (width, height), frame)[..., None]
    # From yellow to red, and ever less transparent.
    color = np.concatenate([np.full_like(heat, 255), 225 * (1 - heat), 40 * (1 - heat)], axis=-1)
    grey = image.mean(axis=-1, keepdims=True) * 0.35 + image * 0.65
    cover = 0.7 * heat**0.8
    return Image.fromarray(np.rint(grey * (1 - cover) + color * cover).astype(np.uint8))


def _spread(heat: Image.Image, size: tuple[int, int], frame: Frame | None) -> np.ndarray:
    """Return a map, enlarged, where it lies on a picture of `size` (width, height); 0 elsewhere."""
    width, height = size
    left, top, right, bottom = frame.seen(height, width) if frame else (0, 0, width, height)
    x, y = heat.width / (right - left), heat.height / (bottom - top)
    inside = max(left, 0), max(top, 0), min(right, width), min(bottom, height)
    box = (
        *((inside[0] - left) * x, (inside[1] - top) * y),
        *((inside[2] - left) * x, (inside[3] - top) * y),
    )
    shape = inside[2] - inside[0], inside[3] - inside[1]
    spread = np.zeros((height, width), np.float32)
    enlarged = np.asarray(heat.resize(shape, Image.Resampling.BILINEAR, box=box))
    spread[inside[1] : inside[3], inside[0] : inside[2]] = enlarged
    return spread


def stack(pictures: Sequence[Image.Image]) -> Image.Image:
    """Put pictures one below the other, centred."""
    width = max(picture.width for picture in pictures)
    whole = Image.new("RGB", (width, sum(picture.height for picture in pictures)), _BACKGROUND)
    top = 0
    for picture in pictures:
        whole.paste(picture, ((width - picture.width) // 2, top))
        top += picture.height
    return whole


def to_jpeg(picture: Image.Image, quality: int = 80) -> bytes:
    """Return the picture as the content of a JPEG file."""
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=quality)
    return content.getvalue()


def layout_labels(entries: Sequence[str], width: int, *, font: Font) -> tuple[list[TextBox], int]:
    """Place entries side by side on a strip of `width` pixels, in as many rows as it takes.

    An entry wider than the strip is wrapped within its box; none is left out. Returns one box per
    entry, in coordinates of the strip, and the strip's height.
    """
    margin = size = int(font.size)
    column_gap, row_gap = size * 3 // 2, size * 2 // 3
    text_boxes = []
    left = top = bottom = margin
    for entry in entries:
        lines = wrap_text(entry, font=font, width=width - 2 * margin)
        text_box = _text_box(lines, left, top, font=font)
        if left > margin and text_box.box[2] > width - margin:
            left, top = margin, bottom + row_gap
            text_box = _text_box(lines, left, top, font=font)
        text_boxes.append(text_box)
        left = text_box.box[2] + column_gap
        bottom = max(bottom, text_box.box[3])
    return text_boxes, bottom + margin


def draw_grid(
    images: Sequence[np.ndarray],
    captions: Sequence[str],
    *,
    columns: int = 4,
    cell: int = 192,
    caption_colors: Sequence[Color] | None = None,
) -> Image.Image:
    """Draw a contact sheet: images uint8 [H, W, 3] in rows, each with its caption underneath.

    Images are fitted into squares of `cell` pixels, their aspect ratio kept. Captions may hold
    line breaks, and lines that are too long are wrapped. `caption_colors` has a colour for each.

    Raises ValueError without images, or when the lengths differ.
    """
    colors = [_TEXT] * len(images) if caption_colors is None else caption_colors
    if len(images) == 0 or not len(images) == len(captions) == len(colors):
        counts = f"{len(images)} images, {len(captions)} captions, {len(colors)} colours"
        raise ValueError(f"a grid needs images, with one caption and colour each; got {counts}")
    font = find_font("".join(captions), size=max(12, cell // 15))
    columns = min(columns, len(images))
    cells, sheet_size = layout_grid(captions, columns=columns, cell=cell, font=font)

    sheet = Image.new("RGB", sheet_size, _BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    for image, place, color in zip(images, cells, colors, strict=True):
        square = (place.left, place.top, place.left + cell - 1, place.top + cell - 1)
        draw.rectangle(square, fill=_CELL_BACKGROUND)
        picture = scaled(Image.fromarray(image), cell / max(image.shape[:2]))
        left = place.left + (cell - picture.width) // 2
        sheet.paste(picture, (left, place.top + (cell - picture.height) // 2))
        _draw_text(draw, place.caption, font=font, color=color)
    return sheet


def layout_grid(
    captions: Sequence[str], *, columns: int, cell: int, font: Font
) -> tuple[list[GridCell], tuple[int, int]]:
    """Place a square and a caption for each of `captions`, row by row.

    Each row is as high as its longest caption needs. Returns the cells, and the (width, height) of
    the sheet.
    """
    gap = int(font.size)
    cells = []
    top = gap
    for start in range(0, len(captions), columns):
        row = []
        for column, caption in enumerate(captions[start : start + columns]):
            left = gap + column * (cell + gap)
            lines = wrap_text(caption, font=font, width=cell)
            text_box = _text_box(lines, left, top + cell + gap // 2, font=font)
            row.append(GridCell(left, top, text_box))
        cells += row
        top = gap + max(place.caption.box[3] for place in row)
    return cells, (gap + columns * (cell + gap), top)


def _text_box(lines: list[str], left: int, top: int, *, font: Font) -> TextBox:
    right = left + max(text_width(line, font=font) for line in lines)
    return TextBox(lines, (left, top, right, top + len(lines) * _line_height(font)))


def _draw_text(draw: ImageDraw.ImageDraw, text_box: TextBox, *, font: Font, color: Color) -> None:
    left, top = text_box.box[:2]
    for row, line in enumerate(text_box.lines):
        place = (left, top + row * _line_height(font))
        draw_line(draw, place, line, font=font, color=color)


def _line_height(font: Font) -> int:
    return sum(font.getmetrics())


def _enlarge(image: np.ndarray) -> Image.Image:
    height, width = image.shape[:2]
    # A tall, narrow image would become enormous at the least width.
    factor = min(_MIN_WIDTH / width, max(1.0, _MAX_ENLARGED_HEIGHT / height))
    picture = Image.fromarray(image)
    return scaled(picture, factor) if factor > 1 else picture


def scaled(picture: Image.Image, factor: float) -> Image.Image:
    """Return the picture, larger or smaller by a factor."""
    size = (max(1, round(picture.width * factor)), max(1, round(picture.height * factor)))
    return picture.resize(size, Image.Resampling.BICUBIC)
