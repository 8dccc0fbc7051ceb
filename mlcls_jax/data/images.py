"""Pictures as arrays: decoding, the resize of evaluation, and a faster one for training.

`decode_image` and `resize` are what the originals evaluate with, bit for bit. `decode_image` with
`at_least` and `resize_fast` give nearly the same picture in a third of the time.
"""

import contextlib
import io
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

from mlcls_jax.data.image_files import read_file
from mlcls_jax.data.limits import JPEG_KINDS, check_scans, check_size, too_large
from mlcls_jax.errors import DataError

# A closed list, because Pillow knows formats that start other programs (EPS runs Ghostscript),
# and a server decodes what strangers send.
FORMATS = ("JPEG", "PNG", "BMP", "DIB", "WEBP", "PPM", "SUN", "TIFF", "GIF")

_EXIF_ORIENTATION = 0x0112
_PHOTOMETRIC, _WHITE_IS_ZERO = 262, 0  # a tag of TIFF and one of its values
_BITS = 258  # a tag of TIFF
_JPEG_END = b"\xff\xd9"
_PIECE = 2**16  # pixels converted at a time: whole pictures would need several times their memory
_UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {  # views of a stored picture [H, W]
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.T,
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: stored[::-1, ::-1].T,
    8: lambda stored: np.rot90(stored),
}


def read_image(path: str | Path) -> np.ndarray:
    """Read an image file as uint8 [H, W, 3], RGB and upright; see `decode_image`.

    Raises:
      DataError: it cannot be opened or decoded; names the file.
    """
    return decode_image(read_file(path), name=str(path))


def decode_image(
    data: bytes,
    *,
    name: str,
    at_least: tuple[int, int] | None = None,
    max_pixels: int | None = None,
) -> np.ndarray:
    """Decode the bytes of an image file to uint8 [H, W, 3], RGB; `name` stands in errors.

    The EXIF orientation is applied. Grey becomes three equal channels, transparency is laid over
    white, numbers of more than 8 bits are scaled to 0..255, and of an animation the first frame
    counts. The pixels are those of Pillow, bit for bit.

    With `at_least` = (height, width) a JPEG is decoded at the smallest scale of 1/8, 2/8, ... 8/8
    at which neither side falls below it: what a later shrinking would average away is not computed.

    A JPEG that lacks nothing but its end marker is read, as viewers do.

    Raises:
      DataError: the data are empty, foreign, damaged or cut off, or the picture is one that
        `limits.check_size` refuses: its header is enough for that.
    """
    if not data:
        raise DataError(f"{name}: the file is empty", hint="Fetch or copy it again.")
    with data_errors(name), Image.open(io.BytesIO(data), formats=FORMATS) as image:
        check_size(image, name=name, max_pixels=max_pixels)
        if image.format in JPEG_KINDS:
            check_scans(data, name=name)
            if lacks_end(data) and jpeg_warning(data + _JPEG_END) is None:
                data += _JPEG_END
                return decode_image(data, name=name, at_least=at_least, max_pixels=max_pixels)
            if image.mode in ("RGB", "L"):
                orientation = exif_orientation(image)
                pixels = _decode_jpeg(data, at_least, is_turned=orientation > 4)
                if pixels is not None:
                    return _turn_upright(pixels, orientation)
        return _load(image)


def to_pixels(image: Image.Image, *, name: str) -> np.ndarray:
    """Convert the current frame of a Pillow image to uint8 [H, W, 3], as `decode_image` does."""
    with data_errors(name):
        check_size(image, name=name)
        file = getattr(image, "fp", None)  # None where it is decoded already
        if image.format in JPEG_KINDS and file is not None:
            position = file.tell()
            file.seek(0)
            check_scans(file.read(), name=name)
            file.seek(position)
        return _load(image)


def _load(image: Image.Image) -> np.ndarray:
    image.load()
    # Only now: Pillow turns TIFFs upright while loading, and then drops the tag.
    return _turn_upright(_to_rgb(image), exif_orientation(image))


@contextlib.contextmanager
def data_errors(name: str) -> Iterator[None]:
    """Turn what Pillow raises into a DataError about `name`."""
    try:
        yield
    except DataError:
        raise
    except UnidentifiedImageError as error:
        hint = f"Readable formats: {', '.join(FORMATS)}."
        raise DataError(f"{name}: this is not an image, or it is damaged", hint=hint) from error
    except Image.DecompressionBombError as error:
        raise too_large(str(error), name=name) from error
    except MemoryError as error:
        raise too_large("it takes more memory than there is", name=name) from error
    # Pillow's decoders let many kinds through: OSError, SyntaxError, EOFError, struct.error, ...
    except Exception as error:
        cause = str(error) or type(error).__name__
        hint = "The file seems to be damaged or cut off: fetch it again, or remove it."
        raise DataError(f"{name}: cannot be decoded: {cause}", hint=hint) from error


def resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize uint8 [H, W, 3] to `size` = (height, width), without keeping the aspect ratio.

    Pillow's bilinear filter, which averages when it shrinks: the evaluation transform of
    PaddleClas and PaddleX (`ResizeImage`, backend pil), equal bit for bit. An image that has the
    size already is returned as it is.
    """
    if image.shape[:2] == tuple(size):
        return image
    height, width = size
    resized = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
    return np.array(resized)


def resize_fast(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize uint8 [H, W, 3] to `size` = (height, width) for training, seven times as fast.

    OpenCV's bilinear rule, which looks at four pixels; sides that shrink to less than half are
    brought to their length by averaging first, so that nothing is skipped.
    """
    import cv2  # here, because inference does without it

    height, width = size
    if image.shape[:2] == (height, width):
        return image
    if image.shape[0] > 2 * height or image.shape[1] > 2 * width:
        shrunk = (min(image.shape[1], width), min(image.shape[0], height))
        image = cv2.resize(image, shrunk, interpolation=cv2.INTER_AREA)
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)


def _decode_jpeg(
    data: bytes, at_least: tuple[int, int] | None, *, is_turned: bool
) -> np.ndarray | None:
    """libjpeg-turbo without Pillow around it; None where it warns, and Pillow is to decide.

    `is_turned` says that the orientation swaps height and width.
    """
    height, width = (at_least[::-1] if is_turned else at_least) if at_least else (0, 0)
    try:
        return simplejpeg.decode_jpeg(data, min_height=height, min_width=width)
    except ValueError:
        return None


def lacks_end(data: bytes) -> bool:
    """Return whether a JPEG breaks off without the marker that it should end with."""
    return not data.endswith(_JPEG_END) and data.rfind(_JPEG_END) < data.rfind(b"\xff\xda")


def jpeg_warning(data: bytes) -> str | None:
    """Return libjpeg's warning about data that it fills up with grey and Pillow takes silently."""
    try:
        simplejpeg.decode_jpeg(data, min_height=1, min_width=1)  # an eighth is all it needs
    except ValueError as error:
        return str(error)
    return None


def exif_orientation(image: Image.Image) -> int:
    """Return how the picture is stored, 1 to 8; 1 is upright. 1 too where its metadata are damaged.

    Of another type than the standard's, such as a byte, it says nothing: so do browsers see it.
    """
    # Damaged metadata fails in many ways, and none of them makes the picture unreadable.
    try:
        value = image.getexif().get(_EXIF_ORIENTATION, 1)
        return int(value) if value in _UPRIGHT else 1
    except Exception:  # noqa: BLE001
        return 1


def _turn_upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    if orientation not in _UPRIGHT:
        return pixels
    whole = pixels.view("V3")[..., 0]  # moving pixels takes half as long as moving channels
    turned = np.ascontiguousarray(_UPRIGHT[orientation](whole))
    return turned[..., None].view(np.uint8)


def _to_rgb(image: Image.Image) -> np.ndarray:
    """Return the picture as uint8 [H, W, 3]; besides the two, little is ever in memory."""
    is_wide = image.mode in ("I", "F") or image.mode.startswith("I;16")
    convert = _wide_converter(image) if is_wide else _to_colors
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    for rows, piece in _pieces(image):
        pixels[rows] = convert(piece)
    return pixels


def _pieces(image: Image.Image) -> Iterator[tuple[slice, Image.Image]]:
    """Yield the image in rows that can be converted together."""
    step = max(1, _PIECE // image.width)
    if step >= image.height:
        yield slice(None), image
        return
    for top in range(0, image.height, step):
        rows = slice(top, min(top + step, image.height))
        yield rows, image.crop((0, rows.start, image.width, rows.stop))


def _to_colors(piece: Image.Image) -> np.ndarray:
    if piece.has_transparency_data:
        white = Image.new("RGBA", piece.size, "white")
        piece = Image.alpha_composite(white, piece.convert("RGBA"))
    return np.asarray(piece.convert("RGB"))


def _wide_converter(image: Image.Image) -> Callable[[Image.Image], np.ndarray]:
    """Return a function that scales grey values of more than 8 bits to a full scale of 255."""
    full_scale = _full_scale(image)
    # Pillow leaves these two to its users where a grey value has 16 bits.
    is_16 = image.mode.startswith("I;16")
    is_turned = is_16 and getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == _WHITE_IS_ZERO
    clear = image.info.get("transparency") if is_16 and image.format == "PNG" else None

    def convert(piece: Image.Image) -> np.ndarray:
        values = np.asarray(piece)  # [h, w]
        fraction = np.nan_to_num(np.clip(values / full_scale, 0, 1))  # infinity: white, NaN: black
        grey = np.rint(fraction * 255).astype(np.uint8)
        if is_turned:
            grey = 255 - grey
        if clear is not None:
            grey = np.where(values == clear, np.uint8(255), grey)
        return grey[..., None]

    return convert


def _full_scale(image: Image.Image) -> float:
    """Return the value of white in an image of grey values of more than 8 bits.

    Modes I and F do not say it: it is the first usual full scale that holds all values.
    """
    if image.mode.startswith("I;16"):
        return 4095 if getattr(image, "tag_v2", {}).get(_BITS) == (12,) else 65535
    arrays = (np.asarray(piece) for _, piece in _pieces(image))
    largest = max(float(a.max(initial=0, where=np.isfinite(a))) for a in arrays)
    usual = (255, 65535) if image.mode == "I" else (1, 255, 65535)
    return next((scale for scale in usual if largest <= scale), largest)
