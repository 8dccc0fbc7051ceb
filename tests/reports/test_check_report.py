"""The pictures and the page of a data set's check: what they show, and that nothing breaks them."""

import base64
import io
import math
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFont

from mlcls_jax.data.findings import CheckReport, Finding, Group, Kind, SplitSummary
from mlcls_jax.inference import fonts
from mlcls_jax.reports import canvas, check_page, cooccurrence, histogram
from mlcls_jax.reports.canvas import RED
from mlcls_jax.reports.check_page import write_page
from mlcls_jax.reports.cooccurrence import draw_cooccurrence
from mlcls_jax.reports.histogram import SPLIT_COLORS, draw_histogram
from mlcls_jax.reports.samples import draw_samples, sample_entries
from mlcls_jax.templates import environment
from tests.helpers.page import Page
from tests.helpers.photos import write_image

BLUE, ORANGE, GREEN = SPLIT_COLORS
ODD_NAMES = (
    *(
        "猫",
        "قطة سوداء",
        "हिन्दी",
        "😀 \U0001f468\u200d\U0001f469\u200d\U0001f467",
        "a\tb\x00c\u202e",
    ),
    *(
        "\ud800",
        "",
        " ",
        "<script>alert('x')</script>",
        "a \"quoted\" & 'other' name",
        "x" * 50_000,
    ),
)


@pytest.fixture(autouse=True)
def fresh_font_warnings(monkeypatch):
    monkeypatch.setattr(fonts, "_reported", set())


def make_report(
    *counts, labels=None, cooccurrence=None, groups=(), samples=(), root=Path("/data/set")
):
    """Train, val and test with these counts a class; `samples` are those of train."""
    counts = np.array(counts, np.int64)  # [S, K]
    num_classes = counts.shape[1]
    splits = {
        name: SplitSummary(
            *(name, f"{name}.txt", int(row.sum()), row, np.zeros(num_classes, np.int64), 0),
            list(samples) if name == "train" else [],
        )
        for name, row in zip(("train", "val", "test"), counts, strict=False)
    }
    if cooccurrence is None:
        cooccurrence = np.diag(counts.sum(0))
    labels = tuple(labels or (f"label {k}" for k in range(num_classes)))
    numbers, groups = np.arange(num_classes), list(groups)
    return CheckReport(root, "label.txt", labels, splits, groups, numbers, cooccurrence, 7, False)


def make_group(severity, findings, *, name="kind", count=None):
    kind = Kind(severity, f"title of {name}", f"remedy of {name}")
    return Group(name, kind, len(findings) if count is None else count, findings)


def pixels(path):
    with Image.open(path) as picture:
        assert (picture.format, picture.mode) == ("PNG", "RGB")
        return np.asarray(picture)


def is_color(picture, color):
    return (picture == np.uint8(color)).all(-1)  # [H, W]


def bar_lengths(picture, color):
    """Of each bar from above, without the legend's square, its length in pixels."""
    lengths = is_color(picture, color)[canvas.HEAD_HEIGHT :].sum(1)
    starts = np.flatnonzero((lengths > 0) & (np.roll(lengths, 1) == 0))
    return lengths[starts + 3]


# --- histogram ---


def test_bars_are_as_long_as_their_counts_and_fall_by_train(tmp_path):
    draw_histogram(make_report([30, 60, 15], [20, 10, 40]), tmp_path / "h.png")
    picture = pixels(tmp_path / "h.png")
    train, val = bar_lengths(picture, BLUE), bar_lengths(picture, ORANGE)
    np.testing.assert_allclose(train / train[0], [1, 0.5, 0.25], atol=0.01)
    np.testing.assert_allclose(val / train[0], [10 / 60, 20 / 60, 40 / 60], atol=0.01)
    assert not is_color(picture, GREEN).any() and not is_color(picture, RED).any()


def test_a_test_list_has_bars_too(tmp_path):
    draw_histogram(make_report([4, 8], [2, 2], [1, 4]), tmp_path / "h.png")
    picture = pixels(tmp_path / "h.png")
    train, test = bar_lengths(picture, BLUE), bar_lengths(picture, GREEN)
    np.testing.assert_allclose(test / train[0], [4 / 8, 1 / 8], atol=0.01)


def test_counts_of_different_magnitudes_get_a_logarithmic_axis(tmp_path):
    draw_histogram(make_report([1, 10_000]), tmp_path / "h.png")
    lengths = bar_lengths(pixels(tmp_path / "h.png"), BLUE)
    assert lengths[1] / lengths[0] == pytest.approx(math.log(2) / math.log(10_001), abs=0.01)


@pytest.mark.parametrize("num_classes", [1, 5, 80, 121, 3000])
@pytest.mark.parametrize("lists", [1, 3])
def test_a_class_without_images_is_red_however_many_there_are(tmp_path, num_classes, lists):
    counts = np.arange(1, num_classes + 1) * np.ones((lists, 1), np.int64)
    draw_histogram(make_report(*counts), tmp_path / "h.png")
    picture = pixels(tmp_path / "h.png")
    assert picture.shape[1] <= 1800 and picture.shape[0] <= 3000  # fits a screen's width
    assert is_color(picture, BLUE).sum() > 500
    assert not is_color(picture, RED).any()

    counts[-1, num_classes // 2] = 0
    draw_histogram(make_report(*counts), tmp_path / "h.png")
    assert is_color(pixels(tmp_path / "h.png"), RED).any()


def test_among_many_classes_the_frequent_the_rare_and_the_missing_are_named():
    counts = np.array([0, 0, *range(200, 0, -1)])
    order = np.argsort(-counts, kind="stable")
    panels = histogram._extremes(order, counts, "train")
    assert [list(counts[classes]) for _, classes in panels] == [
        list(range(200, 160, -1)),
        list(range(40, 0, -1)),
        [0, 0],
    ]
    assert "2 of 2 without an image in train" in panels[2][0]
    few = np.array([3, 2, *[0] * 150])
    panels = histogram._extremes(np.argsort(-few, kind="stable"), few, "train")
    assert [len(classes) for _, classes in panels] == [2, 40]


@given(st.integers(1, 10**12), st.booleans())
def test_ticks_are_few_round_and_on_the_axis(largest, logarithmic):
    axis = histogram._Axis(largest, logarithmic)
    ticks = axis.ticks()
    assert ticks[0] == 0 and ticks[-1] <= largest and 2 <= len(ticks) <= 14
    shares = [axis.share(tick) for tick in ticks]
    assert shares == sorted(set(shares)) and shares[0] == 0 and shares[-1] <= 1
    assert axis.share(largest) == 1
    assert all(re.fullmatch("[125]?0*", str(tick)) for tick in ticks[1:2])
    if not logarithmic:
        assert len(ticks) <= 6 and len(set(np.diff(ticks))) == 1


@pytest.mark.parametrize("num_classes", [len(ODD_NAMES), 130])
def test_names_in_any_script_and_of_any_length_are_drawn(tmp_path, num_classes):
    plain = [f"label {k}" for k in range(num_classes)]
    odd = [*ODD_NAMES, *plain][:num_classes]
    counts = np.arange(num_classes, 0, -1)
    together = np.diag(counts) // 2 + counts.min()
    for draw in (draw_histogram, draw_cooccurrence):
        shown = []
        for labels in (odd, plain):
            draw(make_report(counts, labels=labels, cooccurrence=together), tmp_path / "p.png")
            shown.append(pixels(tmp_path / "p.png"))
        assert shown[0].shape[1] <= 1900
        assert shown[0].shape != shown[1].shape or (shown[0] != shown[1]).any()


def test_long_names_end_in_dots_and_fill_the_width():
    font = fonts.find_font("", size=15)
    short = canvas.fit("word " * 100, font, 200)
    assert short.endswith("…") and "word word" in short
    assert 200 - fonts.text_width("wo", font=font) < fonts.text_width(short, font=font) <= 200
    assert canvas.fit("two\n words ", font, 200) == "two words"
    assert canvas.fit("anything", font, 1) == "…"


# --- co-occurrence ---


def test_a_cell_is_the_share_of_the_rows_images(tmp_path):
    together = np.array([[40, 10, 0], [10, 10, 0], [0, 0, 5]])
    draw_cooccurrence(make_report([40, 10, 5], cooccurrence=together), tmp_path / "c.png")
    picture = pixels(tmp_path / "c.png")
    cells = {share: is_color(picture, cooccurrence._shade(share)) for share in (1.0, 0.25)}
    assert all(cell.sum() > 2500 for cell in cells.values())
    # A, the most frequent, is the first row: a quarter of its images has B, all of B's have A.
    (above, right), (below, left) = (np.median(np.nonzero(cells[s]), 1) for s in (0.25, 1.0))
    assert above < below and left < right


def test_only_the_most_frequent_labels_are_in_the_matrix(tmp_path):
    sizes = []
    for num_classes in (40, 500):
        counts = np.arange(num_classes, 0, -1)
        draw_cooccurrence(make_report(counts), tmp_path / "c.png")
        picture = pixels(tmp_path / "c.png")
        sizes.append(picture.shape)
        assert is_color(picture, cooccurrence._DIAGONAL).sum() == 40 * 27**2
    assert np.abs(np.subtract(*sizes)).max() < 40


def test_labels_without_images_are_not_in_the_matrix(tmp_path):
    draw_cooccurrence(make_report([5, 0, 3]), tmp_path / "c.png")
    diagonal = is_color(pixels(tmp_path / "c.png"), cooccurrence._DIAGONAL)
    assert diagonal.sum() == 2 * 63**2


@pytest.mark.parametrize("counts", [[[]], [[0, 0], [0, 0]]])
def test_a_data_set_with_nothing_in_it_still_gets_pictures_and_a_page(tmp_path, counts):
    report = make_report(*counts)
    draw_histogram(report, tmp_path / "h.png")
    draw_cooccurrence(report, tmp_path / "c.png")
    write_page(
        report, tmp_path / "r.html", histogram=tmp_path / "h.png", cooccurrence=tmp_path / "c.png"
    )
    report.splits.clear()
    draw_histogram(report, tmp_path / "h.png")
    assert draw_samples(report, tmp_path / "demo_img") == {"train": [], "val": []}
    assert len(read_page(report, tmp_path).images) == 0
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        *("c.png", "demo_img", "h.png", "r.html", "report.html")
    ]


# --- samples ---


def test_samples_are_drawn_with_their_labels(tmp_path):
    names = [f"images/{i}.png" for i in range(13)]
    shown = [write_image(tmp_path / name, seed, size=(40, 330)) for seed, name in enumerate(names)]
    (tmp_path / names[1]).write_bytes(b"no image")
    (tmp_path / names[2]).unlink()
    Image.new("RGB", (3000, 1500)).save(tmp_path / names[3], format="JPEG")
    write_image(tmp_path.parent / "outside.png")
    names[4] = "../outside.png"
    target = np.array([1, 0, -1], np.int8)
    report = make_report([1, 1, 1], root=tmp_path, samples=[(name, target) for name in names])

    folder = tmp_path / "demo_img"
    folder.mkdir()
    (folder / "train_09.jpg").write_text("from an earlier check")
    written = draw_samples(report, folder)
    assert written == {"train": [folder / f"train_{i:02d}.jpg" for i in range(7)], "val": []}
    assert sorted(folder.iterdir()) == written["train"]
    with Image.open(written["train"][0]) as picture:
        assert picture.width == 330 and picture.height > 40
        difference = np.asarray(picture)[:40].astype(int) - shown[0]
        assert np.abs(difference).mean() < 20  # JPEG of noise
        assert (np.asarray(picture)[40:] < 100).any()  # text
    with Image.open(written["train"][1]) as picture:
        assert picture.width == 1024 and 512 < picture.height < 700


def test_what_stands_below_a_sample():
    labels = [f"l{k}" for k in range(150)]
    target = np.zeros(150, np.int8)
    assert sample_entries(labels, target) == ["(no label)"]
    target[[3, 5]], target[10:14] = 1, -1
    assert sample_entries(labels, target) == ["l3", "l5", "(4 not annotated)"]
    entries = sample_entries(labels, np.ones(150, np.int8))
    assert entries == [*labels[:100], "(and 50 more)"]


# --- page ---


def read_page(report, folder, *, histogram=None, cooccurrence=None):
    write_page(report, folder / "report.html", histogram=histogram, cooccurrence=cooccurrence)
    return Page((folder / "report.html").read_text(encoding="utf-8"))


def decode(uri):
    head, _, data = uri.partition(",")
    assert head in ("data:image/jpeg;base64", "data:image/png;base64")
    return Image.open(io.BytesIO(base64.b64decode(data, validate=True)))


HOSTILE = "<script src='https://evil.example/x.js'></script>\"><img src=x onerror=alert(1)>&amp;"


def test_hostile_names_are_only_text(tmp_path):
    finding = Finding("kind", f"train.txt:1 {HOSTILE}", f"message {HOSTILE}", f"images/{HOSTILE}")
    write_image(tmp_path / "images/a'\"<b>.png")
    quoted = Finding("kind", "train.txt:2", "quoted", "images/a'\"<b>.png")
    report = make_report(
        [1, 0],
        labels=[f"label {HOSTILE}", "b"],
        groups=[make_group("error", [finding, quoted], name=HOSTILE)],
        samples=[("images/a'\"<b>.png", np.int8([1, 0]))],
        root=tmp_path,
    )
    report.label_file = report.splits["train"].list_file = HOSTILE
    page = read_page(report, tmp_path)
    assert page.text.count(HOSTILE) >= 8
    for text in (finding.place, finding.message, f"label {HOSTILE}"):
        assert text in page.text
    assert [attrs for tag, attrs in page.tags if tag == "script"] == [{}]
    assert {attrs.get("alt") for tag, attrs in page.tags if tag == "img"} == {"", quoted.image}
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)


def test_the_page_loads_nothing_and_allows_only_its_own_script(tmp_path):
    write_image(tmp_path / "images/a.png")
    finding = Finding("kind", "train.txt:1", "https://example.org is text", "images/a.png")
    report = make_report([1, 2], groups=[make_group("note", [finding])], root=tmp_path)
    draw_histogram(report, tmp_path / "h.png")
    draw_cooccurrence(report, tmp_path / "c.png")
    page = read_page(
        report, tmp_path, histogram=tmp_path / "h.png", cooccurrence=tmp_path / "c.png"
    )
    references = {
        value for _, attrs in page.tags for name, value in attrs.items() if name in ("src", "href")
    }
    assert {r for r in references if not r.startswith("data:image/")} == {
        "findings.txt",
        "#group-0",
    }
    page.assert_closed()
    thumbnail, *charts = map(decode, page.images)
    assert max(thumbnail.size) <= check_page.THUMBNAIL_SIDE
    for chart, name in zip(charts, ("h.png", "c.png"), strict=True):
        np.testing.assert_array_equal(np.asarray(chart), pixels(tmp_path / name))


def test_the_page_is_accessible(tmp_path):
    page = read_page(make_report([1]), tmp_path)
    page.assert_accessible()


@pytest.mark.parametrize(
    ("severity", "verdict"), [("error", "✗ Failed"), ("warning", "✓ Passed"), ("note", "✓ Passed")]
)
def test_the_verdict_counts_every_severity(tmp_path, severity, verdict):
    report = make_report(
        [1], groups=[make_group(severity, [Finding("kind", "a", "b")], count=1234)]
    )
    page = read_page(report, tmp_path)
    assert verdict in page.text and ("Failed" in page.text) == (severity == "error")
    assert f"1,234 {severity}s" in page.text


def test_every_finding_is_shown_up_to_a_limit_that_the_page_tells(tmp_path):
    many = [Finding("kind", f"train.txt:{i + 1}", f"fault {i}!") for i in range(80)]
    groups = [
        make_group("error", many, name="many", count=2000),
        make_group("note", [Finding("kind", "val.txt:7", "a single one")], name="few"),
    ]
    page = read_page(make_report([1], groups=groups), tmp_path)
    for finding in many[: check_page.MAX_ROWS]:
        assert {finding.place, finding.message} <= set(page.cells)
    assert f"fault {check_page.MAX_ROWS}!" not in page.cells
    assert "The first 50 of 2,000 are shown; all are in findings.txt." in page.text
    assert page.text.count("are shown") == 1
    assert {"val.txt:7", "a single one"} <= set(page.cells)
    for name in ("many", "few"):
        assert page.text.count(f"title of {name}") == 2 and f"remedy of {name}" in page.text
    assert [("open" in attrs) for tag, attrs in page.tags if tag == "details"] == [True, False]


def test_images_that_cannot_be_shown_have_a_placeholder(tmp_path):
    write_image(tmp_path / "images/good.png", size=(400, 300))
    (tmp_path / "images/broken.png").write_bytes(b"\x89PNG broken")
    (tmp_path / "images/empty.png").touch()
    (tmp_path / "images/folder.png").mkdir()
    write_image(tmp_path.parent / "secret.png")
    outside = ["../secret.png", "images/../../secret.png", str(tmp_path.parent / "secret.png")]
    missing = ["images/none.png", "images/folder.png", "", "\0", "\ud800", "x" * 5000]
    names = ["images/good.png", "images/broken.png", "images/empty.png", *outside, *missing, None]
    findings = [Finding("kind", f"train.txt:{i}", "m", name) for i, name in enumerate(names)]
    page = read_page(
        make_report([1], groups=[make_group("error", findings)], root=tmp_path), tmp_path
    )
    (image,) = page.images
    assert decode(image).size == (120, 160)
    assert page.cells.count("cannot be decoded") == 2
    assert page.cells.count("outside the data set") == len(outside)

    findings = [Finding("kind", "train.txt:1", "m", name) for name in missing]
    page = read_page(
        make_report([1], groups=[make_group("error", findings)], root=tmp_path), tmp_path
    )
    assert "picture" not in page.cells  # nothing to show, so no column


def test_thumbnails_are_limited_and_shared_among_the_kinds(tmp_path, monkeypatch):
    monkeypatch.setattr(check_page, "MAX_THUMBNAILS", 10)
    write_image(tmp_path / "a.png")
    findings = [Finding("kind", f"train.txt:{i}", "m", "a.png") for i in range(20)]
    groups = [make_group(severity, findings) for severity in ("error", "warning")]
    groups.append(make_group("note", [Finding("kind", "train.txt", "without a picture")]))
    page = read_page(make_report([1], groups=groups, root=tmp_path), tmp_path)
    tables = page.source.split("<details")[1:]
    assert [table.count("<img") for table in tables] == [5, 5, 0]


def test_pictures_that_look_alike_stand_side_by_side(tmp_path):
    for seed, name in enumerate(("a", "b")):
        write_image(tmp_path / f"{name}.png", seed)
    finding = Finding("near_copy", "train.txt:2", "alike", "a.png", "b.png")
    report = make_report([1], groups=[make_group("warning", [finding])], root=tmp_path)
    page = read_page(report, tmp_path)
    shown = [attributes["alt"] for tag, attributes in page.tags if tag == "img"]
    assert shown == ["a.png", "b.png"]


def test_all_labels_have_a_row_with_their_counts(tmp_path):
    report = make_report([2000, 0, 5], [3, 4, 0], labels=["cat", "dog", "bird"])
    report.splits["val"].unknown[1] = 9
    page = read_page(report, tmp_path)
    head = page.cells.index("index")
    assert page.cells[head:] == [
        *("index", "name", "train", "val", "val, not annotated"),
        *("0", "cat", "2,000", "3", "0"),
        *("1", "dog", "0", "4", "9"),
        *("2", "bird", "5", "0", "0"),
    ]
    assert page.source.count('class="number error"') == 2


def test_samples_stand_with_their_labels(tmp_path):
    write_image(tmp_path / "images/a.png")
    samples = [("images/a.png", np.int8([1, 0])), ("images/b.png", np.int8([0, 0]))]
    page = read_page(
        make_report([1, 1], labels=["cat", "dog"], samples=samples, root=tmp_path), tmp_path
    )
    assert len(page.images) == 1
    listed = page.text.partition("Samples of train.txt")[2].partition("All labels")[0]
    assert re.findall(r"\S+", listed) == ["images/a.png", "cat", "images/b.png", "(no", "label)"]


TEXT = environment("mlcls_jax.reports").from_string("{{ text }}")


@given(st.text(st.characters(codec=None), max_size=50))
def test_any_text_becomes_html_that_utf8_can_hold(text):
    escaped = TEXT.render(text=text)
    page = Page(escaped)
    assert page.tags == []
    kept = text.encode("utf-8", "replace").decode()
    kept = "".join(c if c >= " " or c in "\t\n" else "\ufffd" for c in kept)
    assert page.text == kept
    assert not set("<>\"'") & set(escaped)


# --- text in several scripts ---


def test_a_line_takes_from_other_fonts_what_its_own_lacks():
    try:
        other = ImageFont.truetype("DejaVuSans.ttf", 20)
    except OSError:
        pytest.skip("DejaVu Sans is not installed")
    own = fonts.find_font("", size=20)
    assert not fonts._has_glyph(own, "ж")
    canvas = Image.new("L", (100, 40))
    fonts.draw_line(ImageDraw.Draw(canvas), (5, 3), "aжb", font=own, color=255)

    expected = Image.new("L", (100, 40))
    draw = ImageDraw.Draw(expected)
    left, baseline = 5.0, 3 + own.getmetrics()[0]
    for letter, font in (("a", own), ("жb", other)):  # which has a b, too
        draw.text((left, baseline), letter, fill=255, font=font, anchor="ls")
        left += font.getlength(letter)
    np.testing.assert_array_equal(np.asarray(canvas), np.asarray(expected))
    assert 0 <= fonts.text_width("aжb", font=own) - (left - 5) < 3


def test_ascii_is_drawn_as_pillow_draws_it():
    font = fonts.find_font("", size=18)
    pictures = []
    for write in (
        lambda draw: fonts.draw_line(draw, (4, 2), "AV. cat", font=font, color=255),
        lambda draw: draw.text((4, 2), "AV. cat", fill=255, font=font),
    ):
        pictures.append(Image.new("L", (100, 30)))
        write(ImageDraw.Draw(pictures[-1]))
    np.testing.assert_array_equal(*map(np.asarray, pictures))
