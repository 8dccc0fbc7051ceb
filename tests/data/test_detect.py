"""What a data set is, told from its files."""

import json

import pytest

from mlcls_jax.data.detect import detect
from mlcls_jax.errors import DataError, DatasetFileNotFoundError


def lay(root, *files):
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(json.dumps({"images": []}))
    return root


@pytest.mark.parametrize(
    ("files", "form", "told"),
    [
        (("images/a.jpg", "label.txt", "train.txt", "SOURCES.csv"), "mlcls", "MLClsDataset"),
        (("inner/images/a.jpg", "inner/label.txt", "inner/train.txt"), "mlcls", "MLClsDataset"),
        (("annotations/instances_train2017.json", "train2017/a.jpg"), "coco", "instances_train20"),
        (("train/_annotations.coco.json", "train/a.jpg"), "coco", "_annotations.coco.json"),
        (("train.csv", "photos/a.jpg"), "csv", "train.csv"),
        (("mine.csv", "photos/a.jpg"), "csv", "mine.csv"),
        (("train_list.txt", "photos/a.jpg"), "numbered", "train_list.txt"),
        (("Annotations/a.xml", "JPEGImages/a.jpg"), "voc", "VOC"),
        (("train/cat/a.jpg", "val/cat/b.jpg"), "folder", "train/"),
        (("cat/a.jpg", "dog/b.jpg", "images/c.jpg"), "folder", "cat/, dog/"),
        (("dataset.json", "a.tar"), "packed", "pack"),
    ],
)
def test_a_form_is_told_by_its_files(tmp_path, files, form, told):
    found = detect(lay(tmp_path, *files))
    assert found.form == form and told in found.told
    assert (found.convert is None) == (form in ("mlcls", "packed"))


def test_a_file_stands_for_itself(tmp_path):
    lay(tmp_path, "annotations/few.json", "few.csv", "notes.txt")
    coco, csv = detect(tmp_path / "annotations" / "few.json"), detect(tmp_path / "few.csv")
    assert (coco.form, coco.root, coco.train_file) == ("coco", tmp_path, "annotations/few.json")
    assert (csv.form, csv.root, csv.train_file) == ("csv", tmp_path, "few.csv")
    with pytest.raises(DataError, match="neither a folder nor a CSV"):
        detect(tmp_path / "notes.txt")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (("train.csv", "train/cat/a.jpg"), r"train.csv \(csv\) or a folder per class in train/"),
        (("mine.csv", "cat/a.jpg", "dog/b.jpg"), r"mine.csv \(csv\) or a folder per class"),
        (("one.csv", "two.csv"), "several files may list the images: one.csv, two.csv"),
        (("photos/a.jpg",), "no data set of a known form; there are photos"),
        (("images/a.jpg", "label.txt"), "no data set of a known form"),
        (("data.yaml", "labels/a.txt", "images/a.jpg"), "YOLO"),
        (("train-0000.parquet",), "Parquet and Arrow files are not read"),
    ],
)
def test_in_doubt_it_asks(tmp_path, files, message):
    with pytest.raises(DataError, match=message) as caught:
        detect(lay(tmp_path, *files))
    if "(csv)" in caught.value.message:
        assert caught.value.hint == "Choose by --format csv or --format folder."
        assert detect(tmp_path, "folder").form == "folder"


def test_what_is_not_there_may_be_a_name_of_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, hint in (("owner/photos", "Hugging Face"), ("photos", "Known are")):
        with pytest.raises(DatasetFileNotFoundError, match="no such folder") as caught:
            detect(type(tmp_path)(name))
        assert hint in caught.value.hint
