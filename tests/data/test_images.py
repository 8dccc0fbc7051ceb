"""Reading images of every kind, and the evaluation transforms against the originals' numbers."""

import inspect
import io
import os
import struct
import subprocess
import sys
import warnings
import zlib
from pathlib import Path

import cv2
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from mlcls_jax.data.image_files import IMAGE_SUFFIXES, list_images
from mlcls_jax.data.images import FORMATS, decode_image, read_image, resize, resize_fast, to_pixels
from mlcls_jax.errors import DataError, InputError
from mlcls_jax.imagenet import MEAN, STD
from mlcls_jax.models.classifier import normalize
from tests.helpers import bombs
from tests.helpers.paddle_recipe import image_for

GOLDENS = np.load(Path(__file__).parents[1] / "data" / "paddle" / "preprocess.npz")


def picture(height: int = 20, width: int = 30) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def encode(image: Image.Image, file_format: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=file_format, **options)
    return buffer.getvalue()


def decode(image: Image.Image, file_format: str, **options) -> np.ndarray:
    return decode_image(encode(image, file_format, **options), name="test")


@pytest.mark.parametrize("index", range(len(GOLDENS["shapes"])))
def test_evaluation_transforms_equal_the_originals_bit_for_bit(index):
    source = image_for(*GOLDENS["shapes"][index], index=index, seed=int(GOLDENS["seed"]))
    assert zlib.crc32(source.tobytes()) == GOLDENS[f"{index}/src_crc32"]

    resized = resize(source, (448, 448))
    np.testing.assert_array_equal(resized[5::37, 3::41], GOLDENS[f"{index}/clas_ml/u8_grid"])
    assert zlib.crc32(resized.tobytes()) == GOLDENS[f"{index}/clas_ml/u8_crc32"]
    assert zlib.crc32(resized.tobytes()) == GOLDENS[f"{index}/pdx_ml/u8_crc32"]

    scaled = resized.astype(np.float32) * np.float32(1 / 255)
    normalized = (scaled - np.float32(MEAN)) / np.float32(STD)
    np.testing.assert_allclose(
        normalize(jnp.asarray(resized)[None])[0], normalized, rtol=1e-6, atol=1e-6
    )
    chw = np.ascontiguousarray(normalized.transpose(2, 0, 1))
    assert chw.dtype == np.float32
    np.testing.assert_array_equal(chw[:, 5::37, 3::41], GOLDENS[f"{index}/clas_ml/f32_grid"])
    assert zlib.crc32(chw.tobytes()) == GOLDENS[f"{index}/clas_ml/f32_crc32"]
    # PaddleX computes the same in another order.
    np.testing.assert_allclose(
        chw[:, 5::37, 3::41], GOLDENS[f"{index}/pdx_ml/f32_grid"], rtol=0, atol=1e-6
    )


def test_resize_takes_height_then_width_and_keeps_a_fitting_image():
    image = picture(20, 30)
    assert resize(image, (7, 11)).shape == (7, 11, 3)
    assert resize(image, (20, 30)) is image
    assert resize(image, [20, 30]) is image


def test_read_image_gives_writable_rgb(tmp_path):
    image = picture()
    Image.fromarray(image).save(tmp_path / "a.png")
    read = read_image(tmp_path / "a.png")
    np.testing.assert_array_equal(read, image)
    assert read.dtype == np.uint8
    read[0] = 0  # augmentations work in place


@pytest.mark.parametrize("suffix", sorted(IMAGE_SUFFIXES))
def test_every_listed_suffix_can_be_read(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    if suffix in (".sr", ".ras"):  # Pillow reads Sun rasters but does not write them
        path.write_bytes(struct.pack(">8I", 0x59A66A95, 2, 1, 24, 6, 1, 0, 0) + bytes([9] * 6))
    else:
        Image.new("RGB", (2, 1), (9, 9, 9)).save(path)
    np.testing.assert_array_equal(read_image(path), np.full((1, 2, 3), 9))


# What each orientation says was done to the upright picture, as NumPy does it.
STORED_AS = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, -1),
}


@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "TIFF, compressed"])
@pytest.mark.parametrize("orientation", STORED_AS)
def test_exif_orientation_is_undone(orientation, file_format):
    upright = picture()
    stored = Image.fromarray(np.ascontiguousarray(STORED_AS[orientation](upright)))
    exif = Image.Exif()
    exif[0x0112] = orientation
    file_format, _, compressed = file_format.partition(",")
    # Pillow has two readers of TIFF: its own, and libtiff for what is compressed.
    options = {"compression": "tiff_lzw"} if compressed else {}
    decoded = decode(stored, file_format, exif=exif, **options)
    np.testing.assert_array_equal(decoded, upright)


@pytest.mark.parametrize("orientation", STORED_AS)
def test_exif_orientation_of_a_jpeg_is_undone(orientation):
    upright = np.kron(picture(4, 6), np.ones((16, 16, 1), np.uint8))
    stored = Image.fromarray(np.ascontiguousarray(STORED_AS[orientation](upright)))
    exif = Image.Exif()
    exif[0x0112] = orientation
    decoded = decode(stored, "JPEG", exif=exif, quality=100, subsampling=0)
    assert np.abs(decoded.astype(int) - upright).max() <= 4


@pytest.mark.parametrize("orientation", [0, 1, 9])
def test_other_orientations_change_nothing(orientation):
    image = picture()
    exif = Image.Exif()
    exif[0x0112] = orientation
    np.testing.assert_array_equal(decode(Image.fromarray(image), "PNG", exif=exif), image)


TYPES = {"byte": 1, "text": 2, "undefined": 7, "none there is": 99}


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("kind", TYPES)
def test_an_orientation_of_an_odd_type_says_nothing(file_format, kind):
    entry = struct.pack("<HHI4s", 0x0112, TYPES[kind], 1, b"\x06")
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 1) + entry + bytes(4)
    image = Image.fromarray(smooth(16, 24))
    plain = encode(image, file_format)
    if file_format == "TIFF":  # has no EXIF block, but the tag itself
        short = struct.pack("<HHI4s", 0x0112, 3, 1, b"\x06")
        data = encode(image, "TIFF", tiffinfo={0x0112: 6}).replace(short, entry)
    else:
        data = encode(image, file_format, exif=exif)
    assert entry in data
    np.testing.assert_array_equal(decode_image(data, name="x"), decode_image(plain, name="x"))


def test_damaged_exif_does_not_spoil_the_picture():
    image = Image.new("RGB", (8, 8), (50, 100, 150))
    decoded = decode(image, "JPEG", exif=b"Exif\0\0no tiff header here", quality=100)
    assert np.abs(decoded.astype(int) - (50, 100, 150)).max() <= 2


@pytest.mark.parametrize("mode", ["1", "L"])
def test_grey_becomes_three_equal_channels(mode):
    grey = Image.fromarray(picture()).convert(mode)
    expected = np.repeat(np.asarray(grey.convert("L"))[..., None], 3, axis=-1)
    np.testing.assert_array_equal(decode(grey, "PNG"), expected)


def test_palette():
    palette = Image.fromarray(picture()).quantize(16)
    np.testing.assert_array_equal(decode(palette, "PNG"), np.asarray(palette.convert("RGB")))


def test_palette_with_transparency_is_laid_over_white():
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putdata([0, 1])
    decoded = decode(image, "PNG", transparency=1)
    np.testing.assert_array_equal(decoded, [[[10, 20, 30], [255, 255, 255]]])


def test_alpha_is_laid_over_white():
    image = Image.fromarray(np.uint8([[[200, 100, 0, 255], [200, 100, 0, 0], [200, 100, 0, 51]]]))
    expected = [[[200, 100, 0], [255, 255, 255], [244, 224, 204]]]  # a fifth of it over white
    np.testing.assert_array_equal(decode(image, "PNG"), expected)
    np.testing.assert_array_equal(decode(image, "TIFF"), expected)
    np.testing.assert_array_equal(decode(image, "WEBP", lossless=True, exact=True), expected)


def test_grey_with_alpha_is_laid_over_white():
    image = Image.new("LA", (1, 1), (100, 51))
    np.testing.assert_array_equal(decode(image, "PNG"), [[[224, 224, 224]]])


def test_one_transparent_colour_is_laid_over_white():
    image = Image.fromarray(np.uint8([[[1, 2, 3], [4, 5, 6]]]))
    decoded = decode(image, "PNG", transparency=(4, 5, 6))
    np.testing.assert_array_equal(decoded, [[[1, 2, 3], [255, 255, 255]]])


@pytest.mark.parametrize("file_format", ["JPEG", "TIFF"])
def test_cmyk(file_format):
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    decoded = decode(image, file_format)
    assert np.abs(decoded.astype(int) - (255, 0, 0)).max() <= 3


@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_down(file_format):
    values = np.uint16([[0, 128, 129, 257, 257 * 100, 65535]])
    decoded = decode(Image.fromarray(values), file_format)
    np.testing.assert_array_equal(decoded[0], np.repeat([0, 0, 1, 1, 100, 255], 3).reshape(6, 3))


def test_twelve_bits_of_a_tiff_are_scaled_to_eight():
    tags = {256: 2, 257: 1, 258: 12, 259: 1, 262: 1, 273: 8, 277: 1, 278: 1, 279: 3}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    data = b"II*\0" + struct.pack("<I", 12) + b"\xff\xf8\x00\0"  # 4095, 2048
    data += struct.pack("<H", len(tags)) + entries + bytes(4)
    np.testing.assert_array_equal(decode_image(data, name="x")[0, :, 0], [255, 128])


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@pytest.mark.parametrize("channels", [3, 4])
def test_sixteen_bits_of_colour_are_scaled_down(suffix, channels):
    values = np.random.default_rng(0).integers(0, 256, (9, 7, channels)).astype(np.uint16)
    if channels == 4:
        values[..., 3] = 255
    data = cv2.imencode(suffix, values * 257)[1].tobytes()  # blue first
    np.testing.assert_array_equal(decode_image(data, name="x"), values[..., 2::-1])


def test_one_transparent_grey_of_sixteen_bits_is_laid_over_white():
    values = np.uint16([[257 * 9, 257 * 10]])
    decoded = decode(Image.fromarray(values), "PNG", transparency=257 * 9)
    np.testing.assert_array_equal(decoded[0, :, 0], [255, 10])


@pytest.mark.parametrize("file_format", ["TIFF", "TIFF, compressed"])
def test_grey_of_which_white_is_zero(file_format):
    """The photometric interpretation 0 of TIFF, as scanners and X-ray machines write it."""
    for values in (np.uint16([[0, 257 * 10, 65535]]), np.uint8([[0, 10, 255]])):
        data = encode(
            Image.fromarray(values),
            "TIFF",
            tiffinfo={262: 0},
            compression="tiff_lzw" if "compressed" in file_format else None,
        )
        # Pillow turns 8 bits over as it writes them, but not 16.
        expected = [0, 10, 255] if values.dtype == np.uint8 else [255, 245, 0]
        np.testing.assert_array_equal(decode_image(data, name="x")[0, :, 0], expected)


def test_floats_of_one_channel():
    data = cv2.imencode(".tiff", np.float32([[0, 0.2, 1]]))[1].tobytes()
    np.testing.assert_array_equal(decode_image(data, name="x")[0, :, 0], [0, 51, 255])


def test_cmyk_of_adobe_reads_as_another_decoder_reads_it():
    inks = np.kron(
        np.random.default_rng(0).integers(0, 256, (3, 4, 4), dtype=np.uint8),
        np.ones((16, 16, 1), np.uint8),
    )
    data = encode(Image.fromarray(inks, "CMYK"), "JPEG", quality=95)
    assert b"Adobe" in data  # by which the inks are stored inverted
    other = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert np.abs(decode_image(data, name="x").astype(int) - other).max() <= 4


def test_one_bit():
    image = Image.fromarray(np.uint8([[0, 255, 255, 0]])).convert("1")
    for file_format in ("PNG", "TIFF", "BMP"):
        np.testing.assert_array_equal(decode(image, file_format)[0, :, 0], [0, 255, 255, 0])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_of_the_pictures_that_phones_put_into_one_jpeg_the_first_counts(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = [Image.fromarray(smooth(64, 96) // n) for n in (1, 2)]
    data = encode(stored[0], "MPO", save_all=True, append_images=stored[1:], exif=exif)
    assert Image.open(io.BytesIO(data)).format == "MPO"
    np.testing.assert_array_equal(
        decode_image(data, name="x"),
        decode_image(encode(stored[0], "JPEG", exif=exif), name="x"),
    )
    half = decode_image(data, name="x", at_least=(20, 20))
    assert half.shape[:2] == ((24, 36) if orientation < 5 else (36, 24))


def test_big_endian_sixteen_bits():
    header = b"P5 2 1 65535\n"
    data = header + np.array([257 * 7, 65535], ">u2").tobytes()
    np.testing.assert_array_equal(decode_image(data, name="x")[0, :, 0], [7, 255])
    image = Image.frombytes("I;16B", (2, 1), np.array([257 * 7, 65535], ">u2").tobytes())
    np.testing.assert_array_equal(decode(image, "TIFF")[0, :, 0], [7, 255])


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.int32([[0, 100, 255]]), [0, 100, 255]),
        (np.int32([[-5, 257 * 9, 65535]]), [0, 9, 255]),
        (np.int32([[0, 500_000, 1_000_000]]), [0, 128, 255]),
        (np.int32([[0, 0, 0]]), [0, 0, 0]),
        (np.float32([[0, 0.2, 1]]), [0, 51, 255]),
        (np.float32([[0, 100, 255]]), [0, 100, 255]),
        (np.float32([[-1, np.nan, np.inf]]), [0, 0, 255]),
    ],
)
def test_wide_numbers_are_scaled_to_eight_bits(values, expected):
    np.testing.assert_array_equal(decode(Image.fromarray(values), "TIFF")[0, :, 0], expected)


@pytest.mark.parametrize("file_format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_an_animation_the_first_frame_counts(file_format):
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "lime", "blue")]
    options = {"lossless": True} if file_format == "WEBP" else {}
    decoded = decode(frames[0], file_format, save_all=True, append_images=frames[1:], **options)
    np.testing.assert_array_equal(decoded, np.broadcast_to([255, 0, 0], (8, 8, 3)))


ENCODINGS = {
    "jpeg": ("JPEG", {}),
    "progressive jpeg": ("JPEG", {"progressive": True}),
    "png": ("PNG", {}),
    "bmp": ("BMP", {}),
    "webp": ("WEBP", {}),
    "ppm": ("PPM", {}),
    "tiff": ("TIFF", {}),
    "lzw tiff": ("TIFF", {"compression": "tiff_lzw"}),
    "gif": ("GIF", {}),
}


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, about TIFF tags
def test_cut_off_files_fail_wherever_they_are_cut(tmp_path, encoding):
    file_format, options = ENCODINGS[encoding]
    data = encode(Image.fromarray(picture(40, 50)), file_format, **options)
    cuts = {1, 2, 10, 40, len(data) // 4, len(data) // 2, len(data) * 9 // 10, len(data) - 30}
    for cut in cuts:
        path = tmp_path / "cut.img"
        path.write_bytes(data[:cut])
        with pytest.raises(DataError, match="cut.img"):
            read_image(path)


SIZES = [(1, 1), (50, 40), (400, 300)]
KINDS = {"colours": ("RGB", {}), "grey": ("L", {}), "inks": ("CMYK", {})}
KINDS["progressive"] = ("RGB", {"progressive": True})


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_jpeg_is_read_whole_without_its_end_marker_but_not_without_pixels(kind, size):
    mode, options = KINDS[kind]
    data = encode(Image.fromarray(picture(*size)).convert(mode), "JPEG", **options)
    whole = decode_image(data, name="x.jpg")
    for missing in (1, 2):
        np.testing.assert_array_equal(decode_image(data[:-missing], name="x.jpg"), whole)
    for missing in (3, 16):  # not filled with grey
        with pytest.raises(DataError, match="(?i)truncated"):
            decode_image(data[:-missing], name="x.jpg")


def test_unreadable_files_name_the_path_and_the_way_out(tmp_path):
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("not an image")
    (tmp_path / "figure.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    (tmp_path / "folder.jpg").mkdir()
    causes = {
        "empty.jpg": "empty",
        "text.jpg": "not an image",
        "figure.jpg": "not an image",  # would start Ghostscript
        "folder.jpg": "folder",
        "missing.jpg": "no such file",
        "text.jpg/below.jpg": "cannot be opened",
    }
    for name, cause in causes.items():
        with pytest.raises(DataError, match=cause) as caught:
            read_image(tmp_path / name)
        assert str(tmp_path / name) in caught.value.message
        assert caught.value.hint


@pytest.mark.parametrize("limit", [300, 599])  # above twice the limit Pillow raises, below it warns
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_more_pixels_than_pillow_allows_fail(monkeypatch, limit):
    data = encode(Image.new("RGB", (31, 20)), "PNG")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(DataError, match="bomb.png: too large") as caught:
        decode_image(data, name="bomb.png")
    assert "MAX_IMAGE_PIXELS" in caught.value.hint
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert decode_image(data, name="bomb.png").shape == (20, 31, 3)


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "TIFF", "GIF", "WEBP", "BMP", "PPM"])
def test_a_limit_on_pixels(file_format):
    data = encode(Image.new("RGB", (31, 20)), file_format)
    assert decode_image(data, name="x", max_pixels=620).shape == (20, 31, 3)
    with pytest.raises(DataError, match="x: too large .*31 x 20 pixels, above the limit of 619"):
        decode_image(data, name="x", max_pixels=619)


def test_too_many_pixels_are_refused_before_they_are_decoded():
    data = encode(Image.new("RGB", (31, 20)), "PNG")
    header_only = data[: data.index(b"IDAT") + 4]
    with pytest.raises(DataError, match="x: too large"):
        decode_image(header_only, name="x", max_pixels=619)


@pytest.mark.parametrize("spoil", ["plain", "rubbish", "restarts", "thumbnail"])
def test_a_jpeg_of_many_scans_is_refused_before_it_is_decoded(spoil):
    few, many = bombs.jpeg_scans(256, 64), bombs.jpeg_scans(257, 64)
    if spoil == "rubbish":
        few, many = (data.replace(b"\xff\xdb", b"rub\xff\xdb", 1) for data in (few, many))
    if spoil == "restarts":
        few, many = (data.replace(b"\xff\xda", b"\xff\xd0\xff\xff\xda") for data in (few, many))
    if spoil == "thumbnail":
        segment = b"\xff\xe1" + struct.pack(">H", 2002) + b"\xff\xda" * 1000
        few, many = (data[:2] + segment + data[2:] for data in (few, many))
    assert decode_image(few, name="x").shape == (64, 64, 3)
    with Image.open(io.BytesIO(few)) as image:
        assert to_pixels(image, name="x").shape == (64, 64, 3)
    with pytest.raises(
        DataError, match="too large to decode: a JPEG of more than 256 scans"
    ) as caught:
        decode_image(many, name="x")
    assert "Save it again" in caught.value.hint
    with Image.open(io.BytesIO(many)) as image, pytest.raises(DataError, match="256 scans"):
        to_pixels(image, name="x")


@pytest.mark.parametrize("size", [(65_501, 1), (1, 65_501)])
def test_a_side_has_a_limit_of_its_own(size):
    assert decode_image(bombs.png(65_500, 1), name="x").shape == (1, 65_500, 3)
    with pytest.raises(DataError, match="x: too large .*above the limit of 65500 a side"):
        decode_image(bombs.png(*size), name="x")


def test_a_tile_larger_than_the_picture_counts():
    assert decode_image(bombs.tiff_tile(16, 1000), name="x", max_pixels=10**6).shape == (16, 16, 3)
    with pytest.raises(DataError, match="x: too large .*1008 x 1008 pixels in one tile"):
        decode_image(bombs.tiff_tile(16, 1008), name="x", max_pixels=10**6)


MEMORY = """
import re, sys
from mlcls_jax.data.images import decode_image
from mlcls_jax.errors import DataError

def memory(kind):
    lines = open("/proc/self/status").read()
    return 1024 * int(re.search(kind + r":\\s+(\\d+)", lines)[1])

data, pixels = sys.stdin.buffer.read(), int(sys.argv[1])
decode_image(open(sys.argv[2], "rb").read(), name="x")
open("/proc/self/clear_refs", "w").write("5")
before = memory("VmRSS")
try:
    decode_image(data, name="x", max_pixels=pixels)
    print("read", end=" ")
except DataError as error:
    print("refused", end=" ")
print((memory("VmHWM") - before) / pixels)
"""
LARGE = {
    "RGB": (lambda side: bombs.png(side, side), "read"),
    "alpha": (lambda side: bombs.png(side, side, color=6, alpha=9), "read"),
    "grey of 16 bits": (lambda side: bombs.png(side, side, bits=16, color=0), "read"),
    "flat": (lambda side: bombs.png(65_500, side * side // 65_500), "read"),
    "turned": (lambda side: large(side, "RGB", "PNG", orientation=6), "read"),
    "floats": (lambda side: large(side, "F", "TIFF", compression="tiff_lzw"), "read"),
    "a progressive JPEG": (lambda side: large(side, "RGB", "JPEG", progressive=True), "read"),
    "one in inks": (lambda side: large(side, "CMYK", "JPEG", progressive=True), "refused"),
    "WebP": (lambda side: large(side, "RGB", "WEBP", lossless=True), "refused"),
}


def large(side, mode, file_format, *, orientation=1, **options):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encode(Image.new(mode, (side, side)), file_format, exif=exif, **options)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="measures as Linux does")
@pytest.mark.parametrize("kind", LARGE)
def test_decoding_takes_ten_bytes_a_pixel_at_most_or_is_refused(tmp_path, kind):
    make, outcome = LARGE[kind]
    side = 1000
    (tmp_path / "small.png").write_bytes(encode(Image.new("L", (9, 9)), "PNG"))
    command = [sys.executable, "-c", MEMORY, str(side * side), tmp_path / "small.png"]
    done = subprocess.run(command, input=make(side), capture_output=True, check=True)
    told, bytes_per_pixel = done.stdout.decode().split()
    assert told == outcome
    assert float(bytes_per_pixel) < 10 + 3e6 / side**2


def test_a_bomb_warning_turned_into_an_error_is_still_a_data_error(monkeypatch):
    data = encode(Image.new("RGB", (31, 20)), "PNG")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 599)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DataError, match="bomb.png"):
            decode_image(data, name="bomb.png")


def test_list_images_walks_a_folder_in_order(tmp_path):
    wanted = ["a.jpg", "b/a.PNG", "b/c/d.tiff", "z.webp"]
    others = [".hidden.jpg", ".cache/a.jpg", "b/._a.jpg", "notes.txt", "a.json", "b/jpg", "c.heic"]
    for name in (*wanted, *others):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.jpg").mkdir()
    assert list_images(tmp_path) == [tmp_path / name for name in wanted]
    assert list_images(str(tmp_path / "b")) == [tmp_path / name for name in wanted[1:3]]


def test_folders_are_searched_for_every_suffix_that_is_decoded():
    Image.init()
    readable = {*FORMATS, "MPO"}  # a JPEG with further pictures behind it
    known = {suffix for suffix, kind in Image.registered_extensions().items() if kind in readable}
    assert known | {".sr"} == set(IMAGE_SUFFIXES)


def names_below(root: Path) -> list[str]:
    return [path.relative_to(root).as_posix() for path in list_images(root)]


def test_linked_folders_are_followed_once_each(tmp_path, caplog):
    for name in ("root/own/a.png", "elsewhere/b.png", "elsewhere/deep/c.png", "root/.kept/d.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    root = tmp_path / "root"
    (root / "linked").symlink_to("../elsewhere")
    (root / "again").symlink_to("../elsewhere/deep")  # comes first, by name
    (root / "kept").symlink_to(".kept")  # hidden: there is no other way to it
    for name, target in {"up": "..", "self": ".", "twin": "own"}.items():
        (root / name).symlink_to(target)
    (tmp_path / "elsewhere" / "back").symlink_to(root)
    (tmp_path / "elsewhere" / "round").symlink_to(".")
    wanted = ["again/c.png", "kept/d.png", "linked/b.png", "own/a.png"]
    assert names_below(root) == wanted  # not linked/deep/c.png, which is again/c.png
    message = "left out: linked folders that are walked on another way (6), such as "
    assert message in caplog.text


def test_folders_may_be_deeper_than_the_stack(tmp_path):
    deep = tmp_path.joinpath(*["d"] * 300)
    deep.mkdir(parents=True)
    (deep / "a.png").touch()
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack(0)) + 150)
    try:
        assert list_images(tmp_path) == [deep / "a.png"]
    finally:
        sys.setrecursionlimit(limit)


def test_what_a_walk_leaves_out_is_told(tmp_path, caplog):
    for name in ("a.jpg", "b.heic", "c.txt", "d/e.avif", "\udcd6\udcd0.txt", ".hidden"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "broken.png").symlink_to("nothing")
    (tmp_path / "circle.png").symlink_to("circle.png")
    os.mkfifo(tmp_path / "pipe.png")
    assert names_below(tmp_path) == ["a.jpg"]
    assert sorted(record.getMessage() for record in caplog.records) == [
        f"{tmp_path}: left out: files without the suffix of an image (4), such as b.heic",
        f"{tmp_path}: left out: links that lead nowhere (2), such as broken.png",
        f"{tmp_path}: left out: pipes, devices and such (1), such as pipe.png",
    ]


def test_names_that_are_not_utf8_are_found(tmp_path):
    name = os.fsdecode(b"\xd6\xd0.png")
    (tmp_path / name).touch()
    assert list_images(tmp_path) == [tmp_path / name]


def test_list_images_below_a_hidden_folder(tmp_path):
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "a.jpg").touch()
    assert list_images(tmp_path / ".cache") == [tmp_path / ".cache" / "a.jpg"]


def test_list_images_gives_a_file_itself(tmp_path):
    (tmp_path / "photo").touch()
    assert list_images(tmp_path / "photo") == [tmp_path / "photo"]


def test_list_images_names_the_folder_and_the_suffixes(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(InputError, match="no image") as caught:
        list_images(tmp_path)
    assert str(tmp_path) in caught.value.message
    assert all(suffix in caught.value.hint for suffix in IMAGE_SUFFIXES)
    with pytest.raises(InputError, match="missing"):
        list_images(tmp_path / "missing")


def smooth(height: int, width: int) -> np.ndarray:
    """A picture without fine detail, so that all good resizes agree on it."""
    y, x = np.linspace(0, 3, height)[:, None], np.linspace(0, 4, width)[None, :]
    waves = [np.sin(x + y), np.cos(2 * x - y), np.sin(3 * y) * np.ones_like(x)]
    return ((np.stack(waves, -1) + 1) * 127).astype(np.uint8)


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_the_pixels_of_a_jpeg_are_those_of_pillow(mode, progressive, subsampling):
    for height, width in ((40, 60), (37, 53), (1, 1), (7, 300)):
        source = Image.fromarray(picture(height, width)).convert(mode)
        data = encode(source, "JPEG", progressive=progressive, subsampling=subsampling)
        expected = np.array(Image.open(io.BytesIO(data)).convert("RGB"))
        np.testing.assert_array_equal(decode_image(data, name="test"), expected)


def test_a_jpeg_with_rubbish_inside_reads_as_pillow_reads_it():
    data = encode(Image.fromarray(picture()), "JPEG")
    start = data.index(b"\xff\xdb")  # a table; the turbo decoder warns of bytes before it
    data = data[:start] + b"rubbish" + data[start:]
    expected = np.array(Image.open(io.BytesIO(data)))
    np.testing.assert_array_equal(decode_image(data, name="test"), expected)


@pytest.mark.parametrize(
    "at_least", [(1, 1), (50, 60), (50, 20), (101, 150), (400, 10), (900, 900)]
)
def test_a_jpeg_is_decoded_no_larger_than_needed(at_least):
    data = encode(Image.fromarray(smooth(400, 600)), "JPEG", quality=95)
    decoded = decode_image(data, name="test", at_least=at_least)
    eighth = round(8 * decoded.shape[0] / 400)
    assert decoded.shape == (eighth * 50, eighth * 75, 3)
    covers = [m * 50 >= at_least[0] and m * 75 >= at_least[1] for m in range(1, 9)]
    assert eighth == (covers.index(True) + 1 if any(covers) else 8)
    whole = decode_image(data, name="test")
    difference = resize(decoded, (40, 60)).astype(int) - resize(whole, (40, 60))
    assert np.abs(difference).mean() < 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_wanted_size_is_that_of_the_upright_picture(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(smooth(80, 160) if orientation < 5 else smooth(160, 80))
    data = encode(stored, "JPEG", exif=exif)
    decoded = decode_image(data, name="test", at_least=(20, 40))
    assert decoded.shape == (20, 40, 3)
    expected = resize(decode_image(data, name="test"), (20, 40))
    assert np.abs(decoded.astype(int) - expected).mean() < 3


def test_other_formats_ignore_the_wanted_size():
    data = encode(Image.fromarray(picture(40, 60)), "PNG")
    decoded = decode_image(data, name="test", at_least=(5, 5))
    np.testing.assert_array_equal(decoded, picture(40, 60))


@pytest.mark.parametrize("size", [(20, 30), (64, 64), (39, 60), (300, 20), (7, 300), (12, 20)])
def test_the_fast_resize_gives_nearly_the_exact_one(size):
    source = smooth(120, 200)
    fast, exact = resize_fast(source, size), resize(source, size)
    assert (fast.shape, fast.dtype) == ((*size, 3), np.uint8)
    assert np.abs(fast.astype(int) - exact).mean() < 3
    assert resize_fast(source, (120, 200)) is source


def test_the_fast_resize_averages_what_it_shrinks_a_lot():
    board = np.indices((90, 90)).sum(0) % 2 * 255  # black and white pixels by turns
    board = np.repeat(board[..., None], 3, axis=2).astype(np.uint8)
    shrunk = resize_fast(board, (30, 90))[:, 5:-5]
    assert abs(shrunk.mean() - 127.5) < 1
    assert np.abs(resize_fast(board, (30, 30)).astype(int) - 127.5).max() < 30


def test_the_fast_resize_takes_views():
    source = picture(60, 80)
    view = source[5:50, 10:70][:, ::-1]
    np.testing.assert_array_equal(resize_fast(view, (9, 9)), resize_fast(view.copy(), (9, 9)))
