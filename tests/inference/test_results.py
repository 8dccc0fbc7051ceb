"""What a prediction reports, how it is saved, and that drawings never cut text off."""

import base64
import io
import itertools
import json
import logging
import os
import pickle
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image, ImageFont

from mlcls_jax.errors import UserError
from mlcls_jax.inference import fonts
from mlcls_jax.inference.drawing import TextBox, draw_grid, draw_labels, layout_grid, layout_labels
from mlcls_jax.inference.fonts import find_font, wrap_text
from mlcls_jax.inference.results import Result

PICTURE = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
LONG_NAME = "a very long name that describes a street in the rain with bicycles and umbrellas"
LONG_WORD = "Donaudampfschifffahrtsgesellschaftskapitaensmuetzenabzeichenverordnungsentwurf"


def make_result(
    scores,
    *,
    threshold=0.5,
    labels=None,
    input_path="in/photo.png",
    image=PICTURE,
    page_index=None,
    top_k=None,
):
    return Result.from_scores(
        np.float32(scores),
        labels=labels or [f"class {i}" for i in range(len(scores))],
        threshold=threshold,
        input_path=input_path,
        image=image,
        page_index=page_index,
        top_k=top_k,
    )


# --- what is reported ---


def test_classes_come_by_falling_score():
    result = make_result([0.6, 0.1, 0.99972, 0.7], labels=["a", "b", "c", "d"])
    assert result == {
        "input_path": "in/photo.png",
        "page_index": None,
        "class_ids": [2, 3, 0],
        "scores": [0.99972, 0.7, 0.6],
        "label_names": ["c", "d", "a"],
    }
    assert list(result) == ["input_path", "page_index", "class_ids", "scores", "label_names"]


def test_equal_scores_keep_the_order_of_the_classes():
    scores = [0.9, 0.8] * 20
    assert make_result(scores)["class_ids"] == [*range(0, 40, 2), *range(1, 40, 2)]


@pytest.mark.parametrize("threshold", [0.5, 0.3, 0.7, np.float64(0.1), np.float32(0.9)])
def test_a_score_at_the_threshold_is_not_reported(threshold):
    above = np.nextafter(np.float32(threshold), np.float32(1))
    below = np.nextafter(np.float32(threshold), np.float32(0))
    result = make_result([above, threshold, below], threshold=threshold)
    assert result["class_ids"] == [0]


def test_each_class_may_have_a_threshold():
    thresholds = np.array([0.3, 0.7, 0.0, 0.7])  # float64, as a bundle holds them
    result = make_result([0.3, 0.8, 0.1, 0.6], threshold=thresholds)
    assert result["class_ids"] == [1, 2]


def test_the_best_few_are_reported_with_and_without_a_threshold():
    scores = [0.1, 0.5, 0.0, 0.4]
    assert make_result(scores, threshold=None, top_k=3)["class_ids"] == [1, 3, 0]
    assert make_result(scores, threshold=None, top_k=9)["class_ids"] == [1, 3, 0, 2]
    assert make_result(scores, threshold=0.4, top_k=3)["class_ids"] == [1]


def test_nothing_above_the_threshold():
    result = make_result([0.1, 0.2])
    assert (result["class_ids"], result["scores"], result["label_names"]) == ([], [], [])


def test_all_scores_are_kept_unrounded_outside_the_json():
    scores = np.float32([0.1234567, 0.7654321])
    result = make_result(scores)
    np.testing.assert_array_equal(result.all_scores, scores)
    assert result.all_scores.dtype == np.float32
    assert result["scores"] == [0.76543]
    assert "all_scores" not in result.json["res"]


@pytest.mark.parametrize(
    ("labels", "threshold"), [(["a"], 0.5), (["a", "b"], [0.5]), (["a", "b"], [0.5] * 3)]
)
def test_lengths_that_do_not_fit_raise(labels, threshold):
    with pytest.raises(ValueError, match="do not fit"):
        make_result([0.9, 0.8], labels=labels, threshold=np.array(threshold))


def test_a_result_survives_pickling():
    result = make_result([0.9, 0.1])
    copy = pickle.loads(pickle.dumps(result))
    assert copy == result
    np.testing.assert_array_equal(copy.all_scores, result.all_scores)


# --- JSON and files ---


def test_json_holds_plain_types_and_survives_a_round_trip(tmp_path):
    labels = ["Straße", "猫 & 犬", 'a "quoted" name']
    result = make_result([0.9, 0.8, 0.7], labels=labels, page_index=3)
    path = result.save_to_json(tmp_path / "out.json")
    text = path.read_text(encoding="utf-8")
    assert json.loads(text) == result.json == {"res": dict(result)}
    assert "猫 & 犬" in text
    assert '\n        "input_path"' in text
    assert {type(i) for i in result["class_ids"]} == {int}
    assert {type(score) for score in result["scores"]} == {float}

    compact = result.save_to_json(tmp_path / "ascii.json", indent=None, ensure_ascii=True)
    assert compact.read_bytes().isascii()
    assert json.loads(compact.read_text()) == result.json


def test_a_notebook_shows_the_picture_and_its_labels():
    shown = make_result([0.9, 0.6, 0.1], labels=["<b>", "b", "c"])._repr_html_()
    assert "<td>&lt;b&gt;</td><td>0.900</td>" in shown and ">c<" not in shown
    encoded = re.search(r'src="data:image/jpeg;base64,([^"]+)"', shown)[1]
    assert Image.open(io.BytesIO(base64.b64decode(encoded))).size == (64, 48)
    broken = Result.of_error(UserError("a.jpg: is <broken>"), "a.jpg")._repr_html_()
    assert "is &lt;broken&gt;" in broken and "<img" not in broken


def test_print(capsys):
    result = make_result([0.9], labels=["猫"])
    result.print()
    assert json.loads(capsys.readouterr().out) == result.json
    result.print(format_json=False)
    assert capsys.readouterr().out == f"{result.json}\n"
    result.print(ensure_ascii=True)
    assert "猫" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("input_path", "page_index", "stem", "suffix"),
    [
        ("in/photo.JPG", None, "photo", ".JPG"),
        ("photo.of.me.png", None, "photo.of.me", ".png"),
        ("photo", None, "photo", ".png"),
        ("scan.tiff", 0, "scan_0", ".tiff"),
        ("paper.pdf", 2, "paper_2", ".png"),
        ("drawing.ras", None, "drawing", ".png"),  # Pillow reads these but does not write them
        ("clip.gif", None, "clip", ".png"),
        ("floats.PFM", None, "floats", ".png"),
        ("https://example.org/a/my%20cat.webp?size=3.jpg#x", None, "my cat", ".webp"),
        ("https://example.org/", None, "image_f288b395", ".png"),
        (None, None, "image_f288b395", ".png"),
    ],
)
def test_files_in_a_folder_are_named_after_the_input(
    tmp_path, input_path, page_index, stem, suffix
):
    image = np.zeros((4, 4, 3), np.uint8)
    result = make_result([0.9], input_path=input_path, page_index=page_index, image=image)
    folder = tmp_path / "new" / "folder"
    assert result.save_to_json(folder) == folder / f"{stem}_res.json"
    assert result.save_to_img(str(folder)) == folder / f"{stem}_res{suffix}"
    with Image.open(folder / f"{stem}_res{suffix}") as saved:
        assert saved.size == result.img["res"].size
    assert len(list(folder.iterdir())) == 2


def test_a_path_with_a_suffix_is_the_file(tmp_path):
    result = make_result([0.9])
    for name in ("a/b.png", "a/b.jpg", "a/b.webp", "b.tiff"):
        assert result.save_to_img(tmp_path / name) == tmp_path / name
        with Image.open(tmp_path / name) as saved:
            assert saved.size == result.img["res"].size
    assert result.save_to_json(tmp_path / "c/d.json") == tmp_path / "c/d.json"


@pytest.mark.parametrize(
    "name", ["2024.05.01", "results_v1.0", "v1.xyz", "plain", ".hidden", "a.png/"]
)
def test_a_path_with_no_suffix_of_ours_is_a_folder(tmp_path, name):
    result = make_result([0.9])
    folder = tmp_path / name
    for path in ([folder] if not name.endswith("/") else []) + [f"{tmp_path}/{name}"]:
        assert result.save_to_json(path) == folder / "photo_res.json"
        assert result.save_to_img(path) == folder / "photo_res.png"


def test_a_folder_that_is_there_is_one_whatever_its_name(tmp_path):
    (tmp_path / "a.json").mkdir()
    (tmp_path / "a.png").mkdir()
    result = make_result([0.9])
    assert result.save_to_json(tmp_path / "a.json") == tmp_path / "a.json/photo_res.json"
    assert result.save_to_img(tmp_path / "a.png") == tmp_path / "a.png/photo_res.png"


@pytest.mark.parametrize("name", ["a.json", "a.ras", "A.JSON"])
def test_pictures_are_not_written_under_the_suffix_of_something_else(tmp_path, name):
    with pytest.raises(UserError, match=name) as caught:
        make_result([0.9]).save_to_img(tmp_path / name)
    assert ".png" in caught.value.hint
    assert not list(tmp_path.iterdir())


def test_json_is_not_written_under_the_name_of_a_picture(tmp_path):
    (tmp_path / "photo.png").write_bytes(b"mine")
    with pytest.raises(UserError, match="photo.png") as caught:
        make_result([0.9]).save_to_json(tmp_path / "photo.png")
    assert ".json" in caught.value.hint
    assert (tmp_path / "photo.png").read_bytes() == b"mine"


def test_the_home_folder_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    result = make_result([0.9])
    assert result.save_to_json("~/out") == tmp_path / "out/photo_res.json"
    assert result.save_to_img("~/a.png") == tmp_path / "a.png"


SAME_NAMES = [
    ("a/x.jpg", "b/x.jpg", "c/x.jpg"),
    ("x.jpg", "x.png", "x.webp"),
    ("https://example.org/x.jpg?a=1", "https://example.org/x.jpg?a=2"),
    ("scan.tif", "scan_0.png"),
    ("a/scan.tif", "b/scan.tif"),
]


@pytest.mark.parametrize("paths", SAME_NAMES, ids=" ".join)
def test_inputs_of_one_name_do_not_overwrite_each_other(tmp_path, paths):
    results = [
        make_result([0.9], input_path=path, page_index=page)
        for path in paths
        for page in ([0, 1] if path.endswith(".tif") else [None])
    ]

    def save(result):
        return result.save_to_json(tmp_path), result.save_to_img(str(tmp_path))

    saved = [save(result) for result in results]
    assert len(list(tmp_path.iterdir())) == 2 * len(results)
    for (file, picture), result in zip(saved, results, strict=True):
        assert json.loads(file.read_text()) == result.json
        assert file.stem == picture.stem  # they are found beside each other
    assert saved[0][0].name in ("x_res.json", "scan_0_res.json")
    # Each keeps its name, also where it is saved again in another order.
    assert [save(result) for result in reversed(results)] == saved[::-1]


def test_arrays_of_one_checksum_do_not_overwrite_each_other(tmp_path, monkeypatch):
    monkeypatch.setattr("zlib.crc32", lambda data: 7)
    pictures = [np.full((2, 2, 3), value, np.uint8) for value in range(3)]
    for image in [*pictures, pictures[0].copy()]:
        make_result([0.9], input_path=None, image=image).save_to_json(tmp_path)
    assert len(list(tmp_path.iterdir())) == 3
    for number in range(2):
        Result.of_error(UserError(f"input {number}: damaged"), None).save_to_json(tmp_path)
    assert len(list(tmp_path.iterdir())) == 5


@pytest.mark.parametrize("letter", ["x", "é", "猫"])
def test_long_names_are_shortened_and_stay_different(tmp_path, letter):
    longest = letter * (250 // len(letter.encode()))
    results = [
        make_result([0.9], input_path=f"in/{longest[:-1]}{end}.png", page_index=page)
        for end in "ab"
        for page in (None, 0, 10**6)
    ]
    for result in results:
        file, picture = result.save_to_json(tmp_path), result.save_to_img(tmp_path)
        assert file.name.endswith("_res.json") and file.stem == picture.stem
        assert file.name.startswith(letter * 60)
    assert len(list(tmp_path.iterdir())) == 2 * len(results)
    fits = make_result([0.9], input_path=f"{'y' * 246}.png")
    assert fits.save_to_json(tmp_path).name == f"{'y' * 246}_res.json"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names are Unicode")
def test_names_that_are_not_utf_8_are_escaped(tmp_path, capsys):
    path = os.fsdecode(b"in/\xd6\xd0\xce\xc4.png")
    result = make_result([0.9], input_path=path)
    assert result["input_path"] == path  # so that it can be opened
    file, picture = result.save_to_json(tmp_path), result.save_to_img(tmp_path)
    assert (file.name, picture.name) == ("%D6%D0%CE%C4_res.json", "%D6%D0%CE%C4_res.png")
    told = r"in/\xd6\xd0\xce\xc4.png"
    assert json.loads(file.read_bytes().decode("utf-8"))["res"]["input_path"] == told
    result.print()
    result.print(ensure_ascii=True)
    assert capsys.readouterr().out.count(r"in/\\xd6\\xd0\\xce\\xc4.png") == 2
    broken = Result.of_error(UserError(f"{path}: damaged"), path)
    assert (
        json.loads(broken.save_to_json(tmp_path).read_text())["res"]["error"] == f"{told}: damaged"
    )
    with Image.open(broken.save_to_img(tmp_path)):
        pass
    odd = make_result([0.9], input_path="in/\ud800.png")  # no file system's
    assert (
        json.loads(odd.save_to_json(tmp_path).read_bytes())["res"]["input_path"] == r"in/\ud800.png"
    )


def test_saving_again_replaces_the_file(tmp_path):
    make_result([0.9]).save_to_json(tmp_path)
    path = make_result([0.1]).save_to_json(tmp_path)
    assert json.loads(path.read_text())["res"]["class_ids"] == []


def test_saved_files_are_readable_by_others(tmp_path):
    (tmp_path / "plain").touch()
    path = make_result([0.9]).save_to_json(tmp_path)
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_nothing_is_left_behind_when_the_folder_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("in the way")
    result = make_result([0.9])
    for save in (result.save_to_json, result.save_to_img):
        with pytest.raises(UserError, match="file/below") as caught:
            save(tmp_path / "file" / "below")
        assert caught.value.hint
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "in the way"


def test_nothing_is_left_behind_when_the_target_is_a_folder(tmp_path):
    (tmp_path / "photo_res.json" / "full").mkdir(parents=True)
    with pytest.raises(UserError, match="photo_res.json"):
        make_result([0.9]).save_to_json(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["photo_res.json"]


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_an_interrupted_write_keeps_the_old_file(tmp_path, monkeypatch, error):
    path = make_result([0.9]).save_to_json(tmp_path)
    before = path.read_text()

    def fail(self, target):
        raise error

    monkeypatch.setattr(type(path), "replace", fail)
    with pytest.raises((UserError, KeyboardInterrupt)):
        make_result([0.1]).save_to_json(tmp_path)
    assert path.read_text() == before
    assert os.listdir(tmp_path) == [path.name]


def test_a_zero_byte_in_the_path_is_the_users_error(tmp_path):
    with pytest.raises(UserError, match="cannot be written"):
        make_result([0.9], input_path="https://example.org/a%00.png").save_to_json(tmp_path)


def test_a_picture_too_large_for_its_format_names_the_way_out(tmp_path):
    image = np.zeros((17_000, 321, 3), np.uint8)  # WebP ends at 16383
    with pytest.raises(UserError, match="WEBP") as caught:
        make_result([0.9], image=image).save_to_img(tmp_path / "a.webp")
    assert ".png" in caught.value.hint
    assert not list(tmp_path.iterdir())


# --- drawing ---


def assert_fits(text_boxes, *, font, width, height):
    """Every line is as wide as it needs to be, inside the canvas and clear of the other boxes."""
    for text_box in text_boxes:
        left, top, right, bottom = text_box.box
        assert left >= 0 and top >= 0 and right <= width and bottom <= height
        assert all(left + font.getbbox(line)[2] <= right for line in text_box.lines)
        assert bottom - top >= len(text_box.lines) * sum(font.getmetrics())
    for a, b in itertools.combinations((text_box.box for text_box in text_boxes), 2):
        assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]


def without_blanks(text):
    return "".join(text.split())


ENTRIES = {
    "none": ["(no label above the threshold)"],
    "three": ["banana(0.999)", "dining table(0.569)", "cat(0.5)"],
    "sixty": [f"some label {i}(0.{i})" for i in range(60)],
    "long": [f"{LONG_NAME}(0.9)", "cat(0.8)", f"{LONG_WORD}(0.7)", "dog(0.6)", LONG_WORD * 3],
    "uneven": [f"{LONG_NAME}(0.9)", *"abcdefghijklmnopqrstuvwxyz", LONG_NAME, "z" * 30],
}


@pytest.mark.parametrize("width", [320, 640, 1920])
@pytest.mark.parametrize("entries", ENTRIES.values(), ids=ENTRIES)
def test_every_label_fits_on_the_strip(entries, width):
    font = find_font("", size=max(14, width // 36))
    text_boxes, height = layout_labels(entries, width, font=font)
    assert_fits(text_boxes, font=font, width=width, height=height)
    drawn = ["".join(text_box.lines) for text_box in text_boxes]
    assert list(map(without_blanks, drawn)) == list(map(without_blanks, entries))


@pytest.mark.parametrize("entries", ENTRIES.values(), ids=ENTRIES)
def test_the_strip_lies_below_the_whole_picture_and_its_border_is_free(entries):
    image = np.zeros((400, 500, 3), np.uint8)
    drawn = np.asarray(draw_labels(image, entries))
    assert drawn.shape[1] == 500
    np.testing.assert_array_equal(drawn[:400], image)
    strip = drawn[400:]
    assert (strip < 100).any()  # text
    for border in (strip[:3], strip[-3:], strip[:, :3], strip[:, -3:]):
        assert (border == 255).all()


def test_img_lists_names_and_scores(monkeypatch):
    drawn = []
    monkeypatch.setattr(
        "mlcls_jax.inference.results.draw_labels", lambda image, entries: drawn.append(entries)
    )
    _ = make_result([0.9, 0.1, 0.99972], labels=["a", "b", "c"]).img
    _ = make_result([0.1]).img
    assert drawn == [["c(1.000)", "a(0.900)"], ["(no label above the threshold)"]]


@pytest.mark.parametrize(
    ("shape", "width", "picture_height"),
    [((1, 1), 320, 320), ((32, 16), 320, 640), ((2, 3000), 3000, 2), ((5000, 10), 320, 5000)],
)
def test_small_pictures_are_enlarged(shape, width, picture_height):
    drawn = draw_labels(np.full((*shape, 3), 7, np.uint8), ["cat(0.9)"])
    assert drawn.width == width
    assert drawn.getpixel((width // 2, picture_height - 1)) == (7, 7, 7)
    assert drawn.getpixel((width // 2, picture_height)) == (255, 255, 255)


def test_the_font_grows_with_the_picture():
    small, large = (
        draw_labels(np.zeros((10, width, 3), np.uint8), ["cat(0.9)"]).height - 10
        for width in (500, 4000)
    )
    assert large > 6 * small


def test_wrapping_keeps_line_breaks_and_fills_lines():
    font = find_font("", size=14)
    width = round(font.getlength("one two thr"))
    text = "one two\n\n  three\tfour one two three"
    lines = ["one two", "", "three four", "one two", "three"]
    assert wrap_text(text, font=font, width=width) == lines
    assert wrap_text("", font=font, width=width) == [""]
    assert wrap_text("abc", font=font, width=1) == ["a", "b", "c"]


def test_ascii_takes_the_font_that_pillow_brings():
    assert find_font("cat (0.9)", size=20).getname() == ImageFont.load_default(20).getname()
    assert find_font("cat", size=20).size == 20


def test_other_characters_take_an_installed_font_that_has_them():
    try:
        ImageFont.truetype("DejaVuSans.ttf", 10)
    except OSError:
        pytest.skip("DejaVu Sans is not installed")
    for text in ("Straße", "кошка", "Ελληνικά"):
        assert find_font(text, size=14).getname()[0] == "DejaVu Sans"


def test_without_a_font_for_a_label_there_is_a_warning_and_still_a_picture(monkeypatch, caplog):
    monkeypatch.setattr(fonts, "_UNICODE_FONTS", ("no such font.ttf",))
    monkeypatch.setattr(fonts, "_reported", set())  # another test may have met the character
    fonts._find_font_file.cache_clear()
    with caplog.at_level(logging.WARNING):
        first = draw_labels(PICTURE, ["猫(0.9)"])
        draw_labels(PICTURE, ["猫(0.8)"])
    fonts._find_font_file.cache_clear()
    assert first.width == 320
    assert len(caplog.records) == 1
    assert "fonts-noto-cjk" in caplog.text


@pytest.mark.parametrize(("columns", "cell"), [(4, 192), (1, 192), (3, 64), (10, 100)])
def test_every_caption_fits_on_the_sheet(columns, cell):
    captions = ["", "cat", "true: cat\npredicted: dog, bird", LONG_NAME, LONG_WORD, "a\nb\nc\nd\ne"]
    font = find_font("", size=12)
    cells, (width, height) = layout_grid(captions, columns=columns, cell=cell, font=font)
    text_boxes = [place.caption for place in cells]
    assert_fits(text_boxes, font=font, width=width, height=height)
    for caption, place in zip(captions, cells, strict=True):
        assert without_blanks("".join(place.caption.lines)) == without_blanks(caption)
        assert place.caption.box[1] >= place.top + cell
        assert place.caption.box[2] <= place.left + cell
        assert place.left + cell < width
    squares = [
        TextBox([], (place.left, place.top, place.left + cell, place.top + cell)) for place in cells
    ]
    assert_fits(text_boxes + squares, font=font, width=width, height=height)


def test_a_grid_shows_each_image_whole_with_its_caption_in_its_colour():
    images = [np.full((30, 60, 3), 200, np.uint8), np.full((500, 500, 3), 100, np.uint8)] * 3
    sheet = draw_grid(images, ["one"] * 6, columns=4, cell=100, caption_colors=["#ff0000"] * 6)
    pixels = np.asarray(sheet)
    assert (pixels == 200).all(-1).sum() == 3 * 100 * 50
    assert (pixels == 100).all(-1).sum() == 3 * 100 * 100
    assert (pixels == (255, 0, 0)).all(-1).sum() > 0
    assert (pixels[-3:] == 255).all() and (pixels[:, -3:] == 255).all()


def test_a_grid_is_no_wider_than_its_images():
    assert draw_grid([PICTURE], ["one"], cell=100).width < 150


@pytest.mark.parametrize(
    ("count", "captions", "colors"), [(0, [], None), (2, ["a"], None), (1, ["a"], ["red", "blue"])]
)
def test_a_grid_needs_a_caption_and_a_colour_for_each_image(count, captions, colors):
    with pytest.raises(ValueError, match="images"):
        draw_grid([PICTURE] * count, captions, caption_colors=colors)


def test_results_and_the_first_view_of_a_studio_need_no_jax():
    code = (
        "import sys, mlcls_jax.inference.results, mlcls_jax.data.images, mlcls_jax.studio.server;"
        "heavy = {'jax', 'flax', 'optax', 'orbax', 'grain', 'fastapi'} & set(sys.modules);"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
