"""PaddleClas' single-label lists (flowers102), converted and trained on as any other data set."""

from pathlib import Path

import numpy as np
import pytest

from mlcls_jax.config import Convert, Data
from mlcls_jax.data.convert import convert
from mlcls_jax.data.sources import open_data
from mlcls_jax.data.sources.single import single_label
from mlcls_jax.errors import ConvertFailedError
from tests.helpers.photos import write_image, write_lines

TRAIN = ["jpg/image_1.jpg 2", "jpg/a b  c.jpg 0", "jpg/tab.jpg\t1"]


@pytest.fixture
def flowers(tmp_path) -> Path:
    for name in ("image_1", "a b  c", "tab", "image 4 5"):
        write_image(tmp_path / f"jpg/{name}.jpg")
    write_lines(tmp_path / "train_list.txt", TRAIN)
    write_lines(tmp_path / "val_list.txt", ["jpg/image 4 5.jpg 2"], end="\r\n")
    names = ["0 pink primrose", "1 sweet pea", "2 hard-leaved pocket orchid"]
    write_lines(tmp_path / "flowers102_label_list.txt", names)
    return tmp_path


def run(root: Path):
    return convert(Data(dir=str(root)), Convert(enable=True, source_type="numbered"))


def fault(root: Path) -> str:
    with pytest.raises(ConvertFailedError) as caught:
        run(root)
    assert not (root / "train.txt").exists()
    return caught.value.message.replace(f"{root}/", "")


def test_lists_become_a_data_set_with_one_label_an_image(flowers):
    done = run(flowers)
    assert done.labels == ("pink primrose", "sweet pea", "hard-leaved pocket orchid")
    assert (done.images, done.left_out) == ({"train": 3, "val": 1}, {})
    data = open_data(Data(dir=str(flowers)))
    train = single_label(data.train, on_error="raise")
    np.testing.assert_array_equal(train.targets.argmax(1), [2, 0, 1])
    assert [Path(train.name(i)).name for i in range(3)] == ["image_1.jpg", "a b  c.jpg", "tab.jpg"]
    assert Path(data.validation.name(0)).name == "image 4 5.jpg" and train[1][0]


def test_without_names_labels_are_called_by_their_numbers(flowers):
    (flowers / "flowers102_label_list.txt").unlink()
    done = run(flowers)
    assert done.labels == ("0", "1", "2")
    assert "there is no *label_list.txt" in done.told[0]


def test_all_faults_are_told_by_line_and_nothing_changes(flowers):
    write_lines(flowers / "train_list.txt", [*TRAIN, "jpg/tab.jpg", "", "jpg/x.jpg -1", "7"])
    told = fault(flowers)
    for line, text in {4: "jpg/tab.jpg", 6: "jpg/x.jpg -1", 7: "7"}.items():
        assert f"train_list.txt:{line}: {text} is not `path 12`" in told
    write_lines(flowers / "train_list.txt", [*TRAIN, "jpg/./tab.jpg 0"])
    assert fault(flowers) == "train_list.txt:4: jpg/tab.jpg had label 1 before"
    write_lines(flowers / "train_list.txt", [*TRAIN, "jpg/tab2.jpg 3"])
    assert fault(flowers).endswith("has names for 0 to 2, but label 3 occurs")
    write_lines(flowers / "flowers102_label_list.txt", ["1 rose", "2 pea", "3 orchid"])
    assert "indices must run from 0 without gaps; missing: 0" in fault(flowers)
    (flowers / "train_list.txt").unlink()
    assert "no train_list.txt of lines" in fault(flowers)


def test_an_image_that_is_missing_is_left_out_and_told(flowers):
    write_lines(flowers / "train_list.txt", [*TRAIN, "jpg/none.jpg 1"])
    done = run(flowers)
    assert done.images["train"] == 3
    assert [path[-8:] for path in done.left_out["missing images"]] == ["none.jpg"]
