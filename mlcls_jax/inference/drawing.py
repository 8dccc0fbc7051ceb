"""Pictures with text: one image with its labels below, and contact sheets with captions.

Text is laid out first, by functions that return lines and boxes, and drawn second; the canvas takes
its size from the layout, so that no text is ever cut off.
"""

import contextlib
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

Font = ImageFont.FreeTypeFont
Box = tuple[int, int, int, int]  # left, top, right, bottom, in pixels; right and bottom are outside
Color = str | tuple[int, int, int]

_MIN_WIDTH = 320
_MAX_ENLARGED_HEIGHT = 960
_MIN_FONT_SIZE = 14
_WIDTH_TO_FONT_SIZE = 36

_BACKGROUND = "white"
_CELL_BACKGROUND = (241, 243, 244)
_CHIP = (229, 238, 251)
_TEXT = (32, 33, 36)

# Looked for by name in the system's font folders: European scripts, then Chinese, Japanese, Korean,
# then others, of which a Noto font holds one each.
_NOTO_SCRIPTS = (
    *("Arabic", "Hebrew", "Devanagari", "Bengali", "Gurmukhi", "Gujarati", "Tamil", "Telugu"),
    *("Kannada", "Malayalam", "Sinhala", "Thai", "Lao", "Khmer", "Myanmar", "Ethiopic"),
    *("Georgian", "Armenian", "Symbols2"),
)
_UNICODE_FONTS = (
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "Arial.ttf",
    "NotoSansCJK-Regular.ttc",
    "NotoSansCJKsc-Regular.otf",
    "NotoSansSC-Regular.otf",
    "wqy-microhei.ttc",
    "wqy-zenhei.ttc",
    "DroidSansFallbackFull.ttf",
    "Arial Unicode.ttf",
    "msyh.ttc",
    "Nirmala.ttf",
    *(f"NotoSans{script}-Regular.ttf" for script in _NOTO_SCRIPTS),
    "NotoEmoji-Regular.ttf",
    "seguiemj.ttf",
)

_reported: set[str] = set()  # characters without a font that a warning has been about


@dataclass(frozen=True)
class TextBox:
    """Lines of text, and the part of the canvas that they fill."""

    lines: list[str]
    box: Box


@dataclass(frozen=True)
class GridCell:
    """Where one image of a contact sheet goes, and its caption."""

    left: int
    top: int
    caption: TextBox


def draw_labels(image: np.ndarray, entries: Sequence[str]) -> Image.Image:
    """Draws `entries` on a strip below the image uint8 [H, W, 3]; returns the RGB picture.

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


def draw_evidence(image: np.ndarray, evidence: np.ndarray) -> Image.Image:
    """Draws a map of attention over the image uint8 [H, W, 3]; returns the RGB picture.

    `evidence` [h, w] holds numbers of any scale: the lowest leaves the picture grey, the highest is
    red. The map is enlarged bilinearly, so that its cells do not look sharper than they are.
    """
    low, high = float(evidence.min()), float(evidence.max())
    strength = (evidence - low) / (high - low) if high > low else np.zeros_like(evidence)
    height, width = image.shape[:2]
    heat = Image.fromarray(strength.astype(np.float32))
    heat = np.asarray(heat.resize((width, height), Image.Resampling.BILINEAR))[..., None]
    # From yellow to red, and ever less transparent.
    color = np.concatenate([np.full_like(heat, 255), 225 * (1 - heat), 40 * (1 - heat)], axis=-1)
    grey = image.mean(axis=-1, keepdims=True) * 0.35 + image * 0.65
    cover = 0.7 * heat**0.8
    return Image.fromarray(np.rint(grey * (1 - cover) + color * cover).astype(np.uint8))


def stack(pictures: Sequence[Image.Image]) -> Image.Image:
    """Pictures one below the other, centred."""
    width = max(picture.width for picture in pictures)
    whole = Image.new("RGB", (width, sum(picture.height for picture in pictures)), _BACKGROUND)
    top = 0
    for picture in pictures:
        whole.paste(picture, ((width - picture.width) // 2, top))
        top += picture.height
    return whole


def layout_labels(entries: Sequence[str], width: int, *, font: Font) -> tuple[list[TextBox], int]:
    """Places entries side by side on a strip of `width` pixels, in as many rows as it takes.

    An entry wider than the strip is wrapped within its box; none is left out. Returns one box an
    entry, in coordinates of the strip, and the strip's height.
    """
    margin = font.size
    column_gap, row_gap = font.size * 3 // 2, font.size * 2 // 3
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
    """Draws a contact sheet: images uint8 [H, W, 3] in rows, each with its caption underneath.

    Images are fitted into squares of `cell` pixels, their aspect ratio kept. Captions may hold
    line breaks, and lines that are too long are wrapped. `caption_colors` is one colour a caption.

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
        picture = _scale(Image.fromarray(image), cell / max(image.shape[:2]))
        left = place.left + (cell - picture.width) // 2
        sheet.paste(picture, (left, place.top + (cell - picture.height) // 2))
        _draw_text(draw, place.caption, font=font, color=color)
    return sheet


def layout_grid(
    captions: Sequence[str], *, columns: int, cell: int, font: Font
) -> tuple[list[GridCell], tuple[int, int]]:
    """Places a square and a caption for each of `captions`, row by row.

    Each row is as high as its longest caption needs. Returns the cells, and the (width, height) of
    the sheet.
    """
    gap = font.size
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


def wrap_text(text: str, *, font: Font, width: int) -> list[str]:
    """Breaks text into lines of at most `width` pixels, between words where that is possible.

    Its own line breaks are kept, other white space becomes one blank. A line holds one character
    at least, even when `width` is too small for it.
    """
    lines = []
    for paragraph in text.splitlines() or [""]:
        line = ""
        for word in paragraph.split():
            joined = f"{line} {word}" if line else word
            if line and text_width(joined, font=font) > width:
                lines.append(line)
                joined = word
            *full, line = _break_word(joined, font=font, width=width)
            lines.extend(full)
        lines.append(line)
    return lines


def find_font(text: str, *, size: int) -> Font:
    """Returns a font for `text`: Pillow's own for ASCII, else the installed one that fits best.

    `draw_line` takes what this font lacks from others. A warning names the characters, once, that
    no installed font has; they are drawn as empty boxes.
    """
    # Sorted, so that each set of characters is looked up once, whatever text it comes from.
    unusual = "".join(sorted(c for c in set(text) if not c.isascii() and c.isprintable()))
    homeless = {c for c in unusual if _font_file_with(c, _UNICODE_FONTS) is None} - _reported
    if homeless:
        _reported.update(homeless)
        logging.getLogger(__name__).warning(
            "No font was found for %d characters of the labels, such as %r: pictures show empty"
            " boxes in their place. Install a font that has them, for instance the package"
            " fonts-noto-cjk or fonts-noto-core.",
            len(homeless),
            max(homeless),
        )
    return _load_font(_find_font_file(unusual), size)


def text_width(text: str, *, font: Font) -> int:
    """How many pixels `draw_line` fills."""
    *most, (last, last_font) = _runs(text, font=font)
    start = sum(run_font.getlength(run) for run, run_font in most)
    # The ink of a last letter may reach beyond the point where the next one would start.
    return math.ceil(start + max(last_font.getlength(last), last_font.getbbox(last)[2]))


def draw_line(
    draw: ImageDraw.ImageDraw,
    place: tuple[float, float],
    text: str,
    *,
    font: Font,
    color: Color | int,
) -> None:
    """Draws a line of text from `place` = (left, top), each character in a font that has it."""
    left, top = place
    baseline = top + font.getmetrics()[0]
    for run, run_font in _runs(text, font=font):
        draw.text((left, baseline), run, fill=color, font=run_font, anchor="ls")
        left += run_font.getlength(run)


def _runs(text: str, *, font: Font) -> list[tuple[str, Font]]:
    """Cuts a line where another font is needed, and only there: letters may join. One at least."""
    runs = [("", font)]
    for character in text:
        run, current = runs[-1]
        if not _has_glyph(current, character):
            current = font if _has_glyph(font, character) else _font_with(character, font)
            run = ""
            runs.append((run, current))
        runs[-1] = (run + character, current)
    return runs


def _font_with(character: str, font: Font) -> Font:
    """A font of the size of `font` that has the character; `font` itself when there is none."""
    if character.isascii():
        return _load_font(None, font.size)
    file = _font_file_with(character, _UNICODE_FONTS)
    return font if file is None else _load_font(file, font.size)


@lru_cache(maxsize=256)
def _load_font(file: str | None, size: int) -> Font:
    return ImageFont.load_default(size) if file is None else ImageFont.truetype(file, size)


@lru_cache(maxsize=64)
def _find_font_file(characters: str) -> str | None:
    """Returns the name of the font that lacks the fewest characters; None is Pillow's own."""
    fewest, best = len(characters), None
    for name in _installed(_UNICODE_FONTS) if characters else ():
        font = _load_font(name, 16)
        missing = sum(not _has_glyph(font, character) for character in characters)
        if missing < fewest:
            fewest, best = missing, name
        if not missing:
            break
    return best


@lru_cache(maxsize=4096)
def _font_file_with(character: str, names: tuple[str, ...]) -> str | None:
    """The first installed font of `names` that has the character; None: none has."""
    fonts = ((name, _load_font(name, 16)) for name in _installed(names))
    return next((name for name, font in fonts if _has_glyph(font, character)), None)


@lru_cache(maxsize=4)
def _installed(names: tuple[str, ...]) -> list[str]:
    """Those of the fonts that there are; looking for one that is not there walks all folders."""
    found = []
    for name in names:
        with contextlib.suppress(OSError):
            _load_font(name, 16)
            found.append(name)
    return found


@lru_cache(maxsize=65536)
def _has_glyph(font: Font, character: str) -> bool:
    if not character.isprintable():  # joiners and the like, which show nothing
        return True
    # A font draws characters that it lacks all alike; U+10FFFF is one that every font lacks.
    glyph, absent = font.getmask(character), font.getmask("\U0010ffff")
    return glyph.size != absent.size or bytes(glyph) != bytes(absent)


def _break_word(word: str, *, font: Font, width: int) -> list[str]:
    pieces = [""]
    for character in word:
        longer = pieces[-1] + character
        if pieces[-1] and text_width(longer, font=font) > width:
            pieces.append(character)
        else:
            pieces[-1] = longer
    return pieces


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
    return _scale(picture, factor) if factor > 1 else picture


def _scale(picture: Image.Image, factor: float) -> Image.Image:
    size = (max(1, round(picture.width * factor)), max(1, round(picture.height * factor)))
    return picture.resize(size, Image.Resampling.BICUBIC)
