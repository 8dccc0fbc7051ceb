"""TensorFlow Datasets as a source: which features are read, and what is told if they cannot be."""

import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds

from mlcls_jax.config import Data
from mlcls_jax.data.frame import Frame
from mlcls_jax.data.pipeline import Reader, eval_batches, train_batches
from mlcls_jax.data.sources import load, open_data
from mlcls_jax.errors import DataError
from tests.helpers.tiny_builder import picture, prepare

NAMES = ("cat", "dog", "bird")
CLASS = tfds.features.ClassLabel(names=NAMES)
SIDE = tfds.features.ClassLabel(names=["left", "right"])
IMAGE = tfds.features.Image()
COCO = {
    "image": IMAGE,
    "image/filename": tfds.features.Text(),
    "objects": tfds.features.Sequence({"label": CLASS, "pose": SIDE, "is_crowd": np.bool_}),
}


def coco_row(number: int, *objects: tuple[int, bool]) -> dict:
    boxes = [{"label": label, "pose": 0, "is_crowd": crowd} for label, crowd in objects]
    return {"image": picture(number), "image/filename": f"grün_{number}.png", "objects": boxes}


@pytest.fixture(scope="module")
def coco(tmp_path_factory) -> Path:
    """tiny/one: objects, some of them crowds, some images without any."""
    folder = tmp_path_factory.mktemp("tfds")
    rows = [
        coco_row(0),
        coco_row(1, (0, False), (2, False), (0, False)),
        coco_row(2, (1, True)),
        coco_row(3, (1, True), (1, False), (2, True)),
    ]
    prepare(folder, COCO, train=rows, validation=rows[1:2])
    return folder


def open_tiny(folder: Path, **options):
    return open_data(Data(source="tfds", dir=str(folder), **{"tfds": "tiny/one", **options}))


def targets(source) -> dict[int, list[float]]:
    """Number shown by the image → target."""
    examples = [load(source, i) for i in range(len(source))]
    return {int(image[0, 0, 0]): target.tolist() for image, target in examples}


def fault_of(folder: Path, **options) -> DataError:
    with pytest.raises(DataError) as caught:
        open_tiny(folder, **options)
    return caught.value


def test_objects_become_labels_but_crowds_do_not(coco):
    data = open_tiny(coco)
    assert data.train.labels == data.validation.labels == NAMES
    assert targets(data.train) == {0: [0, 0, 0], 1: [1, 0, 1], 2: [0, 0, 0], 3: [0, 1, 0]}
    assert targets(data.validation) == {1: [1, 0, 1]}


def test_images_stay_as_they_were_encoded_and_have_the_builders_names(coco):
    source = open_tiny(coco).train
    assert sorted(source[i][0] for i in range(4)) == sorted(map(picture, range(4)))
    for i in range(4):
        number = load(source, i)[0][0, 0, 0]
        assert source.name(i) == f"grün_{number}.png"
        assert source.place(i) == f"{coco}/tiny/one/1.2.0 (train): example {i}: {source.name(i)}"


@pytest.mark.parametrize(
    ("features", "row", "labels", "target"),
    [
        ({"label": CLASS, "coarse_label": SIDE}, {"label": 2, "coarse_label": 1}, NAMES, [0, 0, 1]),
        ({"label": CLASS}, {"label": -1}, NAMES, [-1, -1, -1]),  # as in some test splits
        ({"all": tfds.features.Sequence(CLASS)}, {"all": ["dog", "cat"]}, NAMES, [1, 1, 0]),
        (
            {"all": tfds.features.Sequence(CLASS), "x": np.int64},
            {"all": [], "x": 1},
            NAMES,
            [0] * 3,
        ),
        (
            {
                "labels": tfds.features.Sequence(CLASS),
                "objects": tfds.features.Sequence({"label": CLASS, "is_difficult": np.bool_}),
                "labels_no_difficult": tfds.features.Sequence(CLASS),
            },
            {
                "labels": [0, 1],
                "objects": [
                    {"label": 0, "is_difficult": False},
                    {"label": 1, "is_difficult": True},
                ],
                "labels_no_difficult": [0],
            },
            NAMES,
            [1, 0, 0],
        ),
        (
            {"regions": tfds.features.Sequence({"label": CLASS})},
            {"regions": [{"label": 2}, {"label": 0}]},
            NAMES,
            [1, 0, 1],
        ),
        (
            {"labels": tfds.features.Tensor(shape=(4,), dtype=np.int8)},
            {"labels": [1, 0, -1, 1]},
            ("0", "1", "2", "3"),
            [1, 0, -1, 1],
        ),
        (
            {"attributes": {"smiling": np.bool_, "bald": np.bool_}},
            {"attributes": {"smiling": True, "bald": False}},
            ("bald", "smiling"),
            [0, 1],
        ),
        ({"label": tfds.features.ClassLabel(num_classes=2)}, {"label": 1}, ("0", "1"), [0, 1]),
    ],
)
def test_every_form_of_labels_is_read(tmp_path, features, row, labels, target):
    row = {"image": picture(7), **row}
    prepare(tmp_path, {"image": IMAGE, **features}, train=[row], validation=[row])
    source = open_tiny(tmp_path).train
    image, found = source[0]
    assert (image, found.dtype) == (picture(7), np.float32)
    assert (source.labels, found.tolist()) == (labels, target)
    assert source.name(0) == "0"


@pytest.mark.parametrize(
    ("features", "told"),
    [
        ({"image": IMAGE, "x": np.int64}, "none of its features holds labels:\nFeaturesDict("),
        (
            {
                "image": IMAGE,
                "label": tfds.features.Tensor(shape=(None,), dtype=np.int64),
                "labels": tfds.features.Tensor(shape=(3,), dtype=np.str_),
            },
            "none of its features holds labels",
        ),
        ({"image": IMAGE, "a": CLASS, "b": SIDE}, "which features are the labels, a, b?\n"),
        ({"label": CLASS}, "has 0 features that are images, not one:\n"),
        ({"a": IMAGE, "b": IMAGE, "label": CLASS}, "has 2 features that are images, not one:\n"),
        (
            {"image": tfds.features.Image(shape=(None, None, 1), dtype=np.float32), "label": CLASS},
            "has 0 features that are images",
        ),
    ],
)
def test_features_that_are_not_images_with_labels_are_listed(tmp_path, features, told):
    prepare(tmp_path, features)
    message = fault_of(tmp_path).message
    assert message.startswith(f"{tmp_path}/tiny/one/1.2.0: {told}")
    assert all(name in message for name in features)


def test_a_data_set_that_is_not_prepared_is_told_how_and_not_downloaded(tmp_path):
    error = fault_of(tmp_path, tfds="coco/2017")
    assert error.message == f"{tmp_path}/coco/2017: there is no data set prepared by TFDS"
    assert "pip install tensorflow" in error.hint
    # The command is Python; what it would run is the builder of this name.
    code = error.hint.split('python -c "')[1].removesuffix('"')
    assert f"tfds.builder('coco/2017', data_dir='{tmp_path}', file_format='array_record')" in code
    compile(code, "hint", "exec")
    assert not list(tmp_path.iterdir())


def test_the_usual_place_is_that_of_tfds(coco, tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(coco))
    config = Data(source="tfds", tfds="tiny/one")
    assert len(open_data(config).train) == 4
    monkeypatch.delenv("TFDS_DATA_DIR")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(DataError, match=f"^{tmp_path}/tensorflow_datasets/tiny/one: ") as caught:
        open_data(config)
    assert "tfds.builder('tiny/one', file_format='array_record')" in caught.value.hint


def test_one_of_several_configurations_must_be_named(coco, tmp_path):
    shutil.copytree(coco, tmp_path, dirs_exist_ok=True)
    shutil.copytree(tmp_path / "tiny/one", tmp_path / "tiny/other")
    error = fault_of(tmp_path, tfds="tiny")
    assert error.message == f"{tmp_path}/tiny: there are several configurations: one, other"
    assert error.hint == "Name one: data.tfds=tiny/one"


def test_the_newest_version_is_read_unless_another_is_named(coco, tmp_path):
    for version in ("1.9.0", "1.10.0"):
        shutil.copytree(coco / "tiny/one/1.2.0", tmp_path / "tiny/one" / version)
    assert "/1.10.0 (train)" in open_tiny(tmp_path).train.place(0)
    assert "/1.9.0 (train)" in open_tiny(tmp_path, tfds="tiny/one:1.9.0").train.place(0)


def test_splits_may_be_slices_and_unknown_ones_are_told(coco):
    data = open_tiny(coco, train_split="train[:75%]", val_split="train[75%:]")
    assert (len(data.train), len(data.validation)) == (3, 1)
    assert {**targets(data.train), **targets(data.validation)} == targets(open_tiny(coco).train)
    error = fault_of(coco, val_split="val")
    assert error.message == f"{coco}/tiny/one/1.2.0: no split val; there are train, validation"


def test_files_for_sequential_reading_are_told_how_to_be_made_anew(coco, tmp_path):
    shutil.copytree(coco, tmp_path, dirs_exist_ok=True)
    info = tmp_path / "tiny/one/1.2.0/dataset_info.json"
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    error = fault_of(tmp_path)
    assert error.message.endswith("/1.2.0: is prepared as tfrecord, not as array_record")
    assert error.hint.startswith("Prepare it in another data.dir, ")


def test_missing_and_damaged_files_are_named(coco, tmp_path):
    shutil.copytree(coco, tmp_path, dirs_exist_ok=True)
    (shard,) = tmp_path.glob("tiny/one/1.2.0/*train*")
    content = shard.read_bytes()
    source = open_tiny(tmp_path).train
    shard.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"1\.2\.0 \(train\): example 2: cannot be read: "):
        source[2]
    assert source.place(2).endswith(" (train): example 2: 2")
    shard.unlink()
    assert fault_of(tmp_path).message == f"{shard}: there is no such file"
    (tmp_path / "tiny/one/1.2.0/dataset_info.json").unlink()
    assert fault_of(tmp_path).message.startswith(f"{tmp_path}/tiny/one/1.2.0: cannot be read: ")


def test_a_pickled_source_reads_the_same(coco):
    source = open_tiny(coco).train
    source[0]  # its files are open
    again = pickle.loads(pickle.dumps(source))
    assert again.labels == source.labels
    assert targets(again) == targets(source)
    assert [again.place(i) for i in range(4)] == [source.place(i) for i in range(4)]


def test_batches_are_the_same_with_any_number_of_threads(coco):
    reader = Reader(open_tiny(coco).train, Frame((4, 4)), "raise")
    one, many = (
        list(
            train_batches(
                reader, Data(threads=threads), batch_size=3, seed=0, start_step=0, end_step=9
            )
        )
        for threads in (1, 8)
    )
    np.testing.assert_equal(one, many)
    (batch,) = eval_batches(reader, Data(), batch_size=4)
    found = dict(zip(batch["image"][:, 0, 0, 0].tolist(), batch["target"].tolist(), strict=True))
    assert found == targets(reader.source)


def test_reading_needs_neither_tensorflow_nor_the_builders_code(coco):
    code = f"""
import sys
from mlcls_jax.config import Data
from mlcls_jax.data.sources import load, open_data
data = open_data(Data(source="tfds", dir={str(coco)!r}, tfds="tiny/one"))
print(sum(load(data.train, i)[1].sum() for i in range(4)))
print("tensorflow" in sys.modules, any("tiny_builder" in m for m in sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["3.0", "False", "False"]
