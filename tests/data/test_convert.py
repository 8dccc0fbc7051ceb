"""Conversion: the originals' lists where these are right, pycocotools' answers, and no damage."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO

from mlcls_jax.config import Convert, Data
from mlcls_jax.data.backups import JOURNAL, recover, replace_files
from mlcls_jax.data.convert import Conversion, convert, remarks
from mlcls_jax.data.sources import load, open_data
from mlcls_jax.errors import ConvertFailedError, DataError
from tests.helpers.photos import write_image, write_lines

GOLDENS = Path(__file__).parents[1] / "data" / "coco_convert"


def run(root: Path, source_type: str = "coco", **options):
    return convert(Data(dir=str(root)), Convert(enable=True, source_type=source_type, **options))


def rows(path: Path) -> dict[str, list[int]]:
    """The targets of a list by path, in the list's order."""
    lines = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]
    assert len({image for image, _ in lines}) == len(lines)
    return {image: [int(value) for value in values.split(",")] for image, values in lines}


def named_rows(root: Path, split: str = "train") -> dict[str, set[str]]:
    """The label names of each image of a list, as training sees them."""
    source = getattr(open_data(Data(dir=str(root))), "train" if split == "train" else "validation")
    return {
        os.path.relpath(source.name(i), root): {
            name for name, value in zip(source.labels, source[i][1], strict=True) if value
        }
        for i in range(len(source))
    }


def tree(root: Path) -> dict[str, bytes | str]:
    """Every file and link below a folder, with its content."""
    return {
        str(path.relative_to(root)): os.readlink(path) if path.is_symlink() else path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_symlink() or path.is_file()
    }


def fails(root: Path, source_type: str = "coco", **options) -> str:
    """The message of a conversion that fails; see that nothing changes."""
    before = tree(root)
    with pytest.raises(ConvertFailedError) as caught:
        run(root, source_type, **options)
    assert tree(root) == before
    return caught.value.message.replace(f"{root}/", "")


def write_coco(path: Path, images: dict[int, str], annotations, categories: dict[int, str]) -> None:
    """annotations: (image id, category id, area, iscrowd)."""
    content = {
        "images": [{"id": i, "file_name": n, "width": 12, "height": 10} for i, n in images.items()],
        "annotations": [
            {
                "id": n,
                "image_id": i,
                "category_id": c,
                "iscrowd": k,
                "area": a,
                "bbox": [0, 0, a, 1],
            }
            for n, (i, c, a, k) in enumerate(annotations, start=1)
        ],
        "categories": [{"id": i, "name": name} for i, name in categories.items()],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


HOLES = {90: "hair drier", 3: "car", 1: "person"}


@pytest.fixture
def coco(tmp_path):
    """COCO's own layout, with ids with holes and images in no order."""
    root, rng = tmp_path / "coco", np.random.default_rng(0)
    for split, number in (("train2017", 12), ("val2017", 5)):
        images = {int(i): f"{i:06d}.png" for i in rng.choice(1000, number, replace=False)}
        for i, name in images.items():
            write_image(root / split / name, i)
        annotations = [
            (int(rng.choice(list(images))), int(rng.choice([1, 3, 90])), int(area), int(area) % 2)
            for area in rng.integers(1, 12, 2 * number)
        ]
        write_coco(root / f"annotations/instances_{split}.json", images, annotations, HOLES)
    return root


# The originals' outputs


@pytest.fixture
def golden(tmp_path):
    return Path(shutil.copytree(GOLDENS, tmp_path / "golden"))


def test_with_crowds_the_rows_are_the_originals_but_for_the_order_of_the_columns(golden):
    run(golden, crowd=True)
    # Theirs are in the order of `categories` in the file, ours in that of the ids.
    theirs = [line.split(" ", 1)[1] for line in (golden / "paddlex_label.txt").open()]
    labels = (golden / "label.txt").read_text().splitlines()
    order = [theirs.index(line.split(" ", 1)[1] + "\n") for line in labels]
    assert order == [1, 0, 3, 2]
    for split in ("train", "val"):
        expected = rows(golden / f"paddlex_{split}.txt")
        found = rows(golden / f"{split}.txt")
        assert list(found) == list(expected)
        assert found == {image: [row[i] for i in order] for image, row in expected.items()}
    expected = rows(golden / "paddleclas_train_list.txt")
    assert {f"images/{i}": [row[k] for k in order] for i, row in expected.items()} == found


def test_crowd_boxes_do_not_count_unless_asked_for(golden):
    run(golden, crowd=True)
    counted = named_rows(golden)
    run(golden)
    differing = {i: counted[i] - names for i, names in named_rows(golden).items()}
    assert {image: names for image, names in differing.items() if names} == {
        "images/0007.jpg": {"person"},
        "images/0055.jpg": {"hair drier"},
    }


def test_label_ids_are_contiguous_where_the_originals_are_refused(golden):
    run(golden)
    expected = "0 person\n1 airplane\n2 dog\n3 hair drier\n"
    assert (golden / "label.txt").read_text() == expected
    shutil.copy(golden / "paddlex_label.txt", golden / "label.txt")
    with pytest.raises(DataError, match="indices must run from 0"):
        open_data(Data(dir=str(golden)))


def test_what_is_left_out_is_told(golden):
    found = run(golden)
    train, val = "instance_train.json", "instance_val.json"
    assert found.left_out == {
        "boxes around crowds": [
            f"{name}: annotation {number}" for name in (train, val) for number in (4, 8)
        ],
        "images of no width or height": [f"{name}: 0060.jpg" for name in (train, val)],
        "missing images": [f"{golden}/images/missing.jpg"] * 2,
    }
    assert remarks(found) == [
        f"left out 4 boxes around crowds: {train}: annotation 4, {train}: annotation 8,"
        f" {val}: annotation 4, …",
        f"left out 2 images of no width or height: {train}: 0060.jpg, {val}: 0060.jpg",
        f"left out 2 missing images: {golden}/images/missing.jpg, {golden}/images/missing.jpg",
    ]
    assert found.labels == ("person", "airplane", "dog", "hair drier")
    assert found.images == {"train": 5, "val": 5}
    assert (found.root, found.links, found.backups) == (golden, {}, {})


# COCO


@pytest.mark.parametrize("crowd", [False, True])
@pytest.mark.parametrize("min_area", [0.0, 4.0])
@pytest.mark.parametrize("keep_empty", [False, True])
def test_every_row_is_what_pycocotools_says(coco, capsys, crowd, min_area, keep_empty):
    found = run(coco, crowd=crowd, min_area=min_area, keep_empty=keep_empty)
    assert capsys.readouterr().out == ""  # pycocotools would talk
    assert (coco / "label.txt").read_text() == "0 person\n1 car\n2 hair drier\n"
    left_out = 0
    for split in ("train", "val"):
        reference = COCO(str(coco / f"annotations/instances_{split}2017.json"))
        expected = {}
        for image in sorted(reference.getImgIds()):
            chosen = {
                "imgIds": [image],
                "areaRng": [min_area - 0.5, np.inf],
                "iscrowd": None if crowd else False,
            }
            row = [int(bool(reference.getAnnIds(catIds=[c], **chosen))) for c in (1, 3, 90)]
            name = reference.loadImgs([image])[0]["file_name"]
            if any(row) or keep_empty:
                expected[f"images/{split}2017/{name}"] = row
            else:
                left_out += 1
        assert list(rows(coco / f"{split}.txt").items()) == list(expected.items())
        assert found.images[split] == len(expected)
    assert len(found.left_out.get("images without labels", ())) == left_out
    assert left_out == 0 if keep_empty else left_out > 0


def test_images_of_cocos_own_layout_are_linked_and_trained_on(coco):
    before = tree(coco)
    found = run(coco)
    assert found.links == {f"images/{n}": coco / n for n in ("train2017", "val2017")}
    assert os.readlink(coco / "images/train2017") == "../train2017"  # holds when all is moved
    moved = coco.rename(coco.with_name("moved"))
    assert before.items() <= tree(moved).items()
    data = open_data(Data(dir=str(moved)))
    assert (len(data.train), len(data.validation)) == (12, 5)
    image = int(Path(data.train.name(0)).stem)
    np.testing.assert_array_equal(load(data.train, 0)[0], write_image(moved / "copy.png", image))


def test_a_second_conversion_changes_nothing(coco):
    run(coco)
    before = tree(coco)
    again = run(coco)
    assert (again.links, again.backups, tree(coco)) == ({}, {}, before)


def test_annotations_and_images_may_lie_elsewhere(coco, tmp_path):
    root = tmp_path / "mine"
    root.mkdir()
    options = {}
    for split in ("train", "val"):
        options[f"{split}_annotations"] = str(coco / f"annotations/instances_{split}2017.json")
        options[f"{split}_images"] = str(coco / f"{split}2017")
    before = tree(coco)
    run(root, **options)
    assert tree(coco) == before
    assert sorted(tree(root)) == [
        *("images/train2017", "images/val2017", "label.txt", "train.txt", "val.txt")
    ]
    assert len(open_data(Data(dir=str(root))).train) == 12


def test_links_hold_where_images_is_a_link_and_the_folder_is_given_relatively(
    coco, tmp_path, monkeypatch
):
    (tmp_path / "disk").mkdir()
    (coco / "images").symlink_to(tmp_path / "disk")
    monkeypatch.chdir(tmp_path)
    run(Path("coco"))
    assert len(open_data(Data(dir="coco")).train) == 12


def test_folders_of_the_same_name_get_different_links(coco):
    for split in ("train", "val"):
        (coco / split).mkdir()
        (coco / f"{split}2017").rename(coco / split / "photos")
    found = run(coco, train_images="train/photos", val_images="val/photos")
    assert list(found.links) == ["images/train_photos", "images/val_photos"]
    assert len(open_data(Data(dir=str(coco))).validation) == 5


def test_images_inside_images_need_no_link(coco):
    (coco / "images").mkdir()
    for name in ("train2017", "val2017"):
        (coco / name).rename(coco / "images" / name)
    assert run(coco).links == {}
    assert len(open_data(Data(dir=str(coco))).train) == 12


def test_a_nested_data_set_is_found(golden, tmp_path):
    assert run(tmp_path).root == golden


def test_what_is_in_the_way_of_a_link_stays(coco):
    (coco / "images").mkdir()
    (coco / "images/val2017").write_text("mine")
    message = fails(coco)
    assert message == "images/val2017: is in the way of a link to val2017"
    assert not os.path.lexists(coco / "images/train2017")  # made before, taken away again


def test_images_that_are_not_beside_the_lists_are_missing(coco):
    message = fails(coco, train_images=".")
    assert "no images for train" in message and "missing images" in message


def test_training_annotations_alone_leave_validation_to_the_split(coco):
    (coco / "annotations/instances_val2017.json").unlink()
    write_lines(coco / "val.txt", ["of other labels"])
    found = run(coco)
    assert found.images == {"train": 12}
    assert "check_dataset.split.enable" in remarks(found)[-1]
    assert found.backups == {"val.txt": "val.txt.bak"}
    assert not (coco / "val.txt").exists()


def test_boxes_of_images_that_are_not_listed_are_told(coco):
    content = json.loads((coco / TRAIN).read_text())
    content["annotations"] = [{"id": 7, "image_id": -5, "category_id": 3}]
    (coco / TRAIN).write_text(json.dumps(content))
    left_out = run(coco).left_out["boxes of images that are not listed"]
    assert left_out == [f"{Path(TRAIN).name}: annotation 7"]


def test_a_byte_order_mark_does_not_matter(coco):
    path = coco / "annotations/instances_train2017.json"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert run(coco).images["train"] == 12


def test_odd_file_names(tmp_path):
    names = ["猫.png", "my cat, (1).png", "deep/er/ü.png", "tab\t.png", "../up.png", "end.png "]
    for name in names:
        write_image(tmp_path / "images" / name)
    images = dict(enumerate(names))
    write_coco(tmp_path / "annotations/instance_train.json", images, [], {1: "a"})
    found = run(tmp_path)
    assert list(rows(tmp_path / "train.txt")) == [f"images/{name}" for name in names[:3]]
    reason = "images with tabs, line ends, a blank at the end or no UTF-8 in their names"
    assert found.left_out == {
        "images outside their folder": ["../up.png"],
        reason: [r"'tab\t.png'", "'end.png '"],
    }


def test_sizes_that_are_illegal_or_not_given(tmp_path):
    path = tmp_path / "annotations/instance_train.json"
    names = {i: f"{i}.png" for i in range(4)}
    write_coco(path, names, [(0, 1, 9, 0), (0, 2, 9, 0)], {1: "small", 2: "large"})
    content = json.loads(path.read_text())
    del content["images"][0]["width"]
    for image, height in zip(content["images"], (None, None, 0, -1), strict=True):
        image["height"] = height
    for annotation, area in zip(content["annotations"], (3, 4), strict=True):
        del annotation["bbox"]
        annotation["area"] = area
    path.write_text(json.dumps(content))
    for name in names.values():
        write_image(tmp_path / "images" / name)
    found = run(tmp_path, min_area=4)
    assert rows(tmp_path / "train.txt") == {"images/0.png": [0, 1], "images/1.png": [0, 0]}
    assert found.left_out == {
        "boxes smaller than min_area": ["instance_train.json: annotation 1"],
        "images of no width or height": [f"instance_train.json: {i}.png" for i in (2, 3)],
    }


def set_value(*keys, value):
    def damage(content):
        for key in keys[:-1]:
            content = content[key]
        content[keys[-1]] = value

    return damage


TRAIN = "annotations/instances_train2017.json"
DAMAGES = {
    "no list": (set_value("images", value=None), f"{TRAIN}: images is missing or no list"),
    "no name": (
        set_value("images", 2, value={"id": 4}),
        f"{TRAIN}: images[2]: file_name is missing or not of type str",
    ),
    "no entry": (
        set_value("annotations", 0, value=7),
        f"{TRAIN}: annotations[0]: id is missing or not of type int",
    ),
    "unknown category": (
        set_value("annotations", 5, "category_id", value=2),
        f"{TRAIN}: annotations[5]: no category 2",
    ),
    "one id twice": (
        set_value("categories", 1, "id", value=90),
        f"{TRAIN}: categories[1]: id 90 was given before",
    ),
    "other category in val": (
        set_value("categories", 0, "name", value="comb"),
        f"category 90: 'comb' in {TRAIN}, 'hair drier' in annotations/instances_val2017.json",
    ),
    "one category more": (
        lambda content: content["categories"].append({"id": 4, "name": "cup"}),
        f"category 4: 'cup' in {TRAIN}, None in annotations/instances_val2017.json",
    ),
}


@pytest.mark.parametrize(("damage", "expected"), DAMAGES.values(), ids=DAMAGES.keys())
def test_a_malformed_coco_file_is_told_and_nothing_changes(coco, damage, expected):
    content = json.loads((coco / TRAIN).read_text())
    damage(content)
    (coco / TRAIN).write_text(json.dumps(content))
    assert expected in fails(coco).splitlines()


def test_a_cut_off_coco_file_is_told_with_its_line(coco):
    text = json.dumps(json.loads((coco / TRAIN).read_text()), indent=1)
    (coco / TRAIN).write_text("\n".join(text.splitlines()[:30]))
    assert fails(coco).startswith(f"{TRAIN}:30: is not JSON: ")


HOSTILE = {  # a COCO file that is none, and what is said of it
    "nested": (b"[" * 200_000, ": is nested too deeply"),
    "nested objects": (b'{"a":' * 200_000, ": is nested too deeply"),
    "a number of 5,000 digits": (
        b'{"images": [{"id": ' + b"9" * 5000,
        ": has a number that cannot",
    ),
    "UTF-16": ("{}".encode("utf-16"), ": is not UTF-8"),
    "empty": (b"", ":1: is not JSON"),
    "a number": (b"7", ": is not a COCO file"),
    "null": (b"null", ": is not a COCO file"),
}


@pytest.mark.parametrize(("content", "expected"), HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_json_file_is_an_error_that_names_it(coco, content, expected):
    (coco / TRAIN).write_bytes(content)
    assert fails(coco).startswith(TRAIN + expected)


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (("images", 0, "width"), "640", "images[0]: width is '640', not a number"),
        (("images", 1, "height"), [1], "images[1]: height is [1], not a number"),
        (("images", 1, "id"), True, "images[1]: id is missing or not of type int"),
        (("images", 1, "id"), 1.5, "images[1]: id is missing or not of type int"),
        (("images", 1, "file_name"), ["a"], "images[1]: file_name is missing or not of type str"),
        (("annotations", 0, "iscrowd"), "0", "annotations[0]: iscrowd is '0', not 0 or 1"),
        (("annotations", 0, "image_id"), {}, "annotations[0]: image_id is missing or not of type"),
        (("categories", 0, "name"), None, "categories[0]: name is missing or not of type str"),
        (("categories", 0), [], "categories[0]: id is missing or not of type int"),
        (("annotations",), {"a": 1}, "annotations is missing or no list"),
        (("images", 0, "width"), "9" * 10_000, "images[0]: width is '999"),
    ],
)
def test_a_json_value_of_the_wrong_type_is_told_with_its_place(coco, keys, value, message):
    content = json.loads((coco / TRAIN).read_text())
    set_value(*keys, value=value)(content)
    (coco / TRAIN).write_text(json.dumps(content))
    told = fails(coco)
    assert f"{TRAIN}: {message}" in told and len(told) < 2000


@pytest.mark.parametrize("box", ["4444", ["1", "2", "3", "4"], {"a": 1}, [0, 0, [1], 3]])
def test_a_box_that_is_not_made_of_numbers_is_told_where_it_counts(coco, box):
    content = json.loads((coco / TRAIN).read_text())
    set_value("annotations", 3, "bbox", value=box)(content)
    set_value("annotations", 3, "area", value="4")(content)
    set_value("annotations", 3, "iscrowd", value=0)(content)
    (coco / TRAIN).write_text(json.dumps(content))
    assert "annotation 4: neither bbox " in fails(coco, min_area=1)
    run(coco)  # which needs no areas


def test_names_that_no_file_can_have_are_left_out(tmp_path):
    names = ["ok.png", "\0.png", "\ud800.png", "x" * 5000, "/etc/passwd", "../ok.png", "a\nb", ""]
    write_image(tmp_path / "images/ok.png")
    write_coco(tmp_path / "annotations/instance_train.json", dict(enumerate(names)), [], {1: "a"})
    found = run(tmp_path)
    assert list(rows(tmp_path / "train.txt")) == ["images/ok.png"]
    assert sum(map(len, found.left_out.values())) == len(names) - 1
    assert all(line.isprintable() and len(line) < 1000 for line in remarks(found))


def test_categories_of_one_name_are_refused(coco):
    for path in (coco / "annotations").iterdir():
        path.write_text(path.read_text().replace("hair drier", " car"))
    assert fails(coco) == "several categories are named 'car'"


def test_images_looked_for_in_the_wrong_folder_are_told(coco):
    message = fails(coco, train_images="val2017").splitlines()
    assert message[0] == "no images for train"
    assert message[1].startswith("left out 12 missing images: ")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"train_annotations": "a.json"}, "a.json: there is no such file"),
        ({"train_images": "photos"}, "photos: there is no such folder of images"),
    ],
)
def test_wrong_paths_are_told(coco, options, expected):
    assert fails(coco, **options) == expected


def test_several_annotation_files_are_not_guessed_from(coco):
    shutil.copy(coco / TRAIN, coco / "annotations/instances_train2014.json")
    assert "several files for train" in fails(coco)


def test_a_folder_without_annotations_is_told(tmp_path):
    assert "holds no annotations/instance_train.json" in fails(tmp_path)
    assert "there is no such folder" in fails(tmp_path / "none")


@pytest.mark.parametrize("sign", ["/", "\\"])
@pytest.mark.parametrize("options", [{}, {"train_annotations": "result.json", "train_images": "."}])
def test_label_studios_layout(tmp_path, sign, options):
    images = {i: f"images{sign}{i}.png" for i in range(2)}
    write_coco(tmp_path / "result.json", images, [(0, 0, 9, 0)], {0: "cat", 1: "dog"})
    for i in images:
        write_image(tmp_path / f"images/{i}.png", i)
    run(tmp_path, **options)
    assert rows(tmp_path / "train.txt") == {"images/0.png": [1, 0], "images/1.png": [0, 0]}


def test_a_file_of_several_ids_has_the_labels_of_all(tmp_path):
    write_image(tmp_path / "images/a b.png")
    names = [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}]
    images = [{"id": i, "file_name": name} for i, name in enumerate(("a b.png", "a%20b.png"))]
    boxes = [{"id": i, "image_id": i, "category_id": (3, 7)[i]} for i in range(2)]
    content = {"images": images, "categories": names, "annotations": boxes}
    for split in ("Train", "Validation"):
        path = tmp_path / f"annotations/instances_{split}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content))
    run(tmp_path, "coco")
    assert (tmp_path / "train.txt").read_text() == "images/a b.png\t1,1\n"
    assert (tmp_path / "val.txt").read_text() == "images/a b.png\t1,1\n"


def test_roboflows_coco_layout(tmp_path):
    for number, split in enumerate(("train", "valid", "test")):
        names = {i: f"{split}_{i}.png" for i in range(2)}
        write_coco(tmp_path / split / "_annotations.coco.json", names, [(0, 1, 9, 0)], {1: "a"})
        for i, name in names.items():
            write_image(tmp_path / split / name, 10 * number + i)
    assert run(tmp_path).images == {"train": 2, "val": 2, "test": 2}
    assert rows(tmp_path / "val.txt") == {f"images/valid/valid_{i}.png": [1 - i] for i in range(2)}


# CSV


def write_csv(path: Path, lines: list[tuple[str, str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(lines)


@pytest.fixture
def photos(tmp_path):
    """Images in images/, to be listed by CSV files."""
    for i in range(4):
        write_image(tmp_path / f"images/{i}.png", i)
    return tmp_path


@pytest.mark.parametrize("header", [[], [("path", "labels")]])
def test_csv_lists(photos, header):
    lines = [("1.png", "dog|cat"), ("images/0.png", ""), ("2.png", " cat | ")]
    write_csv(photos / "train.csv", header + lines)
    write_csv(photos / "val.csv", [*header, ("3.png", "bird")])
    found = run(photos, "csv")
    assert found.labels == ("bird", "cat", "dog")
    assert rows(photos / "train.txt") == {
        "images/1.png": [0, 1, 1],
        "images/0.png": [0, 0, 0],
        "images/2.png": [0, 1, 0],
    }
    assert named_rows(photos, "val") == {"images/3.png": {"bird"}}
    assert (found.images, found.left_out) == ({"train": 3, "val": 1}, {})


def test_a_label_file_that_names_all_labels_keeps_its_order(photos):
    write_csv(photos / "train.csv", [("0.png", "a|c")])
    write_lines(photos / "label.txt", ["0 c", "2 b", "1 a"])
    found = run(photos, "csv")
    assert found.labels == ("c", "a", "b")
    assert rows(photos / "train.txt") == {"images/0.png": [1, 1, 0]}
    write_csv(photos / "train.csv", [("0.png", "a|d")])
    assert run(photos, "csv").labels == ("a", "d")


def test_labels_that_stay_keep_their_groups(photos):
    write_csv(photos / "train.csv", [("0.png", "a|b|c")])
    lines = ["0 c\tparent=a\tgroup=g", "1 a", "2 b\tgroup=g"]
    write_lines(photos / "label.txt", lines)
    run(photos, "csv")
    assert (photos / "label.txt").read_text().splitlines() == lines
    write_csv(photos / "train.csv", [("0.png", "b|c|d")])
    run(photos, "csv")
    text = (photos / "label.txt").read_text()
    assert text.splitlines() == ["0 b\tgroup=g", "1 c\tgroup=g", "2 d"]


def test_a_conversion_that_was_cut_off_is_taken_back_first(photos):
    write_csv(photos / "train.csv", [("0.png", "a|c")])
    write_lines(photos / "label.txt.bak", ["0 c", "1 a"])
    (photos / JOURNAL).write_text('{"label.txt": "label.txt.bak", "train.txt": null}')
    assert run(photos, "csv").labels == ("c", "a")
    assert not (photos / "label.txt.bak").exists()


def test_an_image_on_several_lines_has_all_their_labels(photos):
    write_csv(photos / "train.csv", [("0.png", "a"), ("1.png", "b"), ("./0.png", "c|a")])
    run(photos, "csv")
    assert rows(photos / "train.txt") == {"images/0.png": [1, 0, 1], "images/1.png": [0, 1, 0]}


def test_csv_paths_begin_in_a_given_folder_or_in_one_of_the_data_set(tmp_path):
    write_image(tmp_path / "photos/a/0.png")
    write_image(tmp_path / "others/1.png")
    write_csv(tmp_path / "mine.csv", [("photos/a/0.png", "x"), ("others/1.png", "y")])
    run(tmp_path, "csv", train_annotations="mine.csv")
    expected = ["images/photos/a/0.png", "images/others/1.png"]
    assert list(rows(tmp_path / "train.txt")) == expected
    write_csv(tmp_path / "mine.csv", [("0.png", "x"), ("1.png", "x")])
    options = {"train_annotations": "mine.csv", "val_annotations": "mine.csv"}
    found = run(tmp_path, "csv", **options, train_images="photos/a")
    for split in ("train", "val"):
        assert list(rows(tmp_path / f"{split}.txt")) == ["images/photos_a/0.png"]
    assert found.left_out == {"missing images": [f"{tmp_path}/photos/a/1.png"] * 2}
    run(tmp_path, "csv", **options, train_images="photos/a", val_images="others")
    assert list(rows(tmp_path / "val.txt")) == ["images/others/1.png"]


def test_images_may_lie_beside_their_csv_list(tmp_path):
    for name in ("0.png", "1.png", "images/2.png"):
        write_image(tmp_path / "photos" / name)
    lines = [("0.png", "x"), ("1", "y"), ("2.png", "x"), ("3.png", "y")]
    write_csv(tmp_path / "photos" / "train.csv", lines)
    options = Convert(enable=True, source_type="csv")
    (tmp_path / "run").mkdir()
    for into in (tmp_path / "run", None, None):  # the second conversion in place finds links
        found = convert(Data(source="mlcls", dir=str(tmp_path / "photos")), options, into)
        listed = [(found.root / path).resolve() for path in rows(found.root / "train.txt")]
        below = [path.relative_to(tmp_path / "photos").as_posix() for path in listed]
        assert below == ["0.png", "1.png", "images/2.png"]
        assert found.left_out == {"missing images": [str(tmp_path / "photos/3.png")]}


def test_csv_lists_may_name_images_by_their_whole_paths(tmp_path):
    root, lines = tmp_path / "lists", []
    for place, label in (("a/photos/0.png", "x"), ("b/photos/0.png", "y"), ("lists/c/0.png", "x")):
        write_image(tmp_path / place)
        lines.append((str(tmp_path / place), label))
    write_csv(root / "train.csv", [*lines, (str(tmp_path / "a/photos/9.png"), "x")])
    found = run(root, "csv")
    listed = list(rows(root / "train.txt"))
    assert [(root / path).resolve() for path in listed] == [Path(path) for path, _ in lines]
    assert listed[2] == "images/c/0.png" and len({Path(path).parent for path in listed}) == 3
    assert found.left_out == {"missing images": [str(tmp_path / "a/photos/9.png")]}


NAMES = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="|\r\n\0"), min_size=1, max_size=8
).filter(lambda name: name == name.strip())


@settings(max_examples=40)
@given(labels=st.lists(st.sets(NAMES, max_size=3), min_size=3, max_size=3).filter(any))
def test_csv_labels_of_any_script_reach_training(tmp_path_factory, labels):
    root = tmp_path_factory.mktemp("csv")
    names = [f"{i}, 'ü' \"猫\".png" for i in range(3)]
    for name in names:
        write_image(root / "images" / name)
    entries = [(name, "|".join(sorted(found))) for name, found in zip(names, labels, strict=True)]
    for split in ("train", "val"):
        write_csv(root / f"{split}.csv", entries)
    run(root, "csv", dialect="pipes")
    expected = {f"images/{name}": found for name, found in zip(names, labels, strict=True)}
    assert named_rows(root) == named_rows(root, "val") == expected


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (
            b"0.png,a\n1.png;b\n\n2.png,a,b\n,c\n",
            [
                "train.csv:2: ['1.png;b'] is not `path,label|label`",
                "train.csv:4: ['2.png', 'a', 'b'] is not `path,label|label`",
                "train.csv:5: ['', 'c'] is not `path,label|label`",
            ],
        ),
        (b'0.png,a\n"1.png,b\n', ["train.csv:2: is not CSV: unexpected end of data"]),
        (b'0.png,"a\nb"\n', ["the label 'a\\nb' cannot stand in label.txt: it is empty, has a line"
                             " end or a NUL, or is not UTF-8"]),
        (b"0.png," + b"a" * 1001, [f"the label '{58 * 'a'}… has 1,001 characters, more than 1,000:"
                                   " are these several labels?"]),
        (b"image,label\n", ["train.csv: lists no images"]),
        (b"0.png,\n", ["there are no labels"]),
    ],
)  # fmt: skip
def test_malformed_csv_lines_are_told(photos, content, expected):
    (photos / "train.csv").write_bytes(content)
    assert fails(photos, "csv").splitlines() == expected


def test_csv_files_that_cannot_be_read_are_told(photos):
    assert "no CSV list of training images" in fails(photos, "csv")
    (photos / "train.csv").write_bytes(b"0.png,\xe9t\xe9\n")
    assert "train.csv:1: is not UTF-8" in fails(photos, "csv")


READ = {  # a CSV list and the labels of 0.png, 1.png, …
    "pipes": ("0.png,cat|dog\n1.png,hot dog\n2.png,\n", "cat+dog/hot dog/"),
    "commas that recur": (
        '0.png,"cat,dog"\n1.png,"dog, bird"\n2.png,cat\n',
        "cat+dog/bird+dog/cat",
    ),
    "semicolons that recur": ("0.png,cat;dog\n1.png,dog\n", "cat+dog/dog"),
    "lists": ("""0.png,"['cat', 'hot dog']"\n1.png,[]\n2.png,\n""", "cat+hot dog//"),
    "JSON": ("""0.png,"[""cat"", ""dog""]"\n1.png,"[""it's""]"\n""", "cat+dog/it's"),
    "NumPy": ("""0.png,['cat' 'hot dog']\n1.png,['cat']\n""", "cat+hot dog/cat"),
    "sets": ("""0.png,"{'cat', 'dog'}"\n1.png,('cow')\n""", "cat+dog/cow"),
    "lists without quotes": ("""0.png,"[cat, hot dog]"\n1.png,[]\n""", "cat+hot dog/"),
    "names of two words": ("0.png,traffic light\n1.png,cat\n", "traffic light/cat"),
    "tabs": ("0.png\tcat,dog\n1.png\tdog\n", "cat+dog/dog"),
    "semicolons between cells": ("name;label\n0.png;cat|dog\n1.png;dog\n", "cat+dog/dog"),
    "semicolons and commas": ("0.png;cat,dog\n1.png;dog\n", "cat+dog/dog"),
    "Roboflow": ("filename, cat, dog\n0.png, 1, 0\n1.png, 1, 1\n2.png, 0, 0\n", "cat/cat+dog/"),
    "Kaggle": ("image_id,cat,red car\n0,0,1\n1,1.0,0.0\n2,False,True\n", "red car/cat/red car"),
    "no suffix": ("0,rare\n1,cat|dog\n2,dog\n", "rare/cat+dog/dog"),
    "numbers of rows": (",path,label\n0,0.png,cat\n1,1.png,dog\n", "cat/dog"),
    "numbers of rows and flags": ("id,path,a,b\n9,0.png,1,0\n7,1.png,1,1\n", "a/a+b"),
    "the image last": ("label,path\ncat,0.png\ncat|dog,1.png\n", "cat/cat+dog"),
    "the image behind flags": ("a,b,path\n1,0,0.png\n1,1,1.png\n", "a/a+b"),
    "boxes": ("file,width,class\n0.png,8,cat\n0.png,8,dog\n1.png,8,cat\n", "cat+dog/cat"),
    "empty columns and rows": ("image;label;;\r\n0.png;cat;;\r\n1.png;dog;;\r\n;;;\r\n", "cat/dog"),
    "Excel's first line": ("sep=;\r\nimage;label\r\n0.png;cat|dog\r\n1.png;dog\r\n", "cat+dog/dog"),
    "pipes between cells": ("image|label\n0.png|cat\n1.png|dog\n", "cat/dog"),
    "commas of full width": ("0.png,cat，dog\n1.png,cat、cow\n2.png,dog\n", "cat+dog/cat+cow/dog"),
    "yes and no": ("path,a,b\n0.png,Yes,no\n1.png,NO,yes\n", "a/b"),
    "labels called as flags": ("image,0,1\n0.png,1,0\n1.png,0,1\n", "0/1"),
    "seen from above": ("{name}/images/0.png,cat\n{name}\\images\\1.png,dog\n", "cat/dog"),
    "a cell of any length": (
        f"path,label\n0.png,cat{'|' * 140_000}dog\n1.png,dog\n",
        "cat+dog/dog",
    ),
    "Windows": ("images\\0.png,cat\n.\\1.png,dog\n", "cat/dog"),
}


@pytest.mark.parametrize(("content", "expected"), READ.values(), ids=READ.keys())
def test_csv_lists_are_read_as_they_are_written(photos, content, expected):
    (photos / "train.csv").write_bytes(content.replace("{name}", photos.name).encode())
    found = run(photos, "csv")
    names = ["+".join(sorted(labels)) for labels in named_rows_of_train(photos)]
    assert names == expected.split("/")
    assert f"{photos}/train.csv: cells divided by" in found.told[-1]
    first = expected.split("/")[0].replace("+", ", ")
    assert found.told[-1].splitlines()[1].endswith(f": {first}")


def named_rows_of_train(root: Path) -> list[set[str]]:
    labels = [line.split(" ", 1)[1] for line in (root / "label.txt").read_text().splitlines()]
    targets = rows(root / "train.txt").values()
    return [{name for name, value in zip(labels, row, strict=True) if value} for row in targets]


ASKED = {  # a CSV list, and the dialects that are offered
    "a comma that never recurs": ('0.png,"cat,dog"\n1.png,bird\n', ["commas", "single"]),
    "both signs": ('0.png,"cat,dog;bird"\n1.png,cat\n', ["commas", "semicolons", "single"]),
    "words that stand alone": ("0.png,cat dog\n1.png,cat\n", ["spaces", "single"]),
    "words in many ways": ("0.png,a b\n1.png,b c\n2.png,c a\n", ["spaces", "single"]),
    "flags": ("0.png,1\n1.png,0\n", ["single", "columns"]),
    "flags in words": ("image,is_cat\n0.png,True\n1.png,False\n", ["single", "columns"]),
    "a sign of no dialect": ("0.png,cat/dog\n1.png,cat\n2.png,dog\n", ["single"]),
    "flags below a header": ("image,cat\n0.png,1\n1.png,0\n", ["single", "columns"]),
    "numbers": ("0.png,17\n1.png,3\n", ["single"]),
    "commas beside |": ('0.png,a|b\n1.png,"a,b"\n', ["pipes", "commas"]),
    "a list beside words": ("""0.png,"['a']"\n1.png,b\n""", ["lists", "single"]),
}


@pytest.mark.parametrize(("content", "offered"), ASKED.values(), ids=ASKED.keys())
def test_csv_labels_that_may_be_read_in_several_ways_are_asked_for(photos, content, offered):
    (photos / "train.csv").write_text(content)
    first, *others = fails(photos, "csv").splitlines()
    assert first.startswith("train.csv:") and first.endswith(": which labels are these?")
    assert [line.split("=")[1].split(":")[0] for line in others] == offered
    assert run(photos, "csv", dialect="single").labels


def test_a_dialect_that_is_given_is_taken(photos):
    (photos / "train.csv").write_text("image,cat\n0.png,1\n1.png,0\n")
    assert run(photos, "csv", dialect="columns").labels == ("cat",)
    assert named_rows_of_train(photos) == [{"cat"}, set()]
    (photos / "train.csv").write_text("0.png,cat dog\n1.png,cat\n")
    run(photos, "csv", dialect="spaces")
    assert named_rows_of_train(photos) == [{"cat", "dog"}, {"cat"}]


def test_label_names_that_are_known_decide_how_cells_are_divided(photos):
    (photos / "train.csv").write_text("0.png,cat dog\n1.png,cat\n")
    write_lines(photos / "label.txt", ["0 cat", "1 dog"])
    assert run(photos, "csv").labels == ("cat", "dog")
    write_lines(photos / "label.txt", ["0 cat", "1 cat dog"])
    assert run(photos, "csv").labels == ("cat", "cat dog")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("photo1,rare\n1.png,dog\n", "train.csv:1: ['photo1', 'rare']: is this a header, or"),
        ("0.png,1,0\n1.png,0,1\n", "train.csv:1: no header names the labels of the columns"),
        ("0.png\t1,0\n1.png\t0,1\n", "train.csv:1: '1,0': no header says which label each value"),
        ("f,a,b\n0.png,1,0\n1.png,1,0.5\n2.png,0,1\n",
         "train.csv:3: ['1.png', '1', '0.5'] is not a path and 2 cells of 0, 1 or -1"),
        ("image,category,label\n0.png,1,cat\n", "train.csv:1: several columns may hold the lab"),
        ("image,label,split\n0.png,cat,train\n", "train.csv:1: the column 'split' seems to say"),
        ("image,a,b\n0.png,1,\n1.png,,1\n", "train.csv:2: does an empty cell mean"),
        ("image,a,b\n0.png,2,0\n1.png,3,4\n",
         "train.csv:2: ['0.png', '2', '0'] is not a path and 2 cells of 0, 1 or -1"),
        ("f,a,a\n0.png,1,0\n", "train.csv:1: several columns are named 'a'"),
    ],
)  # fmt: skip
def test_csv_lists_that_leave_open_what_is_meant_are_told(photos, content, expected):
    (photos / "train.csv").write_text(content)
    assert fails(photos, "csv").startswith(expected)


def test_what_is_not_read_of_a_csv_list_is_told(photos):
    (photos / "train.csv").write_text("no,path,tag\n1,0.png,cat\n2,1.png,dog\n")
    (photos / "test.csv").write_text("path\n2.png\n")
    found = run(photos, "csv")
    assert [remark.partition(": ")[2] for remark in found.told[:2]] == [
        "The image is in column 'path', labels are in 'tag'; not read: 'no'.",
        "left out: has no labels",
    ]


def test_zeros_and_ones_of_one_image_are_joined_with_a_word(photos):
    (photos / "train.csv").write_text("path,a,b\n0.png,1,0\n1.png,1,0\n./0.png,0,0\n1.png,1,0\n")
    found = run(photos, "csv")
    assert found.left_out == {"zeros where the same image has a 1, too": ["0.png: a"]}
    assert [*rows(photos / "train.txt").values()] == [[1, 0], [1, 0]]


def test_empty_cells_among_zeros_and_ones_are_not_known(photos):
    (photos / "train.csv").write_text("path,a,b\n0.png,1,NaN\n1.png,,1\n2.png,0,1\n")
    assert run(photos, "csv").told[0].endswith("2 empty cells: not known (-1)")
    assert [*rows(photos / "train.txt").values()] == [[1, -1], [-1, 1], [0, 1]]


def test_roboflows_csv_layout_is_found(tmp_path):
    for split in ("train", "valid", "test"):
        for i in range(2):
            write_image(tmp_path / split / f"{split}{i}.png")
        text = f"filename, dog, cat, none\n{split}0.png, 1, 0, 0\n{split}1.png, 1, 1, 0\n"
        (tmp_path / split / "_classes.csv").write_text(text)
    found = run(tmp_path, "csv")
    assert found.labels == ("dog", "cat", "none")  # as the header has them, occurring or not
    assert rows(tmp_path / "val.txt") == {
        "images/valid/valid0.png": [1, 0, 0],
        "images/valid/valid1.png": [1, 1, 0],
    }
    assert found.images == {"train": 2, "val": 2, "test": 2}
    (tmp_path / "valid/_classes.csv").write_text("filename,dog\nvalid0.png,1\n")
    assert "valid/_classes.csv:1: the columns are ['dog'], but " in fails(tmp_path, "csv")


def test_kaggles_layout_is_found(tmp_path):
    for i in range(3):
        write_image(tmp_path / f"train/id{i}.png", i)
    (tmp_path / "train.csv").write_text("image_id,labels\nid0,cat dog\nid1,dog cow\nid2,cow\n")
    assert "which labels are these?" in fails(tmp_path, "csv")
    run(tmp_path, "csv", dialect="spaces")
    assert list(rows(tmp_path / "train.txt")) == [f"images/train/id{i}.png" for i in range(3)]
    assert named_rows_of_train(tmp_path) == [{"cat", "dog"}, {"cow", "dog"}, {"cow"}]


def test_names_without_suffix_that_fit_several_images_are_left_out(photos):
    write_image(photos / "images/0.bmp")
    (photos / "train.csv").write_text("id,label\n0,cat\n1,dog\n")
    assert run(photos, "csv").left_out == {"names that several images have": ["0"]}
    assert list(rows(photos / "train.txt")) == ["images/1.png"]


# ImageFolder


def test_a_tree_of_classes_in_splits(tmp_path):
    paths = {
        "train": ["cat/1.png", "cat/deep/2.png", "big dog/1.JPG"],
        "val": ["cat/9.png", "猫/1.png"],
        "test": ["cat/0.png"],
    }
    for split, names in paths.items():
        for name in names:
            write_image(tmp_path / split / name)
    (tmp_path / "train/empty").mkdir()
    (tmp_path / "train/cat/notes.txt").touch()
    for name in ("cat/.hidden.png", "cat/.cache/1.png", ".trash/1.png"):
        write_image(tmp_path / "train" / name)
    found = run(tmp_path, "folder")
    assert found.labels == ("big dog", "cat", "猫")
    assert rows(tmp_path / "train.txt") == {
        "images/train/big dog/1.JPG": [1, 0, 0],
        "images/train/cat/1.png": [0, 1, 0],
        "images/train/cat/deep/2.png": [0, 1, 0],
    }
    assert named_rows(tmp_path, "val") == {
        "images/val/cat/9.png": {"cat"},
        "images/val/猫/1.png": {"猫"},
    }
    assert rows(tmp_path / "test.txt") == {"images/test/cat/0.png": [0, 1, 0]}
    assert found.left_out == {
        "folders without images": [f"{tmp_path}/train/empty"],
        "files without the suffix of an image": [f"{tmp_path}/train/cat/notes.txt"],
    }
    assert run(tmp_path, "folder").backups == {}


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_validation_folders_go_by_several_names(tmp_path, name):
    for path in ("train/cat/0.png", "train/dog/1.gif", f"{name}/cat/2.jfif", f"{name}/dog/3.jpe"):
        write_image(tmp_path / "source.png")
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(tmp_path / "source.png", tmp_path / path)
    run(tmp_path, "folder")
    assert list(rows(tmp_path / "train.txt")) == [
        "images/train/cat/0.png",
        "images/train/dog/1.gif",
    ]
    expected = [f"images/{name}/cat/2.jfif", f"images/{name}/dog/3.jpe"]
    assert list(rows(tmp_path / "val.txt")) == expected
    (tmp_path / "valid").mkdir(exist_ok=True)
    (tmp_path / "validation").mkdir(exist_ok=True)
    assert "several folders for val: " in fails(tmp_path, "folder")


def test_an_image_whose_name_cannot_be_listed_leaves_links_to_it(tmp_path):
    write_image(tmp_path / "train/cat/a\tb.png")
    (tmp_path / "train/dog").mkdir()
    (tmp_path / "train/dog/c.png").symlink_to("../cat/a\tb.png")
    run(tmp_path, "folder")
    assert list(rows(tmp_path / "train.txt")) == ["images/train/dog/c.png"]


def test_what_a_tree_of_classes_leaves_out_is_told(tmp_path):
    for path in ("train/cat/0.png", "train/loose.png", "train/images/1.png", "extra/cat/2.png"):
        write_image(tmp_path / path)
    write_image(tmp_path / "elsewhere/more/3.png")
    (tmp_path / "train/cat/linked").symlink_to(tmp_path / "elsewhere/more")
    (tmp_path / "train/cat/up").symlink_to("..")
    bad = os.fsdecode(b"\xd6\xd0.png")
    shutil.copy(tmp_path / "train/loose.png", tmp_path / "train/cat" / bad)
    found = run(tmp_path, "folder")
    assert list(rows(tmp_path / "train.txt")) == [
        *("images/train/cat/0.png", "images/train/cat/linked/3.png", "images/train/images/1.png")
    ]
    reason = "images with tabs, line ends, a blank at the end or no UTF-8 in their names"
    assert found.left_out == {
        "folders beside train": [f"{tmp_path}/{name}" for name in ("elsewhere", "extra")],
        "images in no folder of a class": [f"{tmp_path}/train/loose.png"],
        "linked folders that are walked on another way": [f"{tmp_path}/train/cat/up"],
        reason: [r"'cat/\udcd6\udcd0.png'"],
    }


@pytest.mark.parametrize("base", ["", "images/"])
def test_classes_alone_are_all_for_training(tmp_path, base):
    for name in ("cat/1.png", "dog/1.png"):
        write_image(tmp_path / base / name)
    for _ in range(2):  # the links of the first run are no classes of the second
        assert run(tmp_path, "folder").labels == ("cat", "dog")
        expected = {"images/cat/1.png": [1, 0], "images/dog/1.png": [0, 1]}
        assert rows(tmp_path / "train.txt") == expected


def test_a_tree_of_other_names(tmp_path):
    write_image(tmp_path / "a/x/1.png")
    write_image(tmp_path / "b/x/1.png")
    run(tmp_path, "folder", train_images="a", val_images="b")
    assert list(rows(tmp_path / "val.txt")) == ["images/b/x/1.png"]


def test_a_folder_without_classes_is_told(tmp_path):
    write_image(tmp_path / "images/1.png")
    assert "holds neither train/ nor folders of classes" in fails(tmp_path, "folder")


# Pascal VOC


def write_voc(root: Path, key: str, objects: list[tuple[str, int, int]], suffix="jpg") -> None:
    """objects: name, side of the box, difficult."""
    write_image(root / f"JPEGImages/{key}.{suffix}")
    things = "".join(
        f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox><xmin>3</xmin>"
        f"<ymin>1</ymin><xmax>{2 + side}</xmax><ymax>{side}</ymax></bndbox></object>"
        for name, side, difficult in objects
    )
    (root / "Annotations").mkdir(exist_ok=True)
    text = f"<annotation><filename>x</filename>{things}</annotation>"
    (root / f"Annotations/{key}.xml").write_text(text, encoding="utf-8")


@pytest.fixture
def voc(tmp_path):
    write_voc(tmp_path, "a 1", [("person", 5, 0), ("dog", 4, 1)])
    write_voc(tmp_path, "b,2", [("dog", 4, 0), ("dog", 9, 0)], suffix="png")
    write_voc(tmp_path, "猫", [("cat", 3, 0)])
    write_voc(tmp_path, "d", [])
    sets = {"train": ["a 1", "b,2", "gone"], "val": ["猫"], "test": ["d"]}
    (tmp_path / "ImageSets/Main").mkdir(parents=True)
    for split, keys in sets.items():
        write_lines(tmp_path / f"ImageSets/Main/{split}.txt", keys)
    return tmp_path


def test_voc(voc):
    found = run(voc, "voc")
    assert found.labels == ("cat", "dog", "person")
    assert rows(voc / "train.txt") == {
        "images/JPEGImages/a 1.jpg": [0, 0, 1],
        "images/JPEGImages/b,2.png": [0, 1, 0],
    }
    assert named_rows(voc, "val") == {"images/JPEGImages/猫.jpg": {"cat"}}
    assert rows(voc / "test.txt") == {"images/JPEGImages/d.jpg": [0, 0, 0]}
    assert found.left_out == {
        "objects marked difficult": [f"{voc}/Annotations/a 1.xml: object 2"],
        "images without an annotation file": [f"{voc}/Annotations/gone.xml"],
    }


def test_voc_without_lists_has_all_annotations_those_in_folders_too(tmp_path):
    for key in ("1", "a/1", "b/1"):
        (tmp_path / f"Annotations/{key}").parent.mkdir(parents=True, exist_ok=True)
        write_voc(tmp_path, key, [(f"in {key}", 5, 0)])
    run(tmp_path, "voc")
    assert rows(tmp_path / "train.txt") == {
        "images/JPEGImages/1.jpg": [1, 0, 0],
        "images/JPEGImages/a/1.jpg": [0, 1, 0],
        "images/JPEGImages/b/1.jpg": [0, 0, 1],
    }


def test_voc_images_of_one_name_are_told(voc):
    write_image(voc / "JPEGImages/a 1.png")
    found = run(voc, "voc")
    assert found.left_out["images named like another"] == ["a 1.png"]
    assert "images/JPEGImages/a 1.jpg" in rows(voc / "train.txt")


def test_voc_difficult_and_small_objects(voc):
    found = run(voc, "voc", crowd=True, min_area=17)
    assert found.labels == ("dog", "person")
    assert named_rows(voc)["images/JPEGImages/a 1.jpg"] == {"person"}  # the dog has 16
    run(voc, "voc", crowd=True, min_area=16)
    assert named_rows(voc)["images/JPEGImages/a 1.jpg"] == {"person", "dog"}


def test_a_voc_test_set_without_annotations_is_left_out(voc):
    (voc / "Annotations/d.xml").unlink()
    assert run(voc, "voc").images == {"train": 2, "val": 1}


def test_voc_without_image_sets_is_all_for_training(voc):
    shutil.rmtree(voc / "ImageSets")
    assert run(voc, "voc").images == {"train": 4}


def test_voc_image_sets_may_be_chosen(voc):
    sets = "ImageSets/Main"
    found = run(
        voc, "voc", train_annotations=f"{sets}/val.txt", val_annotations=f"{sets}/train.txt"
    )
    assert found.images == {"train": 1, "val": 2}
    assert "there is no such image set" in fails(voc, "voc", train_annotations="x.txt")


def test_malformed_annotations_are_told_together(voc):
    (voc / "Annotations/a 1.xml").write_text("<annotation>\n<object>")
    bomb = '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;&a;">]><annotation>&b;</annotation>'
    (voc / "Annotations/b,2.xml").write_text(bomb, encoding="utf-16")
    (voc / "Annotations/d.xml").write_text("<annotation><object/></annotation>")
    first, *others = fails(voc, "voc").splitlines()
    assert first.startswith("Annotations/a 1.xml:2: is not XML: ")
    assert others == [
        "Annotations/b,2.xml: has a DOCTYPE, which annotations do not need",
        "Annotations/d.xml: object 1 has no name",
    ]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'<?xml version="1.0" encoding="klingon"?><annotation/>', ": is not XML: "),
        (b'<?xml version="1.0" encoding="utf-7"?><annotation/>', ": is not XML: "),
        (b'<?xml version="1.0" encoding="euc-jp"?><annotation/>', ": is not XML: "),
        (b"<a>" * 200_000, ":1: is not XML: "),
        (b"\0\1\2", ":1: is not XML: "),
        (b"", ":1: is not XML: "),
    ],
)
def test_a_hostile_xml_file_is_an_error_that_names_it(voc, content, expected):
    (voc / "Annotations/b,2.xml").write_bytes(content)
    assert fails(voc, "voc").startswith("Annotations/b,2.xml" + expected)


def test_deep_xml_that_is_well_formed_is_read(voc):
    deep = b"<a>" * 100_000 + b"</a>" * 100_000
    (voc / "Annotations/b,2.xml").write_bytes(b"<annotation>" + deep + b"</annotation>")
    assert run(voc, "voc").images["train"] == 2


def test_why_nothing_is_left_is_told(voc):
    shutil.rmtree(voc / "JPEGImages")
    (voc / "JPEGImages").mkdir()
    message = fails(voc, "voc")
    assert message.splitlines()[0] == "no images for train, val"
    assert message.splitlines()[1].startswith("left out 4 missing images: JPEGImages/a 1.jpg, ")


def test_a_folder_that_is_no_voc_is_told(tmp_path):
    assert "holds no folder named Annotations" in fails(tmp_path, "voc")


# Backups


def put(text: str):
    return lambda file: file.write(text)


def test_no_backup_is_ever_lost(tmp_path):
    for text in ("one", "two", "three"):
        made = replace_files(tmp_path, {"a.txt": put(text)})
    assert made == {"a.txt": "a.txt.bak1"}
    assert tree(tmp_path) == {"a.txt": b"three", "a.txt.bak": b"one", "a.txt.bak1": b"two"}


def test_a_file_that_would_not_change_needs_no_backup(tmp_path):
    files = {"a.txt": put("one"), "b.txt": put("two")}
    assert replace_files(tmp_path, files) == replace_files(tmp_path, files) == {}
    assert tree(tmp_path) == {"a.txt": b"one", "b.txt": b"two"}


def test_a_file_may_be_taken_away(tmp_path):
    (tmp_path / "a.txt").write_text("one")
    assert replace_files(tmp_path, {"a.txt": None, "b.txt": None}) == {"a.txt": "a.txt.bak"}
    assert tree(tmp_path) == {"a.txt.bak": b"one"}


def test_a_full_disk_is_told_with_the_list_and_changes_nothing(tmp_path):
    (tmp_path / "a.txt").write_text("one")

    def fill(_):
        with open("/dev/full", "wb", buffering=0) as full:
            full.write(b"1")

    with pytest.raises(OSError) as caught:
        replace_files(tmp_path, {"a.txt": put("two"), "b.txt": fill})
    assert caught.value.filename == str(tmp_path / "b.txt")
    assert tree(tmp_path) == {"a.txt": b"one"}


OLD = {"a.txt": b"old a", "c.txt": b"old c", "c.txt.bak": b"older c", "d.txt": b"old d"}
WRITERS = {"a.txt": put("new a"), "b.txt": put("new b"), "c.txt": put("new c"), "d.txt": None}
NEW = {
    **{"a.txt": b"new a", "b.txt": b"new b", "c.txt": b"new c"},
    **{"a.txt.bak": b"old a", "c.txt.bak": b"older c", "c.txt.bak1": b"old c"},
    "d.txt.bak": b"old d",
}


@pytest.fixture
def old(tmp_path):
    for name, content in OLD.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


def test_several_files_are_replaced_together(old):
    replace_files(old, WRITERS)
    assert tree(old) == NEW


def test_a_writer_that_fails_leaves_everything_as_it_was(old):
    def fail(file):
        file.write("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        replace_files(old, {**WRITERS, "d.txt": fail})
    assert tree(old) == OLD


def test_a_rename_that_fails_leaves_everything_as_it_was(old):
    (old / "b.txt").mkdir()  # is renamed to a backup, and comes back
    (old / "b.txt/kept").write_text("x")

    def hinder(file):
        file.write("new c")
        (old / ".b.txt.new").unlink()

    with pytest.raises(FileNotFoundError):
        replace_files(old, {**WRITERS, "c.txt": hinder})
    assert tree(old) == {**OLD, "b.txt/kept": b"x"}


KILLED = """
import os, sys
from pathlib import Path

left = int(sys.argv[2])

def dying(function):
    def call(*args, **kwargs):
        global left
        left -= 1
        if left < 0:
            os._exit(9)
        return function(*args, **kwargs)
    return call

os.rename, os.replace = dying(os.rename), dying(os.replace)
from mlcls_jax.data.backups import replace_files
put = lambda text: lambda file: file.write(text)
writers = {"a.txt": put("new a"), "b.txt": put("new b"), "c.txt": put("new c"), "d.txt": None}
replace_files(Path(sys.argv[1]), writers)
"""


@pytest.mark.parametrize("renames", range(8))
def test_a_crash_between_renames_is_recovered_at_the_next_call(old, renames):
    # The journal's rename, two each of a.txt and c.txt, one each of b.txt and d.txt.
    command = [sys.executable, "-c", KILLED, str(old), str(renames)]
    assert subprocess.run(command, check=False).returncode == (9 if renames < 7 else 0)
    if renames > 0:  # else there is no journal yet, and nothing to recover
        recover(old, WRITERS)
        assert tree(old) == (OLD if renames < 7 else NEW)
    assert OLD.items() <= tree(old).items() or renames == 7
    replace_files(old, WRITERS)
    assert tree(old) == NEW


@pytest.mark.parametrize(
    "journal",
    [
        '{"../x": null}',
        '{"a.txt": "../x.bak"}',
        '{"a.txt": 1}',
        "[]",
        "half",
        "[" * 100_000,
        "9" * 5000,
    ],
)
def test_a_journal_of_other_files_is_refused(old, journal):
    (old / JOURNAL).write_text(journal)
    with pytest.raises(DataError, match=JOURNAL):
        replace_files(old, WRITERS)
    assert tree(old) == {**OLD, JOURNAL: journal.encode()}


def test_conversions_keep_what_was_there(golden):
    write_lines(golden / "train.txt", ["by hand"])
    write_lines(golden / "test.txt", ["of other labels"])
    made = run(golden).backups
    assert made == {"train.txt": "train.txt.bak", "test.txt": "test.txt.bak"}
    made = run(golden, crowd=True).backups
    assert made == {"train.txt": "train.txt.bak1", "val.txt": "val.txt.bak"}
    assert (golden / "train.txt.bak").read_text() == "by hand\n"


def test_other_names_of_the_lists(golden):
    data = Data(dir=str(golden), train_list="a.txt", val_list="test.txt", label_file="names.txt")
    convert(data, Convert(enable=True))
    assert len(open_data(data).validation) == 5
    assert not (golden / "train.txt").exists()


def test_a_folder_that_cannot_be_written_is_told(coco):
    (coco / ".label.txt.new").mkdir()
    assert ".label.txt.new: Is a directory" in fails(coco)
    assert not (coco / "images").exists()


def test_links_give_an_image_the_labels_of_several_classes(tmp_path):
    for name in ("cat/a.png", "dog/b.png", "dog/c.png"):
        write_image(tmp_path / "train" / name, len(name))
    (tmp_path / "train/dog/a.png").symlink_to("../cat/a.png")
    (tmp_path / "train/cat/other.png").symlink_to(tmp_path / "train/dog/b.png")
    run(tmp_path, "folder")
    assert rows(tmp_path / "train.txt") == {
        "images/train/cat/a.png": [1, 1],
        "images/train/cat/other.png": [1, 1],
        "images/train/dog/c.png": [0, 1],
    }


def test_lines_of_one_image_are_joined_by_the_more_certain_value(photos):
    (photos / "train.csv").write_text("path,a,b,c,d\n0.png,1,0,-1,-1\n0.png,-1,-1,-1,1\n")
    (photos / "val.csv").unlink(missing_ok=True)
    run(photos, "csv")
    assert [*rows(photos / "train.txt").values()] == [[1, 0, -1, 1]]


def test_labels_that_differ_in_little_and_empty_cells_are_told():
    labels = ("Cat", "cat", "caf\u00e9", "cafe\u0301", "dog", "nan")
    conversion = Conversion(Path(), labels, {"val": 1}, {}, {}, {}, (), 0)
    first, second, third = remarks(conversion)
    assert "'Cat', 'cat'" in first and "caf" in second and "'nan' is kept" in third
