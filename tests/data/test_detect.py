"""What a data set is, told from its files."""

import json
from pathlib import Path

import pytest

from mlcls_jax.config import Config
from mlcls_jax.data.detect import detect, on_hub
from mlcls_jax.data.sources import open_split
from mlcls_jax.errors import DataError, DatasetFileNotFoundError, UserError
from mlcls_jax.new_run import prepare_data
from tests.helpers.photos import write_image


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
        (("annotations/instances_Train.json", "images/Train/a.jpg"), "coco", "instances_Train"),
        (("train.json", "val.json", "images/a.jpg"), "coco", "COCO's train.json"),
        (("train/_annotations.coco.json", "train/a.jpg"), "coco", "_annotations.coco.json"),
        (("train.csv", "photos/a.jpg"), "csv", "train.csv"),
        (("mine.csv", "photos/a.jpg"), "csv", "mine.csv"),
        (("train_list.txt", "photos/a.jpg"), "numbered", "train_list.txt"),
        (("Annotations/a.xml", "JPEGImages/a.jpg"), "voc", "VOC"),
        (("train/cat/a.jpg", "val/cat/b.jpg"), "folder", "train/"),
        (("cat/a.jpg", "dog/b.jpg", "images/c.jpg"), "folder", "cat/, dog/"),
        (("dataset.json", "a.tar"), "packed", "pack"),
        (("data/train-0.parquet",), "parquet", "train-0.parquet"),
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
    with pytest.raises(DataError, match="no file of a known form"):
        detect(tmp_path / "notes.txt")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (("train.csv", "train/cat/a.jpg"), r"train.csv \(csv\) or a folder per class in train/"),
        (("mine.csv", "cat/a.jpg", "dog/b.jpg"), r"mine.csv \(csv\) or a folder per class"),
        (("one.csv", "two.csv"), "several files may list the images: one.csv, two.csv"),
        (("photos/a.jpg",), "no data set of a known form; there are photos"),
        (("images/a.jpg", "label.txt"), "no data set of a known form"),
        (("export.zip",), "export.zip: an archive is not read"),
    ],
)
def test_in_doubt_it_asks(tmp_path, files, message):
    with pytest.raises(DataError, match=message) as caught:
        detect(lay(tmp_path, *files))
    if "(csv)" in caught.value.message:
        assert caught.value.hint == "Choose by --format csv or --format folder."
        assert detect(tmp_path, "folder").form == "folder"


@pytest.mark.parametrize("content", [b"", b"\n", b"123", b"\xff\xfe", None])
def test_a_json_file_that_says_nothing_is_passed_over(tmp_path, content):
    path = tmp_path / "train.json"
    path.mkdir() if content is None else path.write_bytes(content)
    with pytest.raises(UserError, match="no data set"):
        detect(tmp_path)


def test_what_is_not_there_may_be_a_name_of_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, hint in (("owner/photos", "hf://datasets/owner/photos"), ("photos", "Known are")):
        with pytest.raises(DatasetFileNotFoundError, match="no such folder") as caught:
            detect(type(tmp_path)(name))
        assert hint in caught.value.hint


def tables(root, rows, *, names=None, split="train"):
    """A Parquet file as `datasets` writes it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    root.mkdir(exist_ok=True)
    files = [None if n is None else write_image(root.parent / f"{n}.png", n) for n, _ in rows]
    contents = [
        None if pixels is None else (root.parent / f"{n}.png").read_bytes()
        for (n, _), pixels in zip(rows, files, strict=True)
    ]
    images = [{"bytes": content, "path": None} for content in contents]
    table = pa.table({"image": images, "labels": [labels for _, labels in rows]})
    if names:
        labels = {"feature": {"names": names, "_type": "ClassLabel"}, "_type": "List"}
        told = {"info": {"features": {"image": {"_type": "Image"}, "labels": labels}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(told)})
    path = root / f"{split}-00000-of-00001.parquet"
    pq.write_table(table, path)
    return path


def read(place, tmp_path, folder):
    (tmp_path / folder).mkdir()
    found = detect(place) if isinstance(place, Path) else on_hub(place)
    data, told = prepare_data(found, tmp_path / folder, Config())
    sources = [open_split(data, split) for split in ("train", "validation")]
    return [(source.labels, source.targets.tolist()) for source in sources], told


def test_parquet_files_are_unpacked_with_the_names_of_their_labels(tmp_path):
    root, names = tmp_path / "photos", ["tent", "ball", "never"]
    tables(root, [(0, [1]), (1, [0, 1]), (None, [0]), (2, [])], names=names)
    tables(root, [(3, [0])], names=names, split="validation")
    expected = [(tuple(names), [[0, 1, 0], [1, 1, 0], [0, 0, 0]]), (tuple(names), [[1, 0, 0]])]
    found, told = read(root, tmp_path, "one")
    assert (
        found == expected
        and "4 images are written to" in told[0]
        and "1 rows without an image" in told[1]
    )
    again, _ = read(f"file://{root}", tmp_path, "two")  # as those of the hub, through fsspec
    assert again == expected


def test_a_nested_data_set_keeps_its_validation_list(tmp_path):
    names = ("images/a.jpg", "label.txt", "train.txt", "val.txt")
    lay(tmp_path, *(f"a/b/{name}" for name in names))
    data, told = prepare_data(detect(tmp_path, "mlcls"), tmp_path / "run", Config())
    assert (data.dir, told) == (str(tmp_path / "a/b"), ())


def test_a_parquet_file_of_texts_is_divided(tmp_path):
    path = tables(tmp_path / "photos", [(n, "ab"[n % 2]) for n in range(6)])
    found, told = read(path, tmp_path, "one")
    assert [labels for labels, _ in found] == [("a", "b")] * 2
    assert len(found[0][1]) + len(found[1][1]) == 6 and "no validation list" in told[1]


@pytest.mark.parametrize(
    ("error", "hint"),
    [(ImportError("no hub"), "[hub]"), (OSError("no network"), "name their folder")],
)
def test_a_hub_out_of_reach_is_told_with_the_way_out(monkeypatch, error, hint):
    def fail(_):
        raise error

    monkeypatch.setattr("mlcls_jax.data.convert.parquet_tables.open_store", fail)
    with pytest.raises(UserError, match=f"hf://datasets/owner/name.*{error}") as caught:
        on_hub("hf://datasets/owner/name")
    assert hint in caught.value.hint


def test_parquet_files_without_pictures_or_damaged_are_told(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "train.parquet"
    pq.write_table(pa.table({"text": ["x"], "label": [1]}), path)
    with pytest.raises(DataError, match="no column of images and one of labels: text .string"):
        read(path, tmp_path, "a")
    path.write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match="is no such table"):
        read(path, tmp_path, "b")
