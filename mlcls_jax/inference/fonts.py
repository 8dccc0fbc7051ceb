"""Text in pictures, in any script: which font has a character, and how wide a line is.

Pillow draws a line in one font, and few fonts have every script; here each character is taken from
a font that has it.
"""

import contextlib
import logging
import math
from functools import lru_cache
from typing import Any, cast

from PIL import ImageDraw, ImageFont

Font = ImageFont.FreeTypeFont
Color = str | tuple[int, int, int]

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


def wrap_text(text: str, *, font: Font, width: int) -> list[str]:
    """Break text into lines of at most `width` pixels, between words where that is possible.

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
    """Return a font for `text`: Pillow's own for ASCII, else the installed one that fits best.

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
    """Return the number of pixels that `draw_line` fills."""
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
    """Draw a line of text from `place` = (left, top), each character in a font that has it."""
    left, top = place
    baseline = top + font.getmetrics()[0]
    for run, run_font in _runs(text, font=font):
        draw.text((left, baseline), run, fill=color, font=run_font, anchor="ls")
        left += run_font.getlength(run)


def _runs(text: str, *, font: Font) -> list[tuple[str, Font]]:
    """Cut a line where another font is needed, and only there: letters may join. One at least."""
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
    """Return a font of the same size that has the character; `font` itself if there is none."""
    if character.isascii():
        return _load_font(None, font.size)
    file = _font_file_with(character, _UNICODE_FONTS)
    return font if file is None else _load_font(file, font.size)


@lru_cache(maxsize=256)
def _load_font(file: str | None, size: int) -> Font:
    return (
        cast(Font, ImageFont.load_default(size)) if file is None else ImageFont.truetype(file, size)
    )


@lru_cache(maxsize=64)
def _find_font_file(characters: str) -> str | None:
    """Return the name of the font that lacks the fewest characters; None is Pillow's own."""
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
    """Return the first installed font of `names` that has the character; None: none has."""
    fonts = ((name, _load_font(name, 16)) for name in _installed(names))
    return next((name for name, font in fonts if _has_glyph(font, character)), None)


@lru_cache(maxsize=4)
def _installed(names: tuple[str, ...]) -> list[str]:
    """Return the fonts that there are; looking for one that is not there walks all folders."""
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
    glyph, absent = (cast(Any, font.getmask(sign)) for sign in (character, "\U0010ffff"))
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
