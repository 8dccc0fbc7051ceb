"""One image file, looked at: what is wrong or odd about it, and what duplicates are known by."""

import hashlib
import io
import os
import re
import stat
import struct
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from mlcls_jax.data.images import FORMATS, decode_image, exif_orientation, jpeg_warning, lacks_end
from mlcls_jax.data.limits import JPEG_KINDS, check_size
from mlcls_jax.errors import DataError

_PNG_END = b"IEND\xaeB`\x82"
_JPEG_END = b"\xff\xd9"
_JPEG_SIZE = re.compile(rb"\xff[\xc0-\xc2]..\x08(....)", re.DOTALL)
_WIDE_RAWMODE = re.compile(r";16[BLN]")  # BMP's BGR;16 has 5 or 6 bits
_LEAST_CONTRAST = 16  # of 255
_NEARLY_BLACK = 31  # of 255: 13 of 16 bits
_SMALL = 65536  # bytes; so many are read at once


class Probe(NamedTuple):
    """Facts about one file."""

    found: tuple[tuple[str, str], ...] = ()  # kind and message of every finding
    is_readable: bool = False
    num_bytes: int = 0
    digest: int = 0  # see `content_digest`; 0 where not all of it was read
    pixel_hash: int = 0  # see `difference_hash`; 0 where pixels were not decoded
    is_link: bool = False


def content_digest(content: bytes) -> int:
    """64 bits of BLAKE2; one in 2^64 pairs of different files agrees."""
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "big")


def difference_hash(image: np.ndarray) -> int:
    """64 bits that pictures [H, W, 3] share with smaller, brighter or recompressed versions.

    Each says whether of two neighbours in a grey picture of 8 x 9 pixels the right one is brighter
    ("dHash", N. Krawetz, "Kind of Like That", 2013). 0 where there is too little contrast for it
    to mean anything.
    """
    grey = Image.fromarray(image).convert("L").resize((9, 8), Image.Resampling.BILINEAR)
    thumbnail = np.asarray(grey, np.int16)  # [8, 9]
    if np.ptp(thumbnail) < _LEAST_CONTRAST:
        return 0
    bits = np.packbits(thumbnail[:, 1:] > thumbnail[:, :-1])
    return int.from_bytes(bits.tobytes(), "big")


def probe(path: str, *, pixels: bool) -> Probe:
    """Look at an image file's header and pixels; or, without `pixels`, header, size and last bytes.

    Then it is digested if it is small, and decoded only where the end is not as the format wants
    it, to tell a file that lost pixels from one with something harmless behind them, and where
    pixels have more than 8 bits, to tell those that fill them from those of 10 or 12.
    """
    try:
        status = os.lstat(path)
        if is_link := stat.S_ISLNK(status.st_mode):
            status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
            return Probe((("unreadable_image", "is not a file"),))
        if not status.st_size:
            return Probe((("empty_image", "is empty"),))
        with open(path, "rb") as file:
            if pixels or status.st_size <= _SMALL:
                found = _look(io.BytesIO(file.read()), status.st_size, pixels=pixels)
            else:
                found = _look(file, status.st_size, pixels=pixels)
        return found._replace(is_link=is_link)
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a NUL in the name
        return Probe((("missing_image", "there is no such image"),))
    except OSError as error:
        return Probe((("unreadable_image", f"cannot be opened: {error.strerror}"),))


def _look(file: BinaryIO, num_bytes: int, *, pixels: bool) -> Probe:
    try:
        with Image.open(file, formats=FORMATS) as header:
            kind = header.format
            try:
                check_size(header, name="")
            except DataError as error:
                return Probe((("too_large", error.message.removeprefix(": ")),))
            is_whole = _ends_well(header, file, num_bytes)
            found = _oddities(header)  # last, as it may stop at a damaged frame
    except Image.DecompressionBombError as error:
        return Probe((("too_large", str(error)),))
    except UnidentifiedImageError:
        file.seek(0)
        return Probe((_unidentified(file.read(_SMALL)),))
    except Exception as error:  # noqa: BLE001 (Pillow's plugins let many kinds through)
        return Probe((("damaged", f"has a damaged header: {error or type(error).__name__}"),))
    pixel_hash = 0
    is_wide = "sixteen_bit" in dict(found)
    if pixels or not is_whole or is_wide:
        file.seek(0)
        file = io.BytesIO(file.read())
        try:
            image = decode_image(file.getvalue(), name="")
        except DataError as error:
            return Probe((("damaged", error.message.removeprefix(": ")),))
        pixel_hash = difference_hash(image)
        if is_wide and image.max() <= _NEARLY_BLACK:
            found += (("dark", f"has no value above {image.max()} of 255"),)
        if kind == "PNG" and _PNG_END not in file.getvalue():
            found += (("cut_end", "ends without IEND"),)
        if kind in JPEG_KINDS and lacks_end(file.getvalue()):
            found += (("cut_end", "ends without its end marker"),)
        elif kind == "JPEG" and (warning := jpeg_warning(file.getvalue())):
            found += (("doubtful", f"is decoded with a warning: {warning}"),)
    digest = content_digest(file.getvalue()) if isinstance(file, io.BytesIO) else 0
    return Probe(found, True, num_bytes, digest, pixel_hash)


def _oddities(image: Image.Image) -> tuple[tuple[str, str], ...]:
    """Return what `decode_image` changes silently."""
    orientation = 1
    # Pillow would decode a PNG to look for EXIF data behind the pixels.
    if image.format != "PNG" or "exif" in image.info:
        orientation = exif_orientation(image)
    is_wide = image.mode[0] in "IF" or _WIDE_RAWMODE.search(str(_tiles(image)[:1]))
    odd = {
        "cmyk": "CMYK" if image.mode == "CMYK" else "",
        "sixteen_bit": "more than 8 bits a channel" if is_wide else "",
        "alpha": "transparency" if image.has_transparency_data else "",
        "rotated": f"EXIF orientation {orientation}" if 2 <= orientation <= 8 else "",
        "animated": f"{frames} frames" if (frames := _count_frames(image)) > 1 else "",
    }
    header = f"{image.format}, {image.width} x {image.height}, {image.mode}"
    return tuple((kind, f"{what} ({header})") for kind, what in odd.items() if what)


def _tiles(image: Image.Image) -> list[Any]:
    """Return where the pixels of an image that was read lie in its file."""
    return getattr(image, "tile", None) or []


def _count_frames(image: Image.Image) -> int:
    try:
        return getattr(image, "n_frames", 1)
    except Exception:  # noqa: BLE001 (damage behind the first frame does not matter)
        return 1


def _ends_well(image: Image.Image, file: BinaryIO, num_bytes: int) -> bool:
    """Return whether the file surely holds all pixels; False where only decoding can tell."""
    if image.format == "WEBP":
        return True  # else Pillow had not opened it
    if isinstance(image, TiffImageFile):
        for offsets, lengths in ((273, 279), (324, 325)):  # of strips, of tiles
            ends = zip(image.tag_v2.get(offsets, ()), image.tag_v2.get(lengths, ()), strict=False)
            if last := max(map(sum, ends), default=0):
                return last <= num_bytes
        return False
    if image.format in ("BMP", "DIB"):
        codec, _, start, arguments = _tiles(image)[0]
        return codec == "raw" and num_bytes >= start + arguments[1] * image.height
    file.seek(max(0, num_bytes - 64))
    tail = file.read().rstrip(b"\0")
    ends = {"JPEG": _JPEG_END, "MPO": _JPEG_END, "PNG": _PNG_END, "GIF": b";"}
    return image.format in ends and tail.endswith(ends[image.format])


def _unidentified(head: bytes) -> tuple[str, str]:
    """Why Pillow knows no such image: it says the same of foreign files and of empty sizes."""
    sizes = []
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        sizes = [struct.unpack(">II", head[16:24])] if len(head) >= 24 else []
    elif head.startswith(b"BM"):
        sizes = [struct.unpack("<ii", head[18:26])] if len(head) >= 26 else []
    elif head.startswith(b"\xff\xd8"):
        sizes = [struct.unpack(">HH", size)[::-1] for size in _JPEG_SIZE.findall(head)]
    if zero := [size for size in sizes if 0 in size]:
        return "zero_size", "has {} x {} pixels".format(*zero[0])
    return "not_image", f"is not an image, or it is damaged; it begins with {head[:8]!r}"
