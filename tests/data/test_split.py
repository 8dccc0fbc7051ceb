"""Division: exact shares, rare labels everywhere, groups never torn, lines never changed."""

from collections import Counter
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlcls_jax.config import Data, Split
from mlcls_jax.data.backups import JOURNAL
from mlcls_jax.data.sources import open_data
from mlcls_jax.data.split import split
from mlcls_jax.data.stratify import divide
from mlcls_jax.errors import SplitFailedError
from tests.helpers.photos import write_lines, write_photos

LISTS = ("train.txt", "val.txt", "test.txt")


def run(root: Path, *, seed: int = 0, **options):
    return split(Data(dir=str(root)), Split(enable=True, **options), seed=seed)


def lists(root: Path) -> dict[str, list[str]]:
    return {
        name: (root / name).read_text().splitlines() for name in LISTS if (root / name).exists()
    }


def write_set(root: Path, train: list[str], val: list[str], labels: int = 2) -> Path:
    (root / "images").mkdir(parents=True, exist_ok=True)
    write_lines(root / "label.txt", [f"{i} label {i}" for i in range(labels)])
    write_lines(root / "train.txt", train)
    write_lines(root / "val.txt", val)
    return root


@pytest.fixture
def root(tmp_path):
    """Twenty images, some not annotated for the second label."""
    lines = [f"images/{i}.png\t{i % 2},{(1, 0, -1)[i % 3]}" for i in range(20)]
    return write_set(tmp_path, lines[:5], lines[5:])


# Lists


@pytest.mark.parametrize(
    ("percents", "expected"),
    [((80, 20, 0), [16, 4]), ((50, 50, 0), [10, 10]), ((70, 20, 10), [14, 4, 2])],
)
def test_all_lines_are_divided_by_the_percentages(root, percents, expected):
    before = lists(root)
    names = ("train_percent", "val_percent", "test_percent")
    found = run(root, **dict(zip(names, percents, strict=True)))
    after = lists(root)
    assert [len(lines) for lines in after.values()] == expected
    pooled = before["train.txt"] + before["val.txt"]
    assert sorted(chain.from_iterable(after.values())) == sorted(pooled)  # -1 and all
    for lines in after.values():
        assert lines == [line for line in pooled if line in lines]
    assert found.pooled == {"train.txt": 5, "val.txt": 15}
    assert found.images == dict(zip(after, expected, strict=True))
    assert found.backups == {"train.txt": "train.txt.bak", "val.txt": "val.txt.bak"}
    assert (root / "train.txt.bak").read_text().splitlines() == before["train.txt"]
    assert (root / "val.txt.bak").read_text().splitlines() == before["val.txt"]
    assert (found.root, found.groups, found.unmatched) == (root, 20, 0)


def test_folds_validate_on_each_image_once_and_leave_the_lists(root):
    before = lists(root)
    found = run(root, folds=3)
    assert lists(root) == before and not found.backups
    pooled = before["train.txt"] + before["val.txt"]
    folds = [
        [(root / f"fold{i}_{part}.txt").read_text().splitlines() for part in ("train", "val")]
        for i in (1, 2, 3)
    ]
    assert sorted(chain.from_iterable(val for _, val in folds)) == sorted(pooled)
    for train, val in folds:
        assert sorted(train + val) == sorted(pooled) and not {*train} & {*val}
        assert 3 <= sum(line.split("\t")[1].startswith("1") for line in val) <= 4  # of ten
    assert found.images == {f"fold{i}_val.txt": len(folds[i - 1][1]) for i in (1, 2, 3)}
    with pytest.raises(SplitFailedError, match=r"fold21_val.txt would be empty.*20 images"):
        run(root, folds=21)


def test_a_test_list_takes_part_only_if_there_is_to_be_one(root):
    write_lines(root / "test.txt", ["images/20.png\t1,1"])
    run(root)
    assert lists(root)["test.txt"] == ["images/20.png\t1,1"]
    found = run(root, train_percent=70, val_percent=20, test_percent=10)
    assert found.pooled == {"train.txt": 16, "val.txt": 4, "test.txt": 1}
    assert [len(lines) for lines in lists(root).values()] == [15, 4, 2]


@pytest.mark.parametrize("stratify", [False, True])
def test_the_seed_fixes_the_division(root, stratify):
    found = []
    for seed in (1, 1, 2):
        write_set(root, [f"images/{i}.png\t{i % 2},1" for i in range(20)], [])
        run(root, seed=seed, stratify=stratify)
        found.append(lists(root))
    assert found[0] == found[1] != found[2]


def test_lines_stay_as_they_are(tmp_path):
    odd = ["images/a b,c.png\t1, 0", "images/猫.png \t0,-1 ", "images/\u2028.png\t0,1"]
    train = "\ufeff" + "\r\n".join(odd) + "\r\n\r\n   \r\n"
    write_set(tmp_path, [], ["images/v.png\t1,1"])
    (tmp_path / "train.txt").write_bytes(train.encode())
    run(tmp_path, train_percent=50, val_percent=50)
    found = [(tmp_path / name).read_text().split("\n")[:-1] for name in LISTS[:2]]
    assert sorted(chain.from_iterable(found)) == sorted([*odd, "images/v.png\t1,1"])


def test_a_division_that_was_cut_off_is_taken_back_first(root):
    before = lists(root)
    (root / "train.txt").rename(root / "train.txt.bak")
    write_lines(root / "train.txt", before["train.txt"] + before["val.txt"])
    (root / JOURNAL).write_text('{"train.txt": "train.txt.bak", "val.txt": "val.txt.bak"}')
    assert run(root).pooled == {"train.txt": 5, "val.txt": 15}


@pytest.mark.parametrize("content", [None, ""])
def test_a_data_set_that_was_never_divided(root, content):
    (root / "val.txt").unlink()
    write_lines(root / "train.txt", [f"images/{i}.png\t0,1" for i in range(10)])
    if content is not None:
        (root / "val.txt").write_text(content)
    assert run(root).images == {"train.txt": 8, "val.txt": 2}


def test_other_names_of_the_lists(root):
    (root / "train.txt").rename(root / "a.txt")
    data = Data(dir=str(root), train_list="a.txt", val_list="val.txt")
    assert split(data, Split(enable=True), seed=0).images == {"a.txt": 16, "val.txt": 4}


def test_a_divided_data_set_is_trained_on(tmp_path):
    root = write_photos(tmp_path / "a" / "b", train=8, val=2)
    run(tmp_path, train_percent=50, val_percent=50)
    data = open_data(Data(dir=str(root)))
    assert (len(data.train), len(data.validation)) == (5, 5)


def test_lines_of_one_path_stay_together(tmp_path):
    write_set(tmp_path, [f"images/{i}.png\t1,0" for i in range(10)], ["images/3.png\t0,1"] * 5)
    run(tmp_path, train_percent=60, val_percent=40)
    parts = [{line.partition("\t")[0] for line in lines} for lines in lists(tmp_path).values()]
    assert not parts[0] & parts[1]


# Faults


def fails(root: Path, **options) -> str:
    before = {path: path.read_bytes() for path in root.iterdir() if path.is_file()}
    with pytest.raises(SplitFailedError) as caught:
        run(root, **options)
    assert {path: path.read_bytes() for path in root.iterdir() if path.is_file()} == before
    return caught.value.message.replace(f"{root}/", "")


def test_malformed_lines_are_told_together_and_nothing_changes(root):
    lines = (root / "train.txt").read_text().splitlines()
    write_lines(root / "train.txt", [lines[0], "images/x.png 1,0", "images/y.png\t1", *lines[1:]])
    write_lines(root / "val.txt", ["images/z.png\t0,2"])
    first, *others = fails(root).splitlines()
    assert first.startswith("train.txt:2: 'images/x.png 1,0' is not")
    assert others == [
        "train.txt:3: 1 values, but there are 2 labels",
        "val.txt:1: '2' in column 2 is neither 0, 1 nor -1",
    ]


def test_missing_and_empty_files_are_told(root, tmp_path):
    write_lines(root / "val.txt", [])
    write_lines(root / "train.txt", [])
    assert fails(root) == "train.txt: lists no images"
    (root / "train.txt").unlink()
    assert fails(root) == "train.txt: there is no such file"
    (root / "label.txt").write_text("1 a\n")
    assert "indices must run from 0" in fails(root)
    with pytest.raises(SplitFailedError, match="there is no such folder"):
        run(tmp_path / "none")


def test_a_list_that_would_be_empty_is_refused(tmp_path):
    write_set(tmp_path, ["images/0.png\t1,0", "images/1.png\t1,0"], [])
    assert fails(tmp_path) == "val.txt would be empty: there are 2 images in 2 groups"
    message = fails(tmp_path, train_percent=50, val_percent=50, group=r"\.png")
    assert message == "val.txt would be empty: there are 2 images in 1 groups"


@pytest.mark.parametrize(
    ("group", "expected"),
    [
        ("(", "check_dataset.split.group=(: is not a regular expression"),
        ("patient", "check_dataset.split.group=patient: matches no image, images/0.png"),
    ],
)
def test_a_wrong_group_is_told(root, group, expected):
    assert fails(root, group=group).startswith(expected)


# Groups


@settings(max_examples=30)
@given(
    sizes=st.lists(st.integers(1, 6), min_size=8, max_size=30),
    percents=st.sampled_from([(80, 20, 0), (60, 20, 20)]),
    seed=st.integers(0, 99),
)
def test_groups_are_never_torn(tmp_path_factory, sizes, percents, seed):
    names = [f"images/p{p:02d}_{i}.png" for p, size in enumerate(sizes) for i in range(size)]
    rows = [f"{name}\t{i % 3 % 2},{i % 2}" for i, name in enumerate(names)]
    root = write_set(tmp_path_factory.mktemp("groups"), rows[::2], rows[1::2])
    train, val, test = percents
    found = run(
        root, seed=seed, train_percent=train, val_percent=val, test_percent=test, group=r"/(p\d+)_"
    )
    assert (found.groups, found.unmatched) == (len(sizes), 0)
    patients = [{line[7:10] for line in lines} for lines in lists(root).values()]
    assert sum(map(len, patients)) == len(set.union(*patients)) == len(sizes)
    for images, percent in zip(found.images.values(), percents, strict=False):
        assert abs(images - len(names) * percent / 100) <= max(sizes)


def test_images_that_no_group_matches_stand_alone(root):
    found = run(root, group=r"images/1\d")
    assert (found.groups, found.unmatched) == (20, 10)
    found = run(root, group=r"images/(1)\d")
    assert (found.groups, found.unmatched) == (11, 10)
    whole = "".join(line for lines in lists(root).values() for line in lines)
    assert whole.count("images/1") == 11


def test_large_groups_find_room():
    weights = [1] * 50 + [30, 20]
    for seed in range(5):
        part = divide([Counter()] * len(weights), weights, [50, 50], seed=seed)
        assert np.bincount(part, weights).tolist() == [50, 50]


# Stratification


def parts_of(rows: np.ndarray, shares: list[int], seed: int = 0) -> np.ndarray:
    """Part of each of rows bool [N, K]."""
    labels = [Counter(np.flatnonzero(row).tolist()) for row in rows]
    return divide(labels, [1] * len(rows), shares, seed=seed)


@given(
    classes=st.lists(st.integers(0, 6), min_size=2, max_size=80),
    percent=st.integers(1, 99),
    seed=st.integers(0, 99),
)
def test_of_one_label_an_image_every_label_is_within_one_image_of_its_share(classes, percent, seed):
    shares = np.array([percent, 100 - percent])
    rows = np.eye(7, dtype=bool)[classes]
    part = parts_of(rows, shares.tolist(), seed)
    for present in rows.T:
        counts = np.bincount(part[present], minlength=2)
        assert np.abs(counts - present.sum() * shares / 100).max() < 1
    sizes = np.bincount(part, minlength=2)
    assert np.abs(sizes - len(classes) * shares / 100).max() <= 0.5


@pytest.mark.parametrize("shares", [[70, 20, 10], [34, 33, 33], [25, 25, 25, 25]])
def test_so_it_is_with_more_parts(shares):
    rng = np.random.default_rng(0)
    for seed in range(100):
        rows = np.eye(9, dtype=bool)[np.minimum(*rng.integers(0, 9, (2, 97)))]
        part = parts_of(rows, shares, seed)
        for present in rows.T:
            counts = np.bincount(part[present], minlength=len(shares))
            assert np.abs(counts - present.sum() * np.array(shares) / 100).max() <= 1


@given(
    rows=st.lists(st.sets(st.integers(0, 9), max_size=4), min_size=3, max_size=60),
    percents=st.sampled_from([(80, 20), (50, 50), (70, 20, 10), (34, 33, 33), (98, 1, 1)]),
    stratify=st.booleans(),
)
def test_every_part_has_its_size(rows, percents, stratify):
    labels = [Counter(row if stratify else ()) for row in rows]
    part = divide(labels, [1] * len(rows), percents, seed=0)
    sizes = np.bincount(part, minlength=len(percents))
    assert np.abs(sizes - len(rows) * np.array(percents) / 100).max() < 1


@pytest.mark.parametrize("shares", [[80, 20], [70, 20, 10]])
def test_so_it_has_where_every_image_has_many_labels(shares):
    rows = np.random.default_rng(0).random((1000, 20)) < 0.5
    assert np.bincount(parts_of(rows, shares)).tolist() == [10 * share for share in shares]


@pytest.mark.parametrize("shares", [[80, 20], [70, 20, 10]])
def test_rare_labels_keep_their_shares_far_better_than_by_chance(shares):
    rng = np.random.default_rng(0)
    rows = rng.random((3000, 30)) < np.geomspace(0.3, 0.003, 30)  # rarest: about nine images
    chance = divide([Counter()] * len(rows), [1] * len(rows), shares, seed=0)

    def worst(part):
        """The largest distance to a label's share, in images."""
        ideal = np.outer(shares, rows.sum(0)) / 100
        return np.abs([rows[part == j].sum(0) for j in range(len(shares))] - ideal).max()

    assert worst(parts_of(rows, shares)) < 2
    assert worst(chance) > 10


def test_stratify_is_passed_on(tmp_path):
    # Five images of one label, each alone of its kind in twenty: by chance a list may miss it.
    lines = [f"images/{i}.png\t{1 if i < 5 else -1},0" for i in range(100)]
    missed = {True: 0, False: 0}
    for stratify in missed:
        for seed in range(10):
            write_set(tmp_path, lines, [])
            run(tmp_path, seed=seed, stratify=stratify)
            rare = sum(line.endswith("\t1,0") for line in lists(tmp_path)["val.txt"])
            missed[stratify] += rare != 1
    assert missed[True] == 0 < missed[False]


def test_images_without_labels_are_divided_too():
    rows = np.zeros((50, 3), bool)
    rows[:5, 0] = True
    part = parts_of(rows, [80, 20])
    assert np.bincount(part).tolist() == [40, 10]
    assert np.bincount(part[:5]).tolist() == [4, 1]
