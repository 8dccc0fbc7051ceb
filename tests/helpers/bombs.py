"""Small files that take far more to decode than they look, all of them well-formed."""

import io
import struct
import zlib

import numpy as np
from PIL import Image


def jpeg_scans(count: int, side: int = 512) -> bytes:
    """A progressive JPEG of `side` x `side` pixels in that many scans: its last one, repeated."""
    data = encoded(Image.new("RGB", (side, side), (90, 120, 40)), "JPEG", progressive=True)
    start = data.rindex(b"\xff\xda")
    scans, last = data.count(b"\xff\xda"), data[start:-2]
    return data[:-2] + last * (count - scans) + data[-2:]


def png(width: int, height: int, *, bits: int = 8, color: int = 2, alpha: int = 0) -> bytes:
    """A black PNG; `color` is the colour type of its header, 2 RGB, 0 grey, 6 RGB and alpha."""
    channels = {0: 1, 2: 3, 4: 2, 6: 4}[color]
    row = bytes([0, *[alpha] * (channels * width * bits // 8)])
    packer = zlib.compressobj(1)
    rows = b"".join([packer.compress(row) for _ in range(height)] + [packer.flush()])
    header = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", rows), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def tiff_tile(side: int, tile: int) -> bytes:
    """A grey TIFF of `side` x `side` pixels, deflated in one tile of `tile` x `tile`."""
    packer = zlib.compressobj()
    rows = b"".join([packer.compress(bytes(tile)) for _ in range(tile)] + [packer.flush()])
    tags = {256: side, 257: side, 258: 8, 259: 8, 262: 1, 277: 1, 322: tile, 323: tile}
    tags |= {324: 8, 325: len(rows)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    body = rows + bytes(len(rows) % 2)
    directory = struct.pack("<H", len(tags)) + entries + bytes(4)
    return b"II*\0" + struct.pack("<I", 8 + len(body)) + body + directory


def plain_ppm(num_bytes: int) -> bytes:
    """A PPM that spells its numbers out, which Pillow reads one by one."""
    side = int((num_bytes / 6) ** 0.5)
    return b"P3 %d %d 255\n" % (side, side) + b"0 " * (3 * side * side)


def bmp_rle(width: int, height: int) -> bytes:
    """A run-length BMP of one pixel a row, which Pillow fills up byte by byte."""
    rows = b"\1\0\0\0" * height + b"\0\1"
    head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(rows), 0, 0, 256, 0)
    start = 14 + len(head) + 1024
    return struct.pack("<2sIHHI", b"BM", start + len(rows), 0, 0, start) + head + bytes(1024) + rows


def encoded(image: Image.Image, file_format: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def noise(height: int, width: int) -> Image.Image:
    """Pixels that no format makes much smaller."""
    generator = np.random.default_rng(0)
    return Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8))
