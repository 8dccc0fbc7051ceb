"""The check of a data set: what it finds, and that what passes is what trains."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from mlcls_jax.config import Data
from mlcls_jax.data.checks import NUM_SAMPLES, check
from mlcls_jax.data.duplicates import ALIKE, candidates, closer_look, first_equal, is_alike
from mlcls_jax.data.findings import KINDS, MAX_SHOWN, CheckReport, Collector, Finding
from mlcls_jax.data.sources import load, open_data
from mlcls_jax.errors import DataError, DatasetFileNotFoundError
from tests.helpers.broken_data import BROKEN, write_good
from tests.helpers.photos import write_image, write_lines, write_photos

# Errors that keep nothing from being read.
READABLE = {"contradiction", "leak", "leak_copy"}


@pytest.fixture
def root(tmp_path):
    return write_good(tmp_path / "data")


def run(
    folder: Path, *, pixels: bool = False, threads: int = 2, findings_file: Path | None = None
) -> CheckReport:
    data = Data(dir=str(folder))
    return check(folder, data, pixels=pixels, threads=threads, findings_file=findings_file)


def found(report: CheckReport) -> list[Finding]:
    return [finding for group in report.groups for finding in group.findings]


def trains(root: Path) -> bool:
    """Whether every image of both lists can be loaded."""
    try:
        for source in open_data(Data(dir=str(root))):
            for i in range(len(source)):
                load(source, i)
    except DataError:
        return False
    return True


def comparable(report: CheckReport) -> list[object]:
    arrays = [report.cooccurrence.tolist()]
    for split in report.splits.values():
        arrays += [split.positives.tolist(), split.unknown.tolist(), split.images]
        arrays += [(image, target.tolist()) for image, target in split.samples]
    counts = [(group.name, group.count, group.findings) for group in report.groups]
    return [report.labels, report.images_checked, counts, arrays]


@pytest.mark.parametrize("pixels", [False, True])
def test_nothing_is_found_in_a_good_data_set(root, pixels):
    report = run(root, pixels=pixels)
    assert report.passed and not report.groups
    assert (report.root, report.label_file, report.pixels) == (root, "label.txt", pixels)
    assert (report.labels, report.images_checked) == (("cat", "dog", "bird"), 9)
    assert [(s.name, s.list_file, s.images) for s in report.splits.values()] == [
        ("train", "train.txt", 6),
        ("val", "val.txt", 3),
    ]
    samples = report.splits["train"].samples
    assert [image for image, _ in samples] == [f"images/train_{i}.png" for i in range(6)]
    for i, (_, target) in enumerate(samples):
        np.testing.assert_array_equal(target, np.eye(3, dtype=np.int8)[i % 3], strict=True)


@pytest.mark.parametrize("broken", BROKEN, ids=[broken.name for broken in BROKEN])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_every_fault_is_told_and_nothing_else(root, broken):
    broken.spoil(root)
    report = run(root, pixels=broken.pixels)
    told, expected = sorted(found(report)), sorted(broken.found)
    assert [(f.kind, f.place) for f in told] == [(kind, place) for kind, place, _ in expected]
    for finding, (_, _, message) in zip(told, expected, strict=True):
        assert message in finding.message
    errors = {finding.kind for finding in told if KINDS[finding.kind].severity == "error"}
    assert report.passed == (not errors)
    assert trains(root) == (errors <= READABLE)
    other = sorted(found(run(root, pixels=not broken.pixels)))
    assert other == ([] if broken.pixels else told)


def test_every_kind_of_finding_is_in_the_table():
    assert {kind for broken in BROKEN for kind, _, _ in broken.found} == set(KINDS)


def test_all_faults_are_told_at_once(root):
    write_lines(root / "label.txt", ["0 cat", "0 dog", "2 bird"])
    write_lines(
        root / "train.txt",
        [
            "images/train_0.png\t1,0,0",
            "images/train_1.png,0,1,0",
            "images/train_2.png\t0,0,3",
            "",
            "images/nope.png\t0,1,-1",
            "images/train_4.png\t0,1,0",
            "images/train_5.png\t0,0,0",
            "images/val_0.png\t1,0,0",
        ],
    )
    (root / "images/train_2.png").write_bytes(b"")
    (root / "images/train_5.png").write_text("nothing")
    shutil.copy(root / "images/train_0.png", root / "images/val_1.png")
    report = run(root)
    assert [(finding.kind, finding.place) for finding in found(report)] == [
        ("label_index", "label.txt:2"),
        ("delimiter", "train.txt:2"),
        ("value", "train.txt:3"),
        ("missing_image", "train.txt:5"),
        ("empty_image", "train.txt:3"),
        ("not_image", "train.txt:7"),
        ("leak", "val.txt:1"),
        ("leak_copy", "val.txt:2"),
        ("blank_line", "train.txt:4"),
        ("no_positives", "train.txt"),
        ("unlabelled", "train.txt:7"),
        ("unlisted", "images/train_3.png"),
    ]
    assert not report.passed
    assert report.labels == ("cat", "1", "bird")  # as many as most lines have values
    assert report.splits["train"].images == 5
    samples = [image for image, _ in report.splits["train"].samples]
    assert samples == [f"images/{name}.png" for name in ("train_0", "train_4", "val_0")]


targets_of_lists = st.integers(1, 5).flatmap(
    lambda k: st.tuples(
        *[
            arrays.arrays(
                np.int8, st.tuples(st.integers(1, 6), st.just(k)), elements=st.integers(-1, 1)
            )
        ]
        * 2
    )
)


@settings(max_examples=40)
@given(targets=targets_of_lists, separator=st.sampled_from([",", ", ", " ,"]))
def test_counts_and_targets_are_those_of_the_lists(tmp_path_factory, targets, separator):
    root = tmp_path_factory.mktemp("counts")
    (root / "images").mkdir()
    num_classes = targets[0].shape[1]
    write_lines(root / "label.txt", [f"{k} label {k}" for k in range(num_classes)])
    expected = []
    for split, rows in zip(("train", "val"), targets, strict=True):
        lines = []
        for i, row in enumerate(rows.tolist()):
            name = f"images/{split}_{i}.ppm"
            (root / name).write_bytes(b"P6 1 1 255\n" + f"{split[0]}{i:02}".encode())
            lines.append(f"{name}\t{separator.join(map(str, row))}")
            if 1 not in row:
                kind = "unannotated" if set(row) == {-1} else "unlabelled"
                expected.append((kind, f"{split}.txt:{i + 1}"))
        write_lines(root / f"{split}.txt", lines)
        for column in rows.T.tolist():
            if 1 not in column:
                kind = "no_annotation" if set(column) == {-1} else "no_positives"
                expected.append((kind, f"{split}.txt"))
    report = run(root)
    assert sorted((f.kind, f.place) for f in found(report)) == sorted(expected)
    for summary, rows in zip(report.splits.values(), targets, strict=True):
        np.testing.assert_array_equal(summary.positives, (rows == 1).sum(0))
        np.testing.assert_array_equal(summary.unknown, (rows == -1).sum(0))
        assert summary.unlabelled == (rows != 1).all(1).sum()
        np.testing.assert_array_equal([target for _, target in summary.samples], rows)
    present = (np.concatenate(targets) == 1).astype(np.int64)
    np.testing.assert_array_equal(report.cooccurrence, present.T @ present)
    for source, rows in zip(open_data(Data(dir=str(root))), targets, strict=True):
        np.testing.assert_array_equal([source[i][1] for i in range(len(source))], rows)


def test_pairs_are_counted_of_the_most_frequent_labels_alone(root):
    """A matrix of all took 152 GiB for 142,857 labels."""
    write_lines(root / "label.txt", [f"{k} {k}" for k in range(60)])
    for name in ("train", "val"):
        images = [line.split("\t")[0] for line in (root / f"{name}.txt").read_text().splitlines()]
        row = ["0"] * 10 + ["1"] * 50
        write_lines(root / f"{name}.txt", [f"{image}\t{','.join(row)}" for image in images])
    report = run(root)
    assert report.frequent.tolist() == [*range(10, 50)]
    np.testing.assert_array_equal(report.cooccurrence, np.full((40, 40), 9))


PIECES = [
    *(b"images/train_0.png", b"images/train_1.png\t0,1,0", b"images/train_2.png", b"0,1,0", b"0"),
    *(b"1", b"-1", b"2", b",", b"\t", b" ", b"\n", b"\n", b"\r\n", b"\r", b"\0", b"\xff", b"../"),
    *(b"\xef\xbb\xbf", b"\xff\xfe", "\u00a0".encode(), b"0 cat\n1 dog\n2 bird\n", b"3 fish"),
]


@pytest.fixture(scope="module")
def shared_root(tmp_path_factory):
    return write_good(tmp_path_factory.mktemp("shared") / "data")


@settings(max_examples=150)
@given(
    label_file=st.none() | st.lists(st.sampled_from(PIECES), max_size=6),
    train_list=st.none() | st.lists(st.sampled_from(PIECES), max_size=10),
)
def test_whatever_stands_in_the_files_what_passes_is_what_trains(
    shared_root, label_file, train_list
):
    contents = {"label.txt": (b"0 cat\n1 dog\n2 bird\n", label_file)}
    contents["train.txt"] = (b"images/train_0.png\t1,0,0\n", train_list)
    for name, (good, drawn) in contents.items():
        (shared_root / name).write_bytes(good if drawn is None else b"".join(drawn))
    report = run(shared_root)
    errors = {group.name for group in report.groups if group.kind.severity == "error"}
    assert trains(shared_root) == (errors <= READABLE)


def test_threads_change_nothing(tmp_path):
    root = write_photos(tmp_path / "data", train=150, val=10)  # validation images are copies
    for i in range(0, 150, 7):
        (root / f"images/train_{i}.png").write_bytes(b"x" * i)
    reports, files = [], []
    for threads in (1, 2, 7):
        files.append(tmp_path / f"{threads}.txt")
        reports.append(comparable(run(root, pixels=True, threads=threads, findings_file=files[-1])))
    assert reports[0] == reports[1] == reports[2]
    first, *others = (file.read_text() for file in files)
    assert others == [first] * 2
    assert first.count("\n") == 22 + 8  # spoilt images, and copies of images that are not


def test_only_the_first_findings_of_a_kind_are_kept_and_the_file_has_all(root, tmp_path):
    count = MAX_SHOWN + 5
    with (root / "train.txt").open("a") as file:
        file.writelines(f"images/{i}.png\t1,0,0\n" for i in range(count))
    file = tmp_path / "findings.txt"
    (group,) = run(root, findings_file=file).groups
    assert (group.name, group.count, len(group.findings)) == ("missing_image", count, MAX_SHOWN)
    assert group.findings[-1].place == f"train.txt:{6 + MAX_SHOWN}"
    lines = file.read_text().splitlines()
    assert lines == [
        f"error: train.txt:{i + 7}: images/{i}.png: there is no such image" for i in range(count)
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "findings.txt"]


def test_a_file_of_findings_is_whole_or_not_there(tmp_path):
    file = tmp_path / "findings.txt"
    with pytest.raises(KeyError), Collector(file) as findings:
        findings.add(Finding("bom", "train.txt:1", "one"), Finding("nonsense", "", ""))
    assert list(tmp_path.iterdir()) == []


def test_plain_pictures_look_like_nothing(root):
    for i, colour in enumerate(("white", "black", "#777")):
        Image.new("RGB", (20, 20), colour).save(root / f"images/val_{i}.png")
    assert run(root, pixels=True).groups == []


def test_names_that_are_no_text_are_told_in_one_line(root, tmp_path):
    with open(os.fsencode(root) + b"/images/a\n\xff.png", "wb"):
        run(root, findings_file=tmp_path / "findings.txt")
    told = (tmp_path / "findings.txt").read_text()
    assert told == "note: images/a\\n\\xff.png: is in no list\n"


def test_samples_are_the_first_readable_images(tmp_path):
    root = write_photos(tmp_path / "data", train=14, val=2)
    for i in (0, 3):
        (root / f"images/train_{i}.png").write_bytes(b"")
    summary = run(root).splits["train"]
    names = [f"images/train_{i}.png" for i in range(14) if i not in (0, 3)]
    assert [image for image, _ in summary.samples] == names[:NUM_SAMPLES]
    assert summary.images == 14


def test_a_test_list_counts_too_and_files_may_have_other_names(tmp_path):
    root = write_good(tmp_path / "up" / "data")
    for old, new in (("label", "names"), ("train", "a"), ("val", "b")):
        (root / f"{old}.txt").rename(root / f"{new}.txt")
    write_image(root / "images/test.png", seed=50)
    write_lines(root / "test.txt", ["images/test.png\t1,1,1"])
    data = Data(label_file="names.txt", train_list="a.txt", val_list="b.txt")
    report = check(tmp_path, data, pixels=False, threads=1)
    assert not report.groups
    assert [summary.list_file for summary in report.splits.values()] == [
        "a.txt",
        "b.txt",
        "test.txt",
    ]
    np.testing.assert_array_equal(report.cooccurrence, np.eye(3) * 3 + 1)


def test_one_list_for_both_is_a_leak_of_every_image(root):
    report = check(root, Data(val_list="train.txt"), pixels=False, threads=1)
    assert [(f.kind, f.place) for f in found(report)] == [
        *(("leak", f"train.txt:{i}") for i in range(1, 7)),
        *(("unlisted", f"images/val_{i}.png") for i in range(3)),
    ]


def test_no_folder_and_no_images_folder_stop_the_check(tmp_path):
    for folder in (tmp_path, tmp_path / "nope"):
        with pytest.raises(DatasetFileNotFoundError, match=str(folder)):
            run(folder)


hashes = st.builds(
    lambda base, flips: base ^ sum({1 << flip for flip in flips}),
    st.sampled_from([0, 2**64 - 1, 0x0123456789ABCDEF]),
    st.lists(st.integers(0, 63), max_size=8),
)


@given(st.lists(hashes, max_size=30))
def test_hashes_that_are_alike_are_all_found(values):
    def distance(i: int, j: int) -> int:
        return (values[i] ^ values[j]).bit_count()

    expected = {
        i: sorted((distance(i, j), j) for j in range(i) if distance(i, j) <= ALIKE)
        for i in range(len(values))
    }
    found = {i: [] for i in range(len(values))}
    for i, j in candidates(np.array(values, np.uint64)).tolist():
        found[i].append((distance(i, j), j))
    for i, pairs in expected.items():
        if len(pairs) <= 8:
            assert found[i] == pairs
        else:  # some of them, the nearest first
            assert len(found[i]) == 8 and found[i] == sorted(set(found[i]) & set(pairs))
    equal = [values.index(value) for value in values]
    assert first_equal(np.array(values, np.uint64)).tolist() == equal


def test_thousands_of_pictures_that_are_alike_take_no_time():
    rng = np.random.default_rng(0)
    flips = rng.integers(0, 64, (20_000, 2)).astype(np.uint64)
    looks = np.uint64(12345) ^ (np.uint64(1) << flips[:, 0]) ^ (np.uint64(1) << flips[:, 1])
    pairs = candidates(looks)
    assert len(np.unique(pairs[:, 0])) == len(looks) - 1  # each but the first has a partner
    assert len(pairs) <= 8 * len(looks)


def scene(seed: int) -> Image.Image:
    """A picture with large and small forms."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (7, 9, 3), dtype=np.uint8))
    return coarse.resize((320, 240), Image.Resampling.BICUBIC)


@pytest.mark.parametrize(
    "change",
    [
        lambda image: image.resize((80, 60)),
        lambda image: image.resize((1000, 500)),
        lambda image: image.point(lambda value: value * 0.6),
        lambda image: image.point(lambda value: 40 + value * 0.7),
        lambda image: image.convert("L").convert("RGB"),
        lambda image: image.crop((3, 2, 317, 238)),
        lambda image: image.quantize(32).convert("RGB"),
    ],
)
def test_a_changed_copy_is_alike(change):
    for seed in range(5):
        image = scene(seed)
        looks = [closer_look(np.asarray(picture)) for picture in (image, change(image))]
        assert is_alike(*looks)


def test_other_pictures_are_not_alike():
    looks = [closer_look(np.asarray(scene(seed))) for seed in range(40)]
    assert not any(is_alike(looks[i], looks[j]) for i in range(40) for j in range(i))
    # One scene with an object in it, and without.
    image = np.array(scene(0))
    image[60:180, 100:220] = 255 - image[60:180, 100:220]
    assert not is_alike(looks[0], closer_look(image))


def test_clear_skies_are_not_called_alike(root):
    """Two slopes without detail: their hashes of 64 bits are equal, and say nothing."""
    for i, (name, top) in enumerate((("train_0", 90), ("train_3", 120))):
        rows = np.linspace(top, top + 60, 240) + np.random.default_rng(i).normal(0, 1, (320, 240))
        sky = np.repeat(rows[..., None], 3, axis=2).astype(np.uint8)
        Image.fromarray(sky).save(root / f"images/{name}.png")
    report = check(root, Data(), pixels=True, threads=1)
    assert not [f for f in found(report) if f.kind == "near_copy"]


def test_other_spellings_are_seen_in_linked_folders_and_beside_listed_images(tmp_path):
    root = write_photos(tmp_path / "data")
    (root / "images").rename(tmp_path / "elsewhere")
    (root / "images").mkdir()
    (root / "images/link").symlink_to(tmp_path / "elsewhere")
    (root / "images/link/round").symlink_to("..")
    for name in ("train.txt", "val.txt"):
        text = (root / name).read_text().replace("images/", "images/link/")
        (root / name).write_text(text)
    with (root / "val.txt").open("a") as file:
        file.write("images/link/Val_1.PNG\t1,0,0\nimages/link/none.png\t1,0,0\n")
    report = check(root, Data(), pixels=False, threads=1)
    told = {f.kind: f.message for f in found(report) if f.kind in ("spelling", "missing_image")}
    assert told == {
        "spelling": "images/link/Val_1.PNG: there is no such image, but there is"
        " images/link/val_1.png",
        "missing_image": "images/link/none.png: there is no such image",
    }
