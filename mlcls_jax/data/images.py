"""Pictures as arrays: reading files, the transforms of evaluation, and a faster way for training.

`decode_image` and `resize` are what the originals evaluate with, bit for bit. `decode_image` with
`at_least` and `resize_fast` give nearly the same picture in a third of the time.
"""

import contextlib
import io
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

from mlcls_jax.data.findings import printable
from mlcls_jax.errors import DataError, InputError

log = logging.getLogger(__name__)

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

# Pillow's suffixes of FORMATS, and OpenCV's ".sr": what is decoded when named is found in folders.
IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".gif", ".tif", ".tiff"),
    *(".bmp", ".dib", ".pbm", ".pgm", ".ppm", ".pnm", ".pfm", ".ras", ".sr"),
)
SUFFIX_HINT = f"An image ends in one of: {', '.join(IMAGE_SUFFIXES)}."

# A closed list, because Pillow knows formats that start other programs (EPS runs Ghostscript),
# and a server decodes what strangers send.
FORMATS = ("JPEG", "PNG", "BMP", "DIB", "WEBP", "PPM", "SUN", "TIFF", "GIF")

_EXIF_ORIENTATION = 0x0112
_PHOTOMETRIC, _WHITE_IS_ZERO = 262, 0  # a tag of TIFF and one of its values
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read_image(path: str | Path) -> np.ndarray:
    """Reads an image file as uint8 [H, W, 3], RGB and upright; see `decode_image`.

    Raises DataError, which names the file, when it cannot be opened or decoded.
    """
    return decode_image(read_file(path), name=str(path))


def read_file(path: str | Path) -> bytes:
    """The content of an image file, still encoded.

    Raises DataError, which names the file, when it cannot be read.
    """
    try:
        return Path(path).read_bytes()
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such file", hint="Check the path.") from error
    except IsADirectoryError as error:
        hint = "Name one image, or list the folder with list_images."
        raise DataError(f"{path}: this is a folder, not an image", hint=hint) from error
    except (OSError, ValueError) as error:  # ValueError: a path with a zero byte in it
        cause = getattr(error, "strerror", None) or error
        hint = "Check that the file may be read."
        raise DataError(f"{path}: cannot be opened: {cause}", hint=hint) from error


def decode_image(
    data: bytes,
    *,
    name: str,
    at_least: tuple[int, int] | None = None,
    max_pixels: int | None = None,
) -> np.ndarray:
    """Decodes the bytes of an image file to uint8 [H, W, 3], RGB; `name` stands in errors.

    The EXIF orientation is applied. Grey becomes three equal channels, transparency is laid over
    white, numbers of more than 8 bits are scaled to 0..255, and of an animation the first frame
    counts. The pixels are those of Pillow, bit for bit.

    With `at_least` = (height, width) a JPEG is decoded at the smallest scale of 1/8, 2/8, ... 8/8
    at which neither side falls below it: what a later shrinking would average away is not computed.

    Raises DataError for empty, foreign, damaged or cut-off data, and for pictures of more than
    `max_pixels` or above Pillow's own limit; their header is enough for that.
    """
    if not data:
        raise DataError(f"{name}: the file is empty", hint="Fetch or copy it again.")
    with data_errors(name), Image.open(io.BytesIO(data), formats=FORMATS) as image:
        # MPO: a JPEG with further pictures behind it, as phones and stereo cameras write it.
        if image.format in ("JPEG", "MPO") and image.mode in ("RGB", "L"):
            _check_pixel_count(image, name=name, max_pixels=max_pixels)
            orientation = exif_orientation(image)
            pixels = _decode_jpeg(data, at_least, is_turned=orientation > 4)
            if pixels is not None:
                return _turn_upright(pixels, orientation)
        return to_pixels(image, name=name, max_pixels=max_pixels)


def to_pixels(image: Image.Image, *, name: str, max_pixels: int | None = None) -> np.ndarray:
    """The current frame of a Pillow image as uint8 [H, W, 3], by the rules of `decode_image`."""
    with data_errors(name):
        _check_pixel_count(image, name=name, max_pixels=max_pixels)
        image.load()
        # Only now: Pillow turns TIFFs upright while loading, and then drops the tag.
        upright = _UPRIGHT.get(exif_orientation(image))
        rgb = _to_rgb(image)
        return np.array(rgb if upright is None else rgb.transpose(upright))


@contextlib.contextmanager
def data_errors(name: str) -> Iterator[None]:
    """Turns what Pillow raises into a DataError about `name`."""
    try:
        yield
    except DataError:
        raise
    except UnidentifiedImageError as error:
        hint = f"Readable formats: {', '.join(FORMATS)}."
        raise DataError(f"{name}: this is not an image, or it is damaged", hint=hint) from error
    except Image.DecompressionBombError as error:
        raise _too_large(str(error), name=name) from error
    # Pillow's decoders let many kinds through: OSError, SyntaxError, EOFError, struct.error, ...
    except Exception as error:
        cause = str(error) or type(error).__name__
        hint = "The file seems damaged or cut off: fetch it again, or remove it."
        raise DataError(f"{name}: cannot be decoded: {cause}", hint=hint) from error


def resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes uint8 [H, W, 3] to `size` = (height, width), without keeping the aspect ratio.

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
    """Resizes uint8 [H, W, 3] to `size` = (height, width) for training, seven times as fast.

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


def resize_short(image: np.ndarray, short: int) -> np.ndarray:
    """Scale `image` so that its shorter side is `short`, by OpenCV's bilinear rule.

    The transform of the originals' single-label models, bit for bit: no antialiasing, and weights
    in fixed point of 11 bits.
    """
    factor = short / min(image.shape[:2])
    height, width = (round(side * factor) for side in image.shape[:2])
    if (height, width) == image.shape[:2]:
        return image
    top, bottom, upper, lower = _taps(image.shape[0], height)
    left, right, before, after = _taps(image.shape[1], width)
    pixels = image.astype(np.int32)
    rows = pixels[:, left] * before[:, None] + pixels[:, right] * after[:, None]
    rows >>= 4  # what is kept of the products fits 32 bits
    upper, lower = upper[:, None, None], lower[:, None, None]
    sums = ((upper * rows[top]) >> 16) + ((lower * rows[bottom]) >> 16)
    return ((sums + 2) >> 2).clip(0, 255).astype(np.uint8)


def center_crop(image: np.ndarray, size: int) -> np.ndarray:
    """The `size` x `size` pixels in the middle, a half pixel up and left where sides are odd."""
    top, left = ((side - size) // 2 for side in image.shape[:2])
    return image[top : top + size, left : left + size]


def _taps(old: int, new: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The two of `old` pixels that each of `new` lies between, and their weights times 2048."""
    position = ((np.arange(new) + 0.5) * (old / new) - 0.5).astype(np.float32)
    first = np.floor(position).astype(np.int64)
    weight = np.where((first < 0) | (first >= old - 1), np.float32(0), position - first)
    weight = weight.astype(np.float32)
    first = first.clip(0, old - 1)
    scaled = (np.rint(w * 2048).astype(np.int32) for w in (np.float32(1) - weight, weight))
    return first, np.minimum(first + 1, old - 1), *scaled


def normalize(image: np.ndarray) -> np.ndarray:
    """Maps uint8 [H, W, 3] to float32 [H, W, 3]: (x / 255 - MEAN) / STD for each channel.

    Every step is in float32 and in the order of PaddleClas' `NormalizeImage`, so that the result
    is equal bit for bit to what the originals are trained and evaluated on.
    """
    mean = np.asarray(MEAN, np.float32)
    std = np.asarray(STD, np.float32)
    return (image.astype(np.float32) * np.float32(1 / 255) - mean) / std


def list_images(path: str | Path) -> list[Path]:
    """Lists the images of a folder and its subfolders, sorted; a file gives itself.

    Which files these are is told at `walk_images`.

    Raises InputError when there is no such path, or no image in the folder.
    """
    path = Path(path)
    if path.is_file():
        return [path]
    if not path.exists():
        raise InputError(f"{path}: there is no such file or folder", hint="Check the path.")
    found = []
    for file in walk_images(path):
        if isinstance(file, DataError):
            raise InputError(file.message, file.hint)
        found.append(file)
    if not found:
        raise InputError(f"{path}: no image in this folder", hint=SUFFIX_HINT)
    return found


def walk_images(
    folder: Path, leave_out: Callable[[str, Path], None] | None = None
) -> Iterator[Path | DataError]:
    """What `list_images` gives, one by one; an error in the place of a folder that cannot be read.

    A folder's images are known by IMAGE_SUFFIXES in any case. Hidden files and folders are passed
    over. Linked folders are followed; each but once, and not where they lead back to what is walked
    anyway. Of everything else that is left out `leave_out` is told why and what; without it, a
    warning counts it. Only one folder a level is in memory, as names.
    """
    counts: Counter[str] = Counter()
    examples: dict[str, Path] = {}

    def remember(why: str, path: Path) -> None:
        counts[why] += 1
        examples[why] = min(path, examples.get(why, path))

    yield from _walk(folder, leave_out or remember)
    for why, count in counts.items():
        example = printable(str(examples[why].relative_to(folder)))
        log.warning("%s: left out: %s (%d), such as %s", folder, why, count, example)


def _walk(folder: Path, leave_out: Callable[[str, Path], None]) -> Iterator[Path | DataError]:
    top = Path(os.path.realpath(folder))
    followed: set[tuple[int, int]] = set()
    # Not by recursion, as paths may be deeper than Python's stack: where, name, whether it is a
    # folder, whether a link is on the way there from `folder`.
    waiting = [(folder, "", True, False)]
    while waiting:
        here, name, is_folder, is_linked = waiting.pop()
        path = here / name
        if not is_folder:
            yield path
            continue
        try:
            if is_linked and not _is_new(path, top, followed):
                leave_out("linked folders that are walked on another way", path)
                continue
            inside = _entries(path, leave_out)
        except OSError as error:
            hint = "Check that the folder may be read."
            yield DataError(f"{path}: this folder cannot be read: {error.strerror}", hint)
            continue
        waiting += [(path, *entry, is_linked or is_link) for *entry, is_link in reversed(inside)]


def _entries(folder: Path, leave_out: Callable[[str, Path], None]) -> list[tuple[str, bool, bool]]:
    """Name, whether it is a folder, whether a link: of images and folders, by name."""
    found = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            is_folder = is_file = False
            with contextlib.suppress(OSError):  # a link in a circle, or to where one may not look
                is_folder, is_file = entry.is_dir(), entry.is_file()
            if is_folder or (is_file and is_image_name(entry.name)):
                # Folders among files: the order of sorted paths.
                found.append((entry.name, is_folder, entry.is_symlink()))
            elif is_file:
                leave_out("files whose names do not end as images' do", folder / entry.name)
            else:
                why = "links that lead nowhere" if entry.is_symlink() else "pipes, devices and such"
                leave_out(why, folder / entry.name)
    return sorted(found)


def _is_new(linked: Path, top: Path, followed: set[tuple[int, int]]) -> bool:
    """Whether a folder behind a link is neither in `followed` nor walked without that link.

    A new one is put into `followed`.
    """
    target = Path(os.path.realpath(linked))
    if top.is_relative_to(target):
        return False
    if target.is_relative_to(top):
        below = target.relative_to(top).parts
        if not any(part.startswith(".") for part in below):  # hidden ones are not walked
            return False
    status = os.stat(target)
    identity = (status.st_dev, status.st_ino)
    is_new = identity not in followed
    followed.add(identity)
    return is_new


def is_image_name(name: str) -> bool:
    """Whether a file of this name is taken for an image in folders."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


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


def _check_pixel_count(image: Image.Image, *, name: str, max_pixels: int | None) -> None:
    # Pillow itself only warns below twice its limit. Turning the warning into an error would change
    # the filters of the whole process, which is not safe with threads, hence this comparison.
    limits = [limit for limit in (max_pixels, Image.MAX_IMAGE_PIXELS) if limit is not None]
    if limits and image.width * image.height > min(limits):
        pixels = f"{image.width} x {image.height} pixels, above the limit of {min(limits)}"
        raise _too_large(pixels, name=name)


def _too_large(cause: str, *, name: str) -> DataError:
    hint = "Shrink the picture; if you trust it, raise the limit, PIL.Image.MAX_IMAGE_PIXELS too."
    return DataError(f"{name}: too large to decode: {cause}", hint=hint)


def exif_orientation(image: Image.Image) -> int:
    """How the picture is stored, 1 to 8; 1 is upright. 1 too where its metadata are damaged."""
    # Damaged metadata fails in many ways, and none of them makes the picture unreadable.
    try:
        return image.getexif().get(_EXIF_ORIENTATION, 1)
    except Exception:  # noqa: BLE001
        return 1


def _turn_upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    upright = _UPRIGHT.get(orientation)
    return pixels if upright is None else np.array(Image.fromarray(pixels).transpose(upright))


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        values = np.asarray(image)  # [H, W]
        grey = _to_uint8(values, mode=image.mode)
        # Pillow leaves these two to its users where a grey value has 16 bits.
        if image.mode.startswith("I;16"):
            if getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
                grey = 255 - grey
            if image.format == "PNG" and "transparency" in image.info:
                grey = np.where(values == image.info["transparency"], np.uint8(255), grey)
        return Image.fromarray(grey).convert("RGB")
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def _to_uint8(values: np.ndarray, *, mode: str) -> np.ndarray:
    """Scales grey values [H, W] of more than 8 bits so that their full scale becomes 255.

    Modes I and F do not say what white is: it is the first usual full scale that holds them all.
    """
    largest = float(values.max(initial=0, where=np.isfinite(values)))
    scales = {"I": (255, 65535), "F": (1, 255, 65535)}.get(mode, (65535,))
    full_scale = next((scale for scale in scales if largest <= scale), largest)
    fraction = np.nan_to_num(np.clip(values / full_scale, 0, 1))  # an infinity is white, NaN black
    return np.rint(fraction * 255).astype(np.uint8)
