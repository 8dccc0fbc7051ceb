"""Everything that people hand in for prediction, as a stream of pictures."""

import gc
import io
import itertools
import os
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
import warnings
import weakref
import zlib
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageSequence
from PIL.TiffImagePlugin import AppendingTiffWriter

from mlcls_jax.data.image_files import list_images
from mlcls_jax.data.images import read_image
from mlcls_jax.errors import DataError, InputError
from mlcls_jax.inference.image_inputs import expand
from mlcls_jax.inference.image_stream import Picture, read
from tests.helpers.web import serve


def picture(seed: int = 0, height: int = 20, width: int = 30) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def encode(image: Image.Image | np.ndarray, file_format: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    image.save(buffer, format=file_format, **options)
    return buffer.getvalue()


def multipage(pages: list[np.ndarray], **options) -> bytes:
    first, *rest = map(Image.fromarray, pages)
    return encode(first, "TIFF", save_all=True, append_images=rest, **options)


def pdf(sizes: list[tuple[float, float]]) -> bytes:
    """A PDF of pages of these sizes in points; the left half of each is red."""
    objects = [b"<< /Type /Catalog /Pages 2 0 R >>", b""]
    kids = []
    for width, height in sizes:
        drawing = b"1 0 0 rg 0 0 %g %g re f" % (width / 2, height)
        objects.append(b"<< /Length %d >> stream\n%b\nendstream" % (len(drawing), drawing))
        box = b"[0 0 %g %g]" % (width, height)
        contents = b"/MediaBox %b /Contents %d 0 R" % (box, len(objects))
        objects.append(b"<< /Type /Page /Parent 2 0 R %b >>" % contents)
        kids.append(b"%d 0 R" % len(objects))
    objects[1] = b"<< /Type /Pages /Count %d /Kids [%b] >>" % (len(kids), b" ".join(kids))
    data, places = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        places.append(len(data))
        data += b"%d 0 obj %b endobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    start, size = len(data), len(objects) + 1
    data += b"xref\n0 %d\n0000000000 65535 f \n%b" % (size, table)
    return data + b"trailer << /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF" % (size, start)


def only(source, **options) -> Picture:
    [found] = read(source, **options)
    return found


def image_of(source, **options) -> np.ndarray:
    found = only(source, **options)
    assert found.error is None
    return found.image


def error_of(source, **options) -> str:
    found = only(source, **options)
    assert found.image is None and found.prepared is None
    return found.error.message


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "mlcls-read"]


@pytest.fixture(autouse=True)
def no_thread_stays():
    yield
    deadline = time.monotonic() + 30
    while threads() and time.monotonic() < deadline:
        time.sleep(0.005)
    assert not threads()


# Kinds of input


def test_arrays():
    rgb = picture()
    np.testing.assert_array_equal(image_of(rgb), rgb)
    np.testing.assert_array_equal(image_of(rgb, bgr=True), rgb[..., ::-1])
    np.testing.assert_array_equal(image_of(rgb[::-2, ::3]), rgb[::-2, ::3])
    grey = rgb[..., 0]
    for form in (grey, grey[..., None]):
        for bgr in (False, True):
            np.testing.assert_array_equal(image_of(form, bgr=bgr), np.stack([grey] * 3, axis=-1))
    found = only(rgb)
    assert (found.name, found.page, found.prepared) == (None, None, None)
    assert found.image.flags.c_contiguous


def test_alpha_of_arrays_is_laid_over_white():
    array = np.uint8([[[200, 100, 0, 255], [200, 100, 0, 0], [200, 100, 0, 51]]])
    expected = [[[200, 100, 0], [255, 255, 255], [244, 224, 204]]]  # a fifth of it over white
    np.testing.assert_array_equal(image_of(array), expected)
    np.testing.assert_array_equal(image_of(array[..., [2, 1, 0, 3]], bgr=True), expected)


@pytest.mark.parametrize(
    "array",
    [
        picture().astype(np.float32),
        picture().astype(np.int64),
        picture() > 9,
        picture().transpose(2, 0, 1),
        picture()[None],
        picture()[..., :2],
        picture()[0, 0],
        picture()[:0],
        np.array(["a.jpg"]),
    ],
    ids=lambda array: f"{array.dtype}{array.shape}",
)
def test_other_arrays_are_errors_that_say_what_is_right(array):
    good, bad, after = read([picture(), array, picture()])
    assert good.error is after.error is None
    assert bad.error.message == f"input 1: an array {array.dtype} {list(array.shape)}"
    assert "uint8 [H, W, 3]" in bad.error.hint


def test_a_buffer_may_be_used_again():
    def camera():
        frame = np.zeros((4, 4, 3), np.uint8)
        for value in range(20):
            frame[:] = value
            yield frame

    assert [found.image.max() for found in read(camera())] == list(range(20))


def test_pil_images(tmp_path, monkeypatch):
    rgb = picture()
    np.testing.assert_array_equal(image_of(Image.fromarray(rgb)), rgb)
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "turned.png").write_bytes(encode(np.rot90(rgb).copy(), exif=exif))
    with Image.open(tmp_path / "turned.png") as image:
        np.testing.assert_array_equal(image_of(image), rgb)
    palette = Image.fromarray(rgb).quantize(16)
    np.testing.assert_array_equal(image_of(palette), np.asarray(palette.convert("RGB")))
    clear = Image.new("LA", (1, 1), (100, 51))
    np.testing.assert_array_equal(image_of(clear), [[[224, 224, 224]]])
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 599)
    assert "too large" in error_of(Image.fromarray(rgb))


def test_a_pil_image_may_come_again():
    colors = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    first, *rest = (Image.new("RGB", (8, 8), color) for color in colors)
    animation = Image.open(io.BytesIO(encode(first, "GIF", save_all=True, append_images=rest)))
    frames = read(ImageSequence.Iterator(animation))  # one object, at another frame each time
    assert [tuple(p.image[0, 0]) for p in frames] == colors
    unloaded = Image.open(io.BytesIO(encode(picture(0, 300, 300))))
    same = list(read([unloaded] * 20))
    assert all(np.array_equal(p.image, picture(0, 300, 300)) for p in same)
    cut = Image.open(io.BytesIO(encode(picture())[:-100]))
    bad, good = read([cut, picture()])
    assert bad.error.message.startswith("input 0: cannot be decoded") and good.error is None
    np.testing.assert_array_equal(image_of(Image.fromarray(picture()), bgr=True), picture())


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_bytes(kind):
    np.testing.assert_array_equal(image_of(kind(encode(picture()))), picture())
    assert error_of(kind(b"no picture")) == "the input: this is not an image, or it is damaged"
    assert error_of(kind(b"")) == "the input: the file is empty"


def test_paths(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(encode(picture()))
    for given_path in (path, str(path)):
        found = only(given_path)
        np.testing.assert_array_equal(found.image, picture())
        assert found == Picture(str(path), None, found.image, None, None)


class Upload:
    """What web frameworks hand out: no file of `io`, but one that can be read."""

    def __init__(self, data):
        self.data = data

    def read(self):
        return self.data


class AsyncUpload(Upload):
    async def read(self):
        return self.data


def test_file_objects_are_one_picture(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(encode(picture()))
    written = io.BytesIO()
    Image.fromarray(picture()).save(written, "PNG")  # and so at its end
    with path.open("rb") as file, path.open("rb", buffering=0) as raw:
        file.read(7)
        for stream, name in (
            (file, str(path)),
            (raw, str(path)),
            (io.BytesIO(path.read_bytes()), None),
            (written, None),
            (Upload(path.read_bytes()), None),
            (Upload(bytearray(path.read_bytes())), None),
        ):
            found = only(stream)
            np.testing.assert_array_equal(found.image, picture())
            assert found.name == name
    several = [picture(1), io.BytesIO(encode(picture(2))), {"img": io.BytesIO(encode(picture(3)))}]
    for number, found in enumerate(read(several), 1):
        np.testing.assert_array_equal(found.image, picture(number))
    scan = read(io.BytesIO(multipage([picture(0), picture(1)])))
    assert [p.page for p in scan] == [0, 1]


def test_file_objects_that_hold_no_bytes_are_told(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(encode(picture()))
    closed = io.BytesIO()
    closed.close()
    with path.open() as text:
        causes = [
            (text, f"{path}: was opened as text", 'mode "rb"'),
            (io.StringIO("x"), "was opened as text", 'mode "rb"'),
            (Upload("x"), "read() gives str, not bytes", "bytes"),
            (Upload(None), "read() gives NoneType, not bytes", "bytes"),
            (AsyncUpload(b""), "read() has to be awaited", "await"),
            (closed, "cannot be read: I/O operation on closed file", None),
            (io.BytesIO(b"x"), "this is not an image", "Readable formats"),
        ]
        *found, good = read([*(stream for stream, _, _ in causes), path])
    assert good.error is None
    for number, (p, (_, told, hint)) in enumerate(zip(found, causes, strict=True)):
        assert told in p.error.message
        assert p.error.message.startswith((f"input {number}: ", str(path)))
        assert hint is None or hint in p.error.hint


class Location:
    """A path that is no `pathlib.Path`."""

    def __init__(self, path):
        self.path = path

    def __fspath__(self):
        return self.path


def test_anything_that_has_a_path_is_one(tmp_path):
    (tmp_path / "a.png").write_bytes(encode(picture()))
    for source in (
        Location(str(tmp_path / "a.png")),
        Location(bytes(tmp_path / "a.png")),
        next(os.scandir(tmp_path)),
        [Location(str(tmp_path))],
    ):
        assert only(source).name == str(tmp_path / "a.png")


def test_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(encode(picture()))
    for source in ("~/in/a.png", Path("~/in/a.png"), "~/in", ["~/in/a.png"], "~/in/*.png"):
        found = only(source)
        assert (found.name, found.error) == (str(tmp_path / "in" / "a.png"), None)


def test_file_urls_are_paths(tmp_path):
    (tmp_path / "ä b#1.png").write_bytes(encode(picture()))
    path = str(tmp_path / "ä b#1.png")
    for source in (
        f"file://{path}",
        f"file://localhost{path}",
        f"FILE://{path}".replace("ä", "%C3%A4"),
        Path(path).as_uri(),
        tmp_path.as_uri(),
    ):
        assert only(source).name == path
    assert error_of(f"file://{tmp_path}/none.png") == f"{tmp_path}/none.png: there is no such file"
    told = error_of(f"file://elsewhere{path}")
    assert told == f"file://elsewhere{path}: a file of another host, elsewhere, cannot be read"


def test_patterns_are_expanded(tmp_path):
    for name in ("b.png", "a.png", "c.jpg", "sub/a.png", "sub/.h.png", "x[1].png", "x1.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(encode(picture()))

    def names(pattern):
        return [p.name.removeprefix(f"{tmp_path}/") for p in read(f"{tmp_path}/{pattern}")]

    assert names("*.png") == ["a.png", "b.png", "x1.png", "x[1].png"]
    assert names("**/a.png") == ["a.png", "sub/a.png"]
    assert names("?.jpg") == ["c.jpg"]
    assert names("su*") == ["sub/a.png"]
    assert names("x[1].png") == ["x[1].png"]  # there is a file of that very name
    missing, good = read([f"{tmp_path}/*.webp", str(tmp_path / "a.png")])
    assert good.error is None
    assert missing.error.message == f"{tmp_path}/*.webp: no file has this name or matches it"
    assert "no such file" in error_of(Path(f"{tmp_path}/*.png"))
    assert error_of("a\0*.png")


def test_dicts_hold_one_of_these(tmp_path):
    (tmp_path / "a.png").write_bytes(encode(picture()))
    assert only({"img": str(tmp_path)}).name == str(tmp_path / "a.png")
    found = list(read([{"img": picture(1)}, picture(2)]))
    np.testing.assert_array_equal([p.image for p in found], [picture(1), picture(2)])
    np.testing.assert_array_equal(image_of({"img": [picture(3)]}), picture(3))
    with pytest.raises(InputError, match="the input: unknown key 'image'"):
        read({"image": picture()})
    with pytest.raises(InputError, match="unknown key 'threshold'"):
        read({"img": picture(), "threshold": 0.5})
    with pytest.raises(InputError, match='without the key "img"'):
        read({})
    with pytest.raises(InputError, match="input 1: unknown key 'image'"):
        list(read([picture(), {"image": picture()}]))


class HasArray:
    def __array__(self, *_):
        return picture()

    def __iter__(self):
        return iter(picture())


def test_tensors_are_told_with_the_way_out():
    tensor = jax.numpy.zeros((4, 4, 3), "uint8")
    for source, place in ((tensor, "the input"), ([tensor], "input 0")):
        with pytest.raises(InputError, match=f"^{place}: .*ArrayImpl is not a picture\n") as caught:
            list(read(source))
        assert "np.asarray" in caught.value.hint and "[3, H, W]" in caught.value.hint


@pytest.mark.parametrize("source", [None, 3, 2.5, object(), {"img": None}, HasArray()])
def test_an_unknown_kind_fails_before_iteration(source):
    with pytest.raises(InputError, match="the input: .* is not a picture") as caught:
        read(source)
    assert caught.value.hint


@pytest.mark.parametrize("element", [None, 3, [picture()], {"img": [picture()]}, HasArray()])
def test_an_unknown_kind_in_a_list_fails_in_its_turn(element):
    pictures = read([picture(0), picture(1), element, picture(2)])
    assert all(next(pictures).error is None for _ in range(2))
    with pytest.raises(InputError, match="input 2: .* is not a picture"):
        next(pictures)
    assert list(pictures) == []


@pytest.mark.parametrize("kind", [list, tuple, iter])
def test_several_of_several_kinds(tmp_path, kind):
    (tmp_path / "folder").mkdir()
    for name in ("a.png", "folder/b.png", "folder/c.png"):
        (tmp_path / name).write_bytes(encode(picture()))
    parts = [picture(), tmp_path / "folder", encode(picture()), str(tmp_path / "a.png")]
    names = [None, tmp_path / "folder/b.png", tmp_path / "folder/c.png", None, tmp_path / "a.png"]
    found = list(read(kind(parts)))
    assert [p.name for p in found] == [name and str(name) for name in names]
    assert all(np.array_equal(p.image, picture()) for p in found)
    assert list(read(kind([]))) == []


def test_options_out_of_range():
    for options in ({"threads": 0}, {"ahead": 0}):
        with pytest.raises(ValueError, match="1 or more"):
            read([], **options)


# Folders


name = st.sampled_from(
    ["a", "b", "B", "a.b", "a-b", "é", ".a", "a.jpg", "b.PNG", "c.txt", ".d.jpg"]
)


@settings(max_examples=40, deadline=None)
@given(st.sets(st.lists(name, min_size=1, max_size=4).map("/".join), min_size=1, max_size=12))
def test_folders_are_walked_as_list_images_sorts(tmp_path_factory, files):
    root = tmp_path_factory.mktemp("walk")
    for file in files:
        try:
            (root / file).parent.mkdir(parents=True, exist_ok=True)
            (root / file).touch()
        except OSError:
            continue  # a name is taken by a file where this one needs a folder, or the reverse
    # Sorted here, independently of what walks.
    wanted = sorted(
        path
        for path in root.rglob("*")
        if path.is_file()
        and path.suffix.lower() in (".jpg", ".png")
        and not any(part.startswith(".") for part in path.relative_to(root).parts)
    )
    if wanted:
        assert list_images(root) == wanted
        assert [item.content for item in expand(root)] == wanted
    else:
        with pytest.raises(InputError, match="no image in this folder"):
            list(expand(root))


def test_links_to_files_and_folders_are_followed(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "x.png").write_bytes(encode(picture()))
    root = tmp_path / "root"
    root.mkdir()
    (root / "link.png").symlink_to(tmp_path / "elsewhere" / "x.png")
    (root / "folder").symlink_to(tmp_path / "elsewhere")
    (root / "broken.png").symlink_to(tmp_path / "nothing")
    wanted = [str(root / "folder" / "x.png"), str(root / "link.png")]
    assert [p.name for p in read(root)] == wanted == [*map(str, list_images(root))]


def test_a_folder_without_images_fails_in_its_turn(tmp_path):
    (tmp_path / "notes.txt").touch()
    pictures = read([picture(), tmp_path])
    assert next(pictures).error is None
    with pytest.raises(InputError, match="no image in this folder") as caught:
        next(pictures)
    assert str(tmp_path) in caught.value.message and ".jpg" in caught.value.hint


def test_folders_are_entered_only_when_it_is_their_turn(tmp_path):
    for folder in "abc":
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.png").write_bytes(encode(picture()))
    items = expand(tmp_path)
    assert next(items).name == str(tmp_path / "a" / "x.png")
    (tmp_path / "c" / "y.png").touch()  # after the walk has begun
    shutil.rmtree(tmp_path / "b")
    gone, *rest = items
    assert isinstance(gone.content, DataError) and str(tmp_path / "b") in gone.content.message
    assert [item.name for item in rest] == [str(tmp_path / "c" / n) for n in ("x.png", "y.png")]


# Documents


@pytest.mark.parametrize("options", [{}, {"compression": "tiff_lzw"}, {"compression": "jpeg"}])
@pytest.mark.parametrize("form", ["path", "bytes"])
def test_the_pages_of_a_tiff(tmp_path, form, options):
    pages = [picture(i, 16 + i, 24) for i in range(6)]
    path = tmp_path / "scan.tif"
    path.write_bytes(multipage(pages, **options))
    source = path if form == "path" else path.read_bytes()
    before, *found, after = read([picture(), source, picture()], threads=3, ahead=2)
    assert before.page is after.page is None
    assert [p.page for p in found] == list(range(6))
    assert {p.name for p in found} == {str(path) if form == "path" else None}
    with Image.open(path) as image:
        for p in found:
            image.seek(p.page)
            np.testing.assert_array_equal(p.image, np.array(image.convert("RGB")))
            assert p.image.shape == pages[p.page].shape


def test_a_tiff_of_one_page_has_no_page_number(tmp_path):
    (tmp_path / "a.tiff").write_bytes(multipage([picture()]))
    found = only(tmp_path / "a.tiff")
    assert found.page is None
    np.testing.assert_array_equal(found.image, picture())


def test_each_page_of_a_tiff_is_turned_by_its_own_orientation(tmp_path):
    upright = picture()
    stored = {1: upright, 3: upright[::-1, ::-1], 6: np.rot90(upright), 8: np.rot90(upright, -1)}
    buffer = io.BytesIO()
    with AppendingTiffWriter(buffer, new=True) as writer:
        for orientation, pixels in stored.items():
            page = Image.fromarray(np.ascontiguousarray(pixels))
            page.save(writer, format="TIFF", tiffinfo={0x0112: orientation})
            writer.newFrame()
    found = list(read(buffer.getvalue(), threads=2))
    assert [p.page for p in found] == [0, 1, 2, 3]
    for p in found:
        np.testing.assert_array_equal(p.image, upright)


def tiff_of(subfile_types: list[int]) -> bytes:
    """A TIFF of grey 1 x 1 frames, whose values are 0, 1, 2 …"""
    data = b"II*\0" + struct.pack("<I", 8)
    for value, kind in enumerate(subfile_types):
        start = len(data)
        tags = [(254, 4, kind), (256, 3, 1), (257, 3, 1), (258, 3, 8), (259, 3, 1), (262, 3, 1)]
        end = start + 2 + 12 * (len(tags) + 3) + 4
        tags += [(273, 4, end), (278, 3, 1), (279, 4, 1)]
        data += struct.pack("<H", len(tags))
        data += b"".join(struct.pack("<HHII", tag, type_, 1, v) for tag, type_, v in tags)
        is_last = value == len(subfile_types) - 1
        data += struct.pack("<I", 0 if is_last else end + 2) + bytes([value, 0])
    return data


def test_smaller_copies_and_masks_are_no_pages():
    found = list(read(tiff_of([0, 1, 2, 4, 2, 5])))
    assert [(p.page, int(p.image[0, 0, 0])) for p in found] == [(0, 0), (1, 2), (2, 4)]
    pyramid = only(tiff_of([0, 1, 1]))
    assert (pyramid.page, pyramid.image.tolist()) == (None, [[[0, 0, 0]]])


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, about tags
@pytest.mark.parametrize("options", [{}, {"compression": "tiff_lzw"}])
@pytest.mark.parametrize("kept", [0.3, 0.5, 0.6, 0.8, 0.99])
def test_of_a_tiff_cut_off_the_whole_pages_are_read(tmp_path, kept, options):
    pages = [picture(i) for i in range(4)]
    data = multipage(pages, **options)
    path = tmp_path / "cut.tif"
    path.write_bytes(data[: int(len(data) * kept)])
    *whole, broken = [p for p in read(path, threads=4) if p.error is None or p.page is not None]
    for index, p in enumerate(whole):
        if p.error is None:
            assert p.page == index
            np.testing.assert_array_equal(p.image, pages[index])
    assert whole[0].error is None
    assert f"{path}, page {broken.page + 1} of " in broken.error.message


def test_a_broken_page_behind_a_mask_is_not_taken_for_the_mask():
    known, unknown = (struct.pack("<HHII", 258, 3, 1, bits) for bits in (8, 7))
    before, _, after = tiff_of([4, 2]).rpartition(known)
    assert "cannot be decoded" in error_of(before + unknown + after)


@pytest.mark.parametrize("broken", [1, 2])
def test_a_page_that_pillow_does_not_know_is_an_error_and_the_rest_goes_on(broken):
    known, unknown = (struct.pack("<HHII", 258, 3, 1, bits) for bits in (8, 7))
    first, *tails = tiff_of([2, 2, 2]).split(known)
    marks = [unknown if page == broken else known for page in range(3)]
    data = first + b"".join(mark + tail for mark, tail in zip(marks, tails, strict=True))
    for order in (1, 3):  # one thread, and several that come for the pages in any order
        found = list(read(data, threads=order))
        assert [p.page for p in found] == [0, 1, 2]
        for page, p in enumerate(found):
            if page == broken:
                assert f"the input, page {page + 1} of 3: " in p.error.message
            else:
                np.testing.assert_array_equal(p.image, [[[page] * 3]])


def test_the_pages_of_a_pdf(tmp_path):
    path = tmp_path / "doc.pdf"
    path.write_bytes(pdf([(100, 60), (40, 80), (30.5, 20)]))
    found = list(read(path))
    assert [(p.name, p.page, p.image.shape) for p in found] == [
        (str(path), 0, (120, 200, 3)),  # two pixels a point
        (str(path), 1, (160, 80, 3)),
        (str(path), 2, (40, 61, 3)),
    ]
    for p in found[:2]:
        middle = p.image.shape[1] // 2
        assert (p.image[:, : middle - 1] == (255, 0, 0)).all()
        assert (p.image[:, middle + 1 :] == 255).all()
        p.image[:] = 0  # it is ours, not PDFium's
    [one] = read(pdf([(9, 9)]))
    assert (one.name, one.page) == (None, 0)


def test_large_pages_of_a_pdf_are_rendered_smaller():
    poster, flat = read(pdf([(14000, 14000), (14000, 1)]))
    assert 4000 <= poster.image.shape[0] == poster.image.shape[1] <= 4097
    assert flat.image.shape == (2, 28000, 3)


def test_pdfs_in_many_threads_are_rendered_one_at_a_time(tmp_path):
    sizes = [(20 + i, 30) for i in range(12)]
    for index in range(4):
        (tmp_path / f"{index}.pdf").write_bytes(pdf(sizes))
    found = list(read(sorted(tmp_path.iterdir()), threads=8, ahead=16))
    assert [p.image.shape[1] for p in found] == [2 * (20 + i) for i in range(12)] * 4


def test_broken_pdfs(tmp_path):
    (tmp_path / "broken.pdf").write_bytes(b"%PDF-1.7\nnothing else")
    (tmp_path / "text.pdf").write_bytes(b"nothing")
    sources = [tmp_path / f"{name}.pdf" for name in ("broken", "text", "missing")]
    found = list(read([*sources, picture()]))
    for p, source, cause in zip(
        found, sources, ("this PDF cannot be read", "not an image", "no such file"), strict=False
    ):
        assert p.name == str(source) and p.error.message.startswith(f"{source}: {cause}"[:40])
        assert cause in p.error.message
    assert found[-1].error is None


def test_a_pdf_without_pages_is_an_error():
    [found] = read(pdf([]))
    assert found.error.message.startswith("the input: this PDF cannot be read")


def test_without_keep_image_only_what_was_prepared_stays():
    image = np.zeros((4, 6, 3), np.uint8)
    [found] = read(image, prepare=np.shape, keep_image=False)
    assert (found.image, found.prepared) == (None, (4, 6, 3))


def test_pdf_needs_its_extra(tmp_path):
    program = f"""
import sys
sys.modules["pypdfium2"] = None
from mlcls_jax.inference.image_stream import read
[found] = read({pdf([(9, 9)])!r})
print(type(found.error).__name__, found.error.hint)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    hint = 'Install it: pip install -e ".[pdf]"'
    assert done.stdout.strip() == f"InputError {hint}", done.stderr


def test_pages_are_taken_up_as_they_are_asked_for():
    started = []
    pages = [np.full((4, 4, 3), i, np.uint8) for i in range(60)]
    prepare = lambda image: started.append(int(image[0, 0, 0]))  # noqa: E731
    pictures = read(multipage(pages), prepare=prepare, ahead=5, threads=3)
    for number, _ in enumerate(pictures, 1):
        assert len(started) <= number + 5
    assert len(started) == 60


# URLs


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    (folder / "a.png").write_bytes(encode(picture()))
    (folder / "no-suffix").write_bytes(encode(picture()))
    (folder / "scan.tif").write_bytes(multipage([picture(1), picture(2)]))
    (folder / "doc.pdf").write_bytes(pdf([(10, 10), (20, 10)]))
    (folder / "page.html").write_text("<html></html>")
    with serve(folder) as server:
        yield server.url


def test_urls(site):
    urls = [f"{site}/{path}" for path in ("a.png", "no-suffix", "scan.tif", "doc.pdf")]
    found = list(read(urls))
    numbered = [(0, None), (1, None), (2, 0), (2, 1), (3, 0), (3, 1)]
    assert [(p.name, p.page) for p in found] == [(urls[i], page) for i, page in numbered]
    for p, expected in zip(found, [picture(), picture(), picture(1), picture(2)], strict=False):
        np.testing.assert_array_equal(p.image, expected)
    assert [p.image.shape for p in found[4:]] == [(20, 20, 3), (20, 40, 3)]


def test_urls_that_fail(site):
    causes = {
        f"{site}/missing.png": "404",
        f"{site}/page.html": "not an image",
        "s3://bucket/a.png": "not supported",
        "HTTP://127.0.0.1:1/a.png": "(?i)refused",
    }
    *found, good = read([*causes, f"{site}/a.png"])
    assert good.error is None
    for p, (url, cause) in zip(found, causes.items(), strict=True):
        assert p.name == url
        with pytest.raises(InputError if "html" not in url else DataError, match=cause):
            raise p.error
        assert p.error.message.lower().startswith(url.lower())


def test_passwords_of_urls_are_not_told(site):
    url = site.replace("//", "//ann:secret@") + "/page.html"
    found = only(url)
    assert found.name == url and "secret" not in found.error.message


# Errors


def test_the_rest_goes_on_after_what_cannot_be_read(tmp_path):
    (tmp_path / "text.jpg").write_text("text")
    (tmp_path / "cut.jpg").write_bytes(encode(picture(), "JPEG")[:-100])
    (tmp_path / "cut.tif").write_bytes(encode(picture(), "TIFF")[:-100])
    (tmp_path / "empty.png").touch()
    bad = [*sorted(tmp_path.iterdir()), tmp_path / "missing.jpg", "a\0b.jpg", "x" * 5000]
    mixed = list(itertools.chain.from_iterable((picture(), path) for path in bad))
    found = list(read(mixed))
    assert len(found) == len(mixed)
    for p, source in zip(found, mixed, strict=True):
        if isinstance(source, np.ndarray):
            assert p.error is None
        else:
            assert p.image is None and p.name == str(source)
            assert str(source) in p.error.message
            # Else the error would keep the file's content in memory.
            assert p.error.__traceback__ is p.error.__cause__ is None


def test_large_pictures_are_refused_from_their_header(tmp_path, monkeypatch):
    path = tmp_path / "bomb.png"
    data = bytearray(encode(Image.new("L", (9, 9))))
    data[16:24] = struct.pack(">II", 30_000, 30_000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    path.write_bytes(data)
    assert "bomb.png: too large" in error_of(path)
    for file_format in ("PNG", "JPEG", "TIFF", "GIF", "WEBP"):
        data = encode(picture(), file_format)
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 599)
        assert "30 x 20 pixels, above the limit of 599" in error_of(data)
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 600)
        assert only(data).error is None
    pages = read(multipage([picture(0), picture(0, 20, 31)]))
    assert [p.error is None for p in pages] == [True, False]


def test_an_error_of_the_source_comes_after_what_was_before_it():
    def source():
        yield picture(0)
        yield picture(1)
        raise ZeroDivisionError

    pictures = read(source())
    assert [next(pictures).error for _ in range(2)] == [None, None]
    with pytest.raises(ZeroDivisionError):
        next(pictures)


# Order, look-ahead, threads


def test_prepare_is_called_in_the_threads():
    names = []

    def prepare(image):
        names.append(threading.current_thread().name)
        return image.sum()

    found = list(read([picture(i) for i in range(9)], prepare=prepare))
    assert [p.prepared for p in found] == [picture(i).sum() for i in range(9)]
    assert set(names) == {"mlcls-read"}


def test_errors_of_prepare():
    def prepare(image):
        if image[0, 0, 0] == 1:
            raise InputError("too dark")
        if image[0, 0, 0] == 2:
            raise ZeroDivisionError
        return True

    pictures = read([np.full((1, 1, 3), i, np.uint8) for i in range(4)], prepare=prepare)
    assert next(pictures).prepared is True
    dark = next(pictures)
    assert (dark.image, dark.error.message) == (None, "too dark")
    with pytest.raises(ZeroDivisionError):  # a fault of the program, not of the picture
        next(pictures)


@settings(max_examples=30, deadline=None)
@given(
    delays=st.lists(st.integers(0, 3), max_size=40),
    count=st.integers(1, 9),
    ahead=st.integers(1, 40),
    pages=st.integers(1, 4),
)
def test_order_is_kept_whatever_takes_how_long(delays, count, ahead, pages):
    def prepare(image):
        time.sleep(delays[image[0, 0, 0]] / 1000)
        return int(image[0, 0, 0]), int(image[0, 0, 1])

    def document(index):
        frames = [np.full((1, 1, 3), (index, page, 0), np.uint8) for page in range(pages)]
        return multipage(frames) if index % 3 == 0 else frames[0]

    sources = (document(index) for index in range(len(delays)))
    found = [p.prepared for p in read(sources, prepare=prepare, threads=count, ahead=ahead)]
    assert found == [
        (index, page)
        for index in range(len(delays))
        for page in range(pages if index % 3 == 0 else 1)
    ]


@pytest.mark.parametrize("ahead", [1, 2, 7, 32])
@pytest.mark.parametrize("pause", [0, 0.002])
def test_the_source_is_asked_only_so_far_ahead(ahead, pause):
    consumed = 0

    def endless():
        nonlocal consumed
        while True:
            consumed += 1
            yield np.zeros((2, 2, 3), np.uint8)

    pictures = read(endless(), ahead=ahead, threads=3)
    for number in range(1, 60):
        next(pictures)
        assert number <= consumed <= number + ahead - 1
        time.sleep(pause)
    pictures.close()


def test_decoding_runs_ahead_of_the_consumer():
    meeting = threading.Barrier(4, timeout=30)  # passes only when four are at it at once
    pictures = read([picture()] * 8, prepare=lambda _: meeting.wait(), threads=4, ahead=4)
    assert all(p.error is None for p in pictures)


def test_a_slow_source_is_not_waited_for_before_the_first_is_given():
    second_begun, first_given = threading.Event(), threading.Event()

    def prepare(image):
        if image[0, 0, 0] == 1:
            second_begun.set()  # in the only thread: so the first is done

    def camera():
        yield np.full((1, 1, 3), 0, np.uint8)
        yield np.full((1, 1, 3), 1, np.uint8)
        assert second_begun.wait(30)
        yield np.full((1, 1, 3), 2, np.uint8)
        assert first_given.wait(30)  # never, if more were wanted before the first is given
        yield np.full((1, 1, 3), 3, np.uint8)

    pictures = read(camera(), prepare=prepare, threads=1, ahead=32)
    assert next(pictures).image.max() == 0
    first_given.set()
    assert [p.image.max() for p in pictures] == [1, 2, 3]


def test_pictures_are_let_go():
    alive = weakref.WeakSet()

    class Tracked:
        pass

    def prepare(_):
        tracked = Tracked()
        alive.add(tracked)
        return tracked

    pictures = read((picture() for _ in range(200)), prepare=prepare, threads=4, ahead=6)
    most = 0
    for _ in pictures:
        most = max(most, len(alive))
    assert most <= 6 + 4 + 2  # ahead, in the threads' hands, and the consumer's last two


def test_leaving_early_ends_the_threads():
    consumed = itertools.count()
    source = (picture(next(consumed)) for _ in itertools.repeat(None))
    for p in read(source, threads=4):
        assert p.error is None and 1 <= len(threads()) <= 4
        break
    gc.collect()
    assert next(consumed) <= 40  # `no_thread_stays` looks for the threads


def test_an_error_of_the_consumer_ends_the_threads():
    with pytest.raises(ZeroDivisionError):
        for _ in read([picture()] * 100, threads=4):
            raise ZeroDivisionError


def test_waiting_jobs_are_dropped_on_leaving():
    full, release, begun = threading.Event(), threading.Event(), []

    def source():
        for number in range(100):
            if number == 49:
                full.set()
            yield np.full((1, 1, 3), number, np.uint8)

    def prepare(image):
        begun.append(image)
        (full if image[0, 0, 0] == 0 else release).wait(30)

    pictures = read(source(), prepare=prepare, threads=2, ahead=50)
    next(pictures)
    pictures.close()  # returns, although both threads are held up
    release.set()
    deadline = time.monotonic() + 30
    while threads() and time.monotonic() < deadline:
        time.sleep(0.005)
    assert len(begun) <= 4


@pytest.mark.skipif(sys.platform == "win32", reason="sends a signal of POSIX")
def test_ctrl_c_ends_the_program_although_a_thread_hangs():
    program = """
import threading
import numpy as np
from mlcls_jax.inference.image_stream import read

def hang(image):
    print("hanging", flush=True)
    threading.Event().wait()

for picture in read([np.zeros((1, 1, 3), np.uint8)] * 5, prepare=hang, threads=1):
    pass
"""
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            assert process.stdout.readline() == b"hanging\n"
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    assert b"KeyboardInterrupt" in errors
    assert process.returncode == -signal.SIGINT


@pytest.mark.slow
def test_the_program_may_end_while_a_pdf_is_rendered(tmp_path):
    (tmp_path / "doc.pdf").write_bytes(pdf([(2000, 2000)] * 50))
    program = f"""
from mlcls_jax.inference.image_stream import read
pictures = read({str(tmp_path / "doc.pdf")!r})
print(next(pictures).page)
"""
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
        assert (done.returncode, done.stdout, done.stderr) == (0, "0\n", "")


def test_files_are_closed(tmp_path):
    path = tmp_path / "scan.tif"
    path.write_bytes(multipage([picture(i) for i in range(3)]))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert len(list(read([path, path]))) == 6
        gc.collect()
    assert [str(w.message) for w in caught if w.category is ResourceWarning] == []


def test_a_prepared_picture_equals_that_of_read_image(tmp_path):
    for seed in range(5):
        (tmp_path / f"{seed}.jpg").write_bytes(encode(picture(seed), "JPEG"))
    for p in read(tmp_path):
        np.testing.assert_array_equal(p.image, read_image(Path(p.name)))
