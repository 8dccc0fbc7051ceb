"""Data sets with something wrong or odd, and what the check says about each."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from tests.helpers.photos import cells, write_image, write_lines, write_photos

Spoil = Callable[[Path], object]  # breaks the data set in a folder

IMAGE = "images/train_1.png"  # the one that is spoilt: line 2 of train.txt, a dog


class Broken(NamedTuple):
    """One fault in a good data set."""

    name: str
    spoil: Spoil
    found: list[tuple[str, str, str]]  # kind, place and a piece of the message
    pixels: bool = False  # whether it takes decoding to see it


def write_good(root: Path) -> Path:
    """Six images to train on and three to validate with; every label is in both lists."""
    write_photos(root, train=6, val=3)
    for i in range(3):
        write_image(root / f"images/val_{i}.png", seed=100 + i)  # not those of train_0, 1, 2
    return root


def labels(*lines: str) -> Spoil:
    return lambda root: write_lines(root / "label.txt", lines)


def line(number: int, text: str, *, file: str = "train.txt") -> Spoil:
    """Replaces a line; one past the last is added."""

    def spoil(root: Path) -> None:
        lines = (root / file).read_text().splitlines()
        lines[number - 1 : number] = [text]
        write_lines(root / file, lines)

    return spoil


def rewrite(file: str, change: Callable[[bytes], bytes]) -> Spoil:
    return lambda root: (root / file).write_bytes(change((root / file).read_bytes()))


def both(*spoils: Spoil) -> Spoil:
    return lambda root: [spoil(root) for spoil in spoils]


def copy(source: str, target: str) -> Spoil:
    return lambda root: (root / target).write_bytes((root / source).read_bytes())


def move(source: str, target: str) -> Spoil:
    return lambda root: (root / source).rename(root / target)


def remove(file: str) -> Spoil:
    return lambda root: (root / file).unlink()


def replace_by_folder(file: str) -> Spoil:
    return both(remove(file), lambda root: (root / file).mkdir())


def picture(content: bytes) -> Spoil:
    """Replaces an image."""
    return rewrite(IMAGE, lambda _: content)


def encode(image: Image.Image, file_format: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, file_format, **options)
    return stream.getvalue()


def photo(mode: str = "RGB", *, seed: int = 9) -> Image.Image:
    """A smooth picture of 160 x 120."""
    return cells(seed, (120, 160), Image.Resampling.BICUBIC).convert(mode)


def put(data: bytes, start: int, value: bytes) -> bytes:
    return data[:start] + value + data[start + len(value) :]


def png_chunk(kind: bytes, data: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(kind + data))
    return struct.pack(">I", len(data)) + kind + data + checksum


def png(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds no pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(b""))
    return b"\x89PNG\r\n\x1a\n" + chunks + png_chunk(b"IEND", b"")


def exif(orientation: int) -> Image.Exif:
    data = Image.Exif()
    data[0x0112] = orientation
    return data


def large(file: str) -> Spoil:
    """Replaces an image by one that is too large to be read at once where only headers count."""
    return lambda root: write_image(root / file, seed=7, size=(200, 200))


def link_out(name: str) -> Spoil:
    """Moves a file or folder out of the data set and leaves a link."""

    def spoil(root: Path) -> None:
        outside = root.parent / "outside"
        (root / name).rename(outside)
        (root / name).symlink_to(outside)

    return spoil


def extra(values: str) -> Spoil:
    """Adds an image to train.txt."""
    return both(
        lambda root: write_image(root / "images/extra.png", seed=99),
        line(7, f"images/extra.png\t{values}"),
    )


def unlisted(split: str, count: int) -> list[tuple[str, str, str]]:
    return [("unlisted", f"images/{split}_{i}.png", "is in no list") for i in range(count)]


def cut_off(name: str, file_format: str, *, share: float = 0.6, **options: object) -> Broken:
    data = encode(photo(), file_format, **options)
    found = [("damaged", "train.txt:2", f"{IMAGE}: ")]
    return Broken(name, picture(data[: int(len(data) * share)]), found)


_FRAMES = [photo("P", seed=seed) for seed in (1, 2)]
_DARK = np.arange(400, dtype=np.uint16).reshape(20, 20)
_JPEG, _PNG, _BMP = (encode(photo(), name) for name in ("JPEG", "PNG", "BMP"))
_UNSEEN = [("unlisted", IMAGE, "is in no list")]

IN_LABEL_FILE = [
    Broken(
        "no label.txt",
        remove("label.txt"),
        [("missing_file", "label.txt", "there is no such file")],
    ),
    Broken(
        "label.txt is a folder",
        replace_by_folder("label.txt"),
        [("unreadable_file", "label.txt", "cannot be read: Is a directory")],
    ),
    Broken("an empty label.txt", labels(), [("empty_labels", "label.txt", "is empty")]),
    Broken(
        "a label without index",
        labels("0 cat", "dog", "2 bird"),
        [("label_line", "label.txt:2", "'dog' is not `<index> <name>`")],
    ),
    Broken(
        "a TAB in a label's line",
        labels("0 cat", "1\tdog", "2 bird"),
        [("label_line", "label.txt:2", r"'1\tdog' is not `<index> <name>`")],
    ),
    Broken(
        "an index without end",
        labels("0 cat", "1 dog", f"{'2' * 5000} bird"),
        [("label_line", "label.txt:3", "'2222")],
    ),
    Broken(
        "an index twice",
        labels("0 cat", "1 dog", "1 bird"),
        [("label_index", "label.txt:3", "index 1 was given before")],
    ),
    Broken(
        "a name twice",
        labels("0 cat", "1 dog", "2 cat"),
        [("label_name", "label.txt:3", "the name 'cat' was given before")],
    ),
    Broken(
        "a parent that is no label",
        labels("0 cat\tparent=pet", "1 dog", "2 bird"),
        [("label_parent", "label.txt:1", "the parent 'pet' is no label")],
    ),
    Broken(
        "a parent that its label excludes",
        labels("0 cat\tgroup=kind", "1 dog\tparent=cat", "2 bird\tparent=dog\tgroup=kind"),
        [("label_parent", "label.txt:3", "'bird' excludes 'cat', of which it is a kind")],
    ),
    Broken(
        "labels against their groups",
        both(
            labels("0 cat\tgroup=kind", "1 dog\tgroup=kind", "2 bird\tparent=dog"),
            line(2, "images/train_1.png\t1,1,0"),
            line(3, "images/train_2.png\t0,0,1"),
        ),
        [
            ("against_groups", "train.txt:2", "has 'cat' and 'dog', of which there can be one"),
            ("against_groups", "train.txt:3", "has 'bird', but not 'dog', of which it is a kind"),
            ("against_groups", "train.txt:6", "has 'bird', but not 'dog', of which it is a kind"),
            ("against_groups", "val.txt:3", "has 'bird', but not 'dog', of which it is a kind"),
        ],
    ),
    Broken(
        "a gap in the indices",
        labels("0 cat", "1 dog", "3 bird"),
        [("label_gap", "label.txt", "missing: 2")],
    ),
    Broken(
        "COCO's category ids for indices",
        labels("1 cat", "2 dog", "4 bird"),
        [("label_start", "label.txt", "missing: 0, 3")],
    ),
    Broken(
        "a gap beside another fault",
        labels("0 cat", "0 dog", "7 bird"),
        [
            ("label_index", "label.txt:2", "index 0 was given before"),
            ("label_gap", "label.txt", "missing: 1, 2, 3, 4, 5, 6"),
        ],
    ),
    Broken(
        "label.txt in Latin-1",
        rewrite("label.txt", lambda data: data.replace(b"dog", b"Kr\xf6te")),
        [("not_utf8", "label.txt:2", "can't decode byte 0xf6")],
    ),
    Broken(
        "label.txt from Windows",
        rewrite("label.txt", lambda data: b"\xef\xbb\xbf" + data.replace(b"\n", b"\r\n")),
        [("bom", "label.txt:1", "byte order mark"), ("line_ends", "label.txt:1", "CR LF")],
    ),
]

IN_LISTS = [
    Broken(
        "no train.txt",
        remove("train.txt"),
        [("missing_file", "train.txt", "there is no such file"), *unlisted("train", 6)],
    ),
    Broken(
        "val.txt is a folder",
        replace_by_folder("val.txt"),
        [("unreadable_file", "val.txt", "cannot be read: Is a directory"), *unlisted("val", 3)],
    ),
    Broken(
        "an empty val.txt",
        rewrite("val.txt", lambda _: b""),
        [("empty_list", "val.txt", "lists no images"), *unlisted("val", 3)],
    ),
    Broken(
        "a val.txt of blank lines",
        rewrite("val.txt", lambda _: b"\n \t\n"),
        [
            ("empty_list", "val.txt", "lists no images"),
            ("blank_line", "val.txt:1", "is blank"),
            ("blank_line", "val.txt:2", "is blank"),
            *unlisted("val", 3),
        ],
    ),
    Broken(
        "too few values",
        line(2, f"{IMAGE}\t0,1"),
        [("columns", "train.txt:2", "2 values, but there are 3 labels")],
    ),
    Broken(
        "too many values",
        line(2, f"{IMAGE}\t0,1,0,"),
        [("columns", "train.txt:2", "4 values, but there are 3 labels")],
    ),
    Broken(
        "more labels than values",
        labels("0 cat", "1 dog", "2 bird", "3 fish"),
        [
            ("columns", f"{name}.txt:{i + 1}", "3 values, but there are 4 labels")
            for name, count in (("train", 6), ("val", 3))
            for i in range(count)
        ],
    ),
    Broken(
        "a value of 2",
        line(2, f"{IMAGE}\t0,2,0"),
        [("value", "train.txt:2", "'2' in column 2 is neither 0, 1 nor -1")],
    ),
    Broken(
        "a value is missing between commas",
        line(2, f"{IMAGE}\t0,1,"),
        [("value", "train.txt:2", "'' in column 3")],
    ),
    Broken(
        "scores for values", line(2, f"{IMAGE}\t0,0.9,0"), [("value", "train.txt:2", "'0.9' in co")]
    ),
    Broken(
        "a space for the TAB",
        line(2, f"{IMAGE} 0,1,0"),
        [("delimiter", "train.txt:2", "it has a space for the TAB")],
    ),
    Broken(
        "a comma for the TAB",
        line(2, f"{IMAGE},0,1,0"),
        [("delimiter", "train.txt:2", "it has a comma for the TAB")],
    ),
    Broken(
        "spaces between the values",
        line(2, f"{IMAGE}\t0 1 0"),
        [("delimiter", "train.txt:2", "spaces divide the values '0 1 0'")],
    ),
    Broken(
        "semicolons between the values",
        line(2, f"{IMAGE}\t0;-1;0"),
        [("delimiter", "train.txt:2", "semicolons divide the values '0;-1;0'")],
    ),
    Broken(
        "a path without values",
        line(2, IMAGE),
        [("list_line", "train.txt:2", f"'{IMAGE}' is not `<image><TAB>"), *_UNSEEN],
    ),
    Broken(
        "values without a path",
        line(2, "\t0,1,0"),
        [("list_line", "train.txt:2", r"'\t0,1,0' is not `<image><TAB>"), *_UNSEEN],
    ),
    Broken(
        "train.txt with a byte order mark",
        rewrite("train.txt", lambda data: b"\xef\xbb\xbf" + data),
        [("bom", "train.txt:1", "byte order mark")],
    ),
    Broken(
        "train.txt from Windows",
        rewrite("train.txt", lambda data: data.replace(b"\n", b"\r\n")),
        [("line_ends", "train.txt:1", "ends in CR LF")],
    ),
    Broken(
        "train.txt from an old Mac",
        rewrite("train.txt", lambda data: data.replace(b"\n", b"\r")),
        [("line_ends", "train.txt:1", "ends in CR")],
    ),
    Broken(
        "a blank line",
        rewrite("train.txt", lambda data: data.replace(b"\n", b"\n\n", 1)),
        [("blank_line", "train.txt:2", "is blank")],
    ),
    Broken(
        "a path in Latin-1",
        both(
            move(IMAGE, "images/Kröte.png"),
            rewrite("train.txt", lambda data: data.replace(b"train_1", b"Kr\xf6te")),
        ),
        [
            ("not_utf8", "train.txt:2", "can't decode byte 0xf6"),
            ("unlisted", "images/Kröte.png", "is in no list"),
        ],
    ),
    Broken(
        "train.txt in UTF-16",
        rewrite("train.txt", lambda data: data.decode().encode("utf-16")),
        [("not_utf8", "train.txt", "begins as UTF-16 does"), *unlisted("train", 6)],
    ),
    Broken(
        "a path up and out",
        both(move(IMAGE, "../out.png"), line(2, "images/../../out.png\t0,1,0")),
        [("leaves_folder", "train.txt:2", "'images/../../out.png' leaves the data set's folder")],
    ),
    Broken(
        "an absolute path",
        line(2, "/photos/out.png\t0,1,0"),
        [("leaves_folder", "train.txt:2", "'/photos/out.png' leaves"), *_UNSEEN],
    ),
    Broken(
        "an absolute path of Windows",
        line(2, "C:\\photos\\out.png\t0,1,0"),
        [("leaves_folder", "train.txt:2", r"'C:\\photos\\out.png' leaves"), *_UNSEEN],
    ),
]

IN_IMAGES = [
    Broken(
        "a missing image",
        remove(IMAGE),
        [("missing_image", "train.txt:2", f"{IMAGE}: there is no such image")],
    ),
    Broken(
        "a path that no file can have",
        line(2, "images/a\0/b.png\t0,1,0"),
        [("missing_image", "train.txt:2", "there is no such image"), *_UNSEEN],
    ),
    Broken(
        "an image in capitals",
        move(IMAGE, "images/Train_1.PNG"),
        [("spelling", "train.txt:2", f"{IMAGE}: there is no such image, but there is images/Tra")],
    ),
    Broken(
        "another form of an accent",
        both(move(IMAGE, "images/e\u0301.png"), line(2, "images/é.png\t0,1,0")),
        [("spelling", "train.txt:2", "but there is images/e\u0301.png")],
    ),
    Broken(
        "a backslash",
        line(2, "images\\train_1.png\t0,1,0"),
        [("backslash", "train.txt:2", f"but there is {IMAGE}")],
    ),
    Broken(
        "a folder for an image",
        replace_by_folder(IMAGE),
        [("unreadable_image", "train.txt:2", f"{IMAGE}: is not a file")],
    ),
    Broken(
        "a name that is too long",
        line(2, f"images/{'x' * 300}.png\t0,1,0"),
        [("unreadable_image", "train.txt:2", "cannot be opened: File name too long"), *_UNSEEN],
    ),
    Broken("an empty file", picture(b""), [("empty_image", "train.txt:2", f"{IMAGE}: is empty")]),
    Broken(
        "text for an image",
        picture(b"<html>not found</html>"),
        [("not_image", "train.txt:2", "it begins with b'<html>no'")],
    ),
    Broken(
        "a drawing that would start a program",
        picture(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"),
        [("not_image", "train.txt:2", "it begins with b'%!PS-Ado'")],
    ),
    Broken("a PNG without width", picture(png(0, 7)), [("zero_size", "train.txt:2", "0 x 7 pix")]),
    Broken(
        "a BMP without height",
        picture(put(_BMP, 22, bytes(4))),
        [("zero_size", "train.txt:2", "has 160 x 0 pixels")],
    ),
    Broken(
        "a JPEG without height",
        picture(put(_JPEG, _JPEG.index(b"\xff\xc0") + 5, bytes(2))),
        [("zero_size", "train.txt:2", "has 160 x 0 pixels")],
    ),
    Broken(
        "a large picture",
        picture(png(10_000, 10_000)),
        [("too_large", "train.txt:2", "10000 x 10000 pixels, above the limit of 89478485")],
    ),
    Broken(
        "an absurdly large picture",
        picture(png(90_000, 90_000)),
        [("too_large", "train.txt:2", "8100000000 pixels")],
    ),
    Broken(
        "a picture that is too long",
        picture(png(65_501, 1)),
        [("too_large", "train.txt:2", "65501 x 1 pixels, above the limit of 65500 a side")],
    ),
    cut_off("a JPEG cut off", "JPEG"),
    Broken(
        "a JPEG without its last byte",
        picture(_JPEG[:-1]),
        [("cut_end", "train.txt:2", f"{IMAGE}: ends without its end marker")],
    ),
    cut_off("a progressive JPEG cut off", "JPEG", progressive=True),
    cut_off("a PNG cut off", "PNG"),
    cut_off("a GIF cut off", "GIF"),
    cut_off("a WebP cut off", "WEBP"),
    cut_off("a WebP without its last byte", "WEBP", share=0.9999),
    cut_off("a BMP cut off", "BMP"),
    cut_off("a TIFF cut off", "TIFF"),
    cut_off("a PPM cut off", "PPM"),
    Broken(
        "a large PNG cut off",
        both(large(IMAGE), rewrite(IMAGE, lambda data: data[:100_000])),
        [("damaged", "train.txt:2", f"{IMAGE}: cannot be decoded: ")],
    ),
    Broken(
        "a damaged header", picture(_PNG[:20]), [("damaged", "train.txt:2", "has a damaged header")]
    ),
    Broken(
        "damaged pixels",
        picture(put(_PNG, len(_PNG) // 2, bytes(40))),
        [("damaged", "train.txt:2", f"{IMAGE}: cannot be decoded: ")],
        pixels=True,
    ),
    Broken(
        "a JPEG that lacks its second half, but not its end mark",
        picture(_JPEG[: len(_JPEG) // 2] + _JPEG[-2:]),
        [("doubtful", "train.txt:2", f"{IMAGE}: is decoded with a warning: ")],
        pixels=True,
    ),
    Broken(
        "a PNG without its end",
        picture(_PNG[:-12]),
        [("cut_end", "train.txt:2", "ends without IEND")],
    ),
    Broken(
        "a link to an image elsewhere",
        link_out(IMAGE),
        [("outside_link", "train.txt:2", f"{IMAGE} is a link to /")],
    ),
    Broken(
        "images/ is a link",
        link_out("images"),
        [("outside_link", "train.txt:1", "images is a link to /")],
    ),
    Broken(
        "CMYK",
        picture(encode(photo("CMYK"), "JPEG")),
        [("cmyk", "train.txt:2", "CMYK (JPEG, 160 x 120, CMYK)")],
    ),
    Broken(
        "16 bits",
        picture(encode(Image.fromarray(160 * _DARK), "PNG")),
        [("sixteen_bit", "train.txt:2", "more than 8 bits a channel (PNG, 20 x 20, I;16)")],
    ),
    Broken(
        "12 bits in 16",
        picture(encode(Image.fromarray(10 * _DARK), "PNG")),
        [
            ("dark", "train.txt:2", f"{IMAGE}: has no value above 16 of 255"),
            ("sixteen_bit", "train.txt:2", "more than 8 bits a channel (PNG, 20 x 20, I;16)"),
        ],
    ),
    Broken(
        "16 bits a colour",
        picture(
            b"\x89PNG\r\n\x1a\n"
            + png_chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0))
            + png_chunk(b"IDAT", zlib.compress(b"\0\x41\2\3\4\5\6"))
            + png_chunk(b"IEND", b"")
        ),
        [("sixteen_bit", "train.txt:2", "more than 8 bits a channel (PNG, 1 x 1, RGB)")],
    ),
    Broken(
        "transparency",
        picture(encode(photo("RGBA"), "PNG")),
        [("alpha", "train.txt:2", "transparency (PNG, 160 x 120, RGBA)")],
    ),
    Broken(
        "turned by EXIF",
        picture(encode(photo(), "JPEG", exif=exif(6))),
        [("rotated", "train.txt:2", "EXIF orientation 6 (JPEG, 160 x 120, RGB)")],
    ),
    Broken(
        "an animation",
        picture(encode(photo("P"), "GIF", save_all=True, append_images=_FRAMES)),
        [("animated", "train.txt:2", "3 frames (GIF, 160 x 120, P)")],
    ),
    Broken(
        "a file that no list names",
        copy("images/train_0.png", "images/extra.png"),
        [("unlisted", "images/extra.png", "is in no list")],
    ),
]

IN_BOTH_LISTS = [
    Broken(
        "an image twice",
        line(7, "images/train_0.png\t1,0,0"),
        [("listed_twice", "train.txt:7", "images/train_0.png is in train.txt:1 too")],
    ),
    Broken(
        "an image twice, spelled differently",
        line(7, "./images//train_0.png\t1,0,0"),
        [("listed_twice", "train.txt:7", "./images//train_0.png is in train.txt:1 too")],
    ),
    Broken(
        "an image twice with different values",
        line(7, "images/train_0.png\t0,0,1"),
        [("contradiction", "train.txt:7", "is in train.txt:1 too, with other values")],
    ),
    Broken(
        "an image twice, once with too few values",
        line(7, "images/train_0.png\t0,1"),
        [
            ("columns", "train.txt:7", "2 values, but there are 3 labels"),
            ("listed_twice", "train.txt:7", "images/train_0.png is in train.txt:1 too"),
        ],
    ),
    Broken(
        "a training image in val.txt",
        line(4, "images/train_0.png\t1,0,0", file="val.txt"),
        [("leak", "val.txt:4", "images/train_0.png is in train.txt:1 too")],
    ),
    Broken(
        "a copy in the same list",
        copy("images/train_0.png", "images/train_3.png"),
        [("copy", "train.txt:4", "train_3.png is a copy of images/train_0.png (train.txt:1)")],
    ),
    Broken(
        "a copy of a large image",
        both(large("images/train_0.png"), large("images/train_3.png")),
        [("copy", "train.txt:4", "train_3.png is a copy of images/train_0.png (train.txt:1)")],
    ),
    Broken(
        "a copy with other values",
        copy("images/train_0.png", IMAGE),
        [("copy", "train.txt:2", "of images/train_0.png (train.txt:1), with other values")],
    ),
    Broken(
        "a copy of a training image in val.txt",
        copy("images/train_0.png", "images/val_0.png"),
        [("leak_copy", "val.txt:1", "val_0.png is a copy of images/train_0.png (train.txt:1)")],
    ),
    Broken(
        "a validation image in test.txt",
        lambda root: (root / "test.txt").write_text((root / "val.txt").read_text()),
        [("val_in_test", f"test.txt:{i + 1}", f"is in val.txt:{i + 1} too") for i in range(3)],
    ),
    Broken(
        "an image and its thumbnail",
        both(
            rewrite("images/train_0.png", lambda _: encode(photo(), "JPEG", quality=95)),
            rewrite("images/train_3.png", lambda _: encode(photo().resize((80, 60)), "PNG")),
        ),
        [("near_copy", "train.txt:4", "train_3.png looks like images/train_0.png (train.txt:1)")],
        pixels=True,
    ),
    Broken(
        "a recompressed training image in val.txt",
        both(
            rewrite("images/train_0.png", lambda _: encode(photo(), "JPEG", quality=95)),
            rewrite("images/val_0.png", lambda _: encode(photo(), "JPEG", quality=50)),
        ),
        [("near_leak", "val.txt:1", "val_0.png looks like images/train_0.png (train.txt:1)")],
        pixels=True,
    ),
    Broken(
        "a label without positives in val.txt",
        line(2, "images/val_1.png\t1,0,0", file="val.txt"),
        [("no_positives", "val.txt", "label 1, 'dog': no image has it")],
    ),
    Broken(
        "a label that nobody annotated",
        rewrite("val.txt", lambda data: data.replace(b",0,", b",-1,").replace(b",1,", b",-1,")),
        [
            ("no_annotation", "val.txt", "label 1, 'dog': it is annotated nowhere"),
            ("unlabelled", "val.txt:2", "images/val_1.png has no label"),
        ],
    ),
    Broken(
        "an image without labels",
        extra("0,0,-1"),
        [("unlabelled", "train.txt:7", "images/extra.png has no label")],
    ),
    Broken(
        "an image that nobody annotated",
        extra("-1,-1,-1"),
        [("unannotated", "train.txt:7", "images/extra.png has no annotation")],
    ),
]

BROKEN = IN_LABEL_FILE + IN_LISTS + IN_IMAGES + IN_BOTH_LISTS
