"""Limits on the cost of decoding a picture, judged by its header: one rule for all readers."""

import math
import re

from PIL import Image

from mlcls_jax.errors import DataError

MAX_SIDE = 65_500  # pixels, as in JPEG; what is longer can take memory in other ways than its area
MAX_SCANS = 256  # of a JPEG; a usual progressive one has ten
BYTES_PER_PIXEL = 10  # of memory, while a picture of as many pixels as are allowed is decoded

JPEG_KINDS = ("JPEG", "MPO")  # MPO: with further pictures behind it, as phones write it

_RAISE = "Shrink the picture; if you trust it, raise the limit, PIL.Image.MAX_IMAGE_PIXELS too."
_SCAN = b"\xff\xda"
# What ends a run of JPEG's compressed data, in which FF is followed by 0 and restart markers stand.
_MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])", re.DOTALL)
_END, _BARE = 0xD9, (0x01, 0xD8)  # markers that no length follows

_STRIP_ROWS, _TILE_SIDES = 278, (322, 323)  # tags of TIFF
_BITS, _SAMPLES = 258, 277


def check_size(image: Image.Image, *, name: str, max_pixels: int | None = None) -> None:
    """Refuse a picture, of which only the header has been read, that is too large to decode.

    Nothing may be longer or higher than `MAX_SIDE`, have more than `max_pixels`, or more than
    Pillow's own limit. Formats whose decoders need more than `BYTES_PER_PIXEL` get by with as many
    pixels less.

    Raises:
      DataError: it is too large; names `name` and the limit.
    """
    if max(image.size) > MAX_SIDE:
        sides = f"{image.width} x {image.height} pixels, above the limit of {MAX_SIDE} a side"
        raise too_large(sides, name=name, hint="Cut the picture into pieces, or shrink it.")
    limit = min((n for n in (max_pixels, Image.MAX_IMAGE_PIXELS) if n is not None), default=None)
    # Pillow itself only warns below twice its limit. Turning the warning into an error would change
    # the filters of the whole process, which is not safe with threads, hence these comparisons.
    if limit is None:
        return
    # A tile of a TIFF may be larger than the picture.
    width, height = max(image.size, _tile(image) or (0, 0), key=math.prod)
    if width * height > limit:
        what = "" if (width, height) == image.size else " in one tile"
        size = f"{width} x {height} pixels{what}, above the limit of {limit}"
        raise too_large(size, name=name)
    memory, allowed = _memory(image), BYTES_PER_PIXEL * limit
    if memory > max(allowed, 2**20):
        needs = f"{image.width} x {image.height} pixels as {image.format} in mode {image.mode}"
        size = f"{needs} take {memory:,} bytes, above the limit of {allowed:,}"
        raise too_large(size, name=name)


def check_scans(data: bytes, *, name: str) -> None:
    """Refuse a JPEG of more than `MAX_SCANS` scans, each of which goes over all of the picture.

    Raises:
      DataError: it has more.
    """
    # Bytes like a scan's marker may stand in metadata too: hence the second, slower look.
    if data.count(_SCAN) > MAX_SCANS and _has_many_scans(data):
        hint = "Save it again with another program; a usual JPEG has ten scans at most."
        raise too_large(f"a JPEG of more than {MAX_SCANS} scans", name=name, hint=hint)


def too_large(cause: str, *, name: str, hint: str = _RAISE) -> DataError:
    """Return the error that says so."""
    return DataError(f"{name}: too large to decode: {cause}", hint=hint)


def _has_many_scans(data: bytes) -> bool:
    scans = position = 0
    while found := _MARKER.search(data, position):
        position, kind = found.end(), found[1][0]
        if kind == _END:
            break
        if kind not in _BARE:
            position += int.from_bytes(data[position : position + 2], "big")
        scans += kind == _SCAN[1]
        if scans > MAX_SCANS:
            return True
    return False


def _memory(image: Image.Image) -> int:
    """Estimate the bytes that decoding takes at its peak: Pillow's pixels, and a buffer or ours."""
    area = image.width * image.height
    held = {"1": 1, "L": 1, "P": 1}.get(image.mode, 2 if image.mode.startswith("I;16") else 4)
    buffer = 0
    if image.format == "WEBP":
        buffer = 12 * area  # two canvases, and the frame as bytes
    elif image.format in JPEG_KINDS and image.info.get("progressive"):
        buffer = 2 * len(image.getbands()) * area  # coefficients
    elif image.format == "TIFF" and image.info.get("compression") != "raw":
        rows = min(_tag(image, _STRIP_ROWS) or image.height, image.height)
        depth = max(_tag(image, _BITS) or 1, 8) // 8 * (_tag(image, _SAMPLES) or 1)
        buffer = math.prod(_tile(image) or (image.width, rows)) * depth
    return held * area + max(buffer, 3 * area)


def _tile(image: Image.Image) -> tuple[int, int] | None:
    width, height = (_tag(image, number) for number in _TILE_SIDES)
    return (width, height) if width and height else None


def _tag(image: Image.Image, number: int) -> int | None:
    """Return a whole number of a TIFF, the first of several; None where there is none."""
    value = getattr(image, "tag_v2", {}).get(number)
    value = value[0] if isinstance(value, tuple) and value else value
    return value if isinstance(value, int) else None
