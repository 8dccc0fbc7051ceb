"""`mlcls next` and `mlcls learning_curve`: the order of images, the law, and what is written."""

import csv
import json

import numpy as np
import pytest

from mlcls_jax.commands import audit, learning_curve, next
from mlcls_jax.curation import curve, teach
from mlcls_jax.curation.subject import find_subject
from mlcls_jax.errors import ConfigError, DataError, WorkdirError
from mlcls_jax.lock import locked
from tests.helpers.bundles import write_small
from tests.helpers.page import Page
from tests.helpers.photos import cells, row, write_lines, write_photos


@pytest.fixture(scope="module")
def bundle(tmp_path_factory, toy):
    return write_small(tmp_path_factory.mktemp("next") / "model", "Toy", size=(32, 32))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Ninety-six images of three kinds, turned, and their labels; the last kind is rare."""
    root = write_photos(tmp_path_factory.mktemp("next") / "photos", train=96, val=24)
    for split, count in (("train", 96), ("val", 24)):
        kinds = [(0, 0, 1, 0, 1, 0, 1, 2)[i % 8] for i in range(count)]
        for i, kind in enumerate(kinds):
            cells(kind, (40, 40)).rotate(3 * i).save(root / f"images/{split}_{i}.png")
        lines = [f"images/{split}_{i}.png\t{row(kind)}" for i, kind in enumerate(kinds)]
        write_lines(root / f"{split}.txt", lines)
    return root


@pytest.mark.parametrize("command", [next, audit, learning_curve])
def test_a_place_that_cannot_be_written_to_is_told_before_any_work(data, tmp_path, command):
    (tmp_path / "file").write_text("mine")
    # Of a model whose weights nobody has: it would be opened first of all.
    given = ["CLIP_vit_base_patch16_448_ML", "--data", str(data), "--output"]
    given += ["--labelled", str(data)] if command is next else []
    with pytest.raises(WorkdirError, match="file.*: cannot be written to") as error:
        command.run([*given[:4], str(tmp_path / "file/there"), *given[4:]])
    assert error.value.hint == "Name another place: --output."
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("command", [audit, learning_curve])
def test_results_of_two_processes_are_not_mixed(data, tmp_path, command):
    given = ["CLIP_vit_base_patch16_448_ML", "--data", str(data), "--output", str(tmp_path)]
    with locked(tmp_path), pytest.raises(WorkdirError, match="is in use by another process"):
        command.run(given)


def test_unsure_images_come_sooner_and_copies_last():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(40, 8))
    points[20:] = points[:20]  # each twice
    scores = np.full((40, 2), 0.001)
    unsure = [3, 7, 11]
    scores[[*unsure, *(20 + i for i in unsure)], 0] = 0.45
    places = np.zeros(20)  # of each kind, summed over seeds
    for seed in range(20):
        order = teach.choose(points, scores, np.ones(2), points[:2], 40, seed=seed)
        assert sorted(order) == [*range(40)]
        kinds = (order % 20).tolist()
        assert sorted(kinds[:18]) == [*range(2, 20)]  # 0 and 1 are labelled
        places += [kinds.index(kind) for kind in range(20)]
    assert places[unsure].max() < np.delete(places, [0, 1, *unsure]).min()
    again = teach.choose(points, scores, np.ones(2), points[:2], 40, seed=19)
    assert again.tolist() == order.tolist()


def test_an_outlier_is_not_taken_for_its_length():
    """Far-out points came first by the lengths of their gradients, and taught least."""
    rng = np.random.default_rng(1)
    points = rng.normal(size=(200, 8))
    points[:20] *= 30
    scores = np.full((200, 2), 0.3)
    order = teach.choose(points, scores, np.ones(2), points[20:25], 20)
    assert (order < 20).sum() < 10


def test_rare_labels_count_more():
    assert np.isclose(teach.label_worth(np.eye(4)[[0, 0, 0, 1]]).mean(), 1)
    worth = teach.label_worth(np.array([[1, 0], [1, 0], [1, 1]]))
    assert worth[1] > worth[0]


@pytest.mark.filterwarnings("error")
def test_without_a_validation_label_there_is_no_curve(bundle, tmp_path):
    root = write_photos(tmp_path / "photos", train=6, val=2)
    for value in ("0", "-1"):
        row = ",".join([value] * 3)
        write_lines(root / "val.txt", [f"images/val_{i}.png\t{row}" for i in range(2)])
        with pytest.raises(DataError, match="no validation image has a label"):
            curve.measure(find_subject(str(bundle), str(root)))


def test_a_list_of_new_images_is_written(bundle, data, tmp_path):
    pool = tmp_path / "pool"
    pool.mkdir()
    for i in range(6):
        cells(i % 3, (40, 40)).rotate(100 + 7 * i).save(pool / f"{i}.png")
    (pool / "known.png").write_bytes((data / "images/train_0.png").read_bytes())
    (pool / "broken.png").write_bytes(b"no picture")
    flags = [str(bundle), "--labelled", str(data), "--count", "4"]
    flags += ["--output", str(tmp_path / "next.csv"), "--label_studio", str(tmp_path / "studio")]
    told = next.run([*flags, "--data", str(pool)])
    assert "4 images to label next" in told and "studio/tasks.json" in told
    with (tmp_path / "next.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [r["rank"] for r in rows] == ["1", "2", "3", "4"]
    assert {r["image"] for r in rows} <= {str(pool / f"{i}.png") for i in range(6)}
    assert "cat" in rows[0]["labels"] and float(rows[0]["unsure"]) >= 0
    tasks = json.loads((tmp_path / "studio/tasks.json").read_text())
    paths = [f"/data/local-files/?d=pool/{r['image'].rpartition('/')[2]}" for r in rows]
    assert [task["data"]["image"] for task in tasks] == paths
    assert all(len(task["predictions"]) == 1 for task in tasks)
    with pytest.raises(ConfigError, match="is no run, whose data would be known\nGive --labelled"):
        next.run([str(bundle), "--data", str(pool)])
    with pytest.raises(WorkdirError, match="studio: is in use"):
        next.run([*flags, "--data", str(pool)])
    with pytest.raises(DataError, match="among the labelled ones already"):
        teach.lessons(find_subject(str(bundle), str(data)), data / "images/train_0.png", 3)


def test_a_power_law_is_found_again_and_told_in_images():
    counts = np.array([10.0, 20, 40, 80, 160])
    law = curve.power_law(counts, 0.2 + 2 * counts**-0.6)
    assert np.allclose(law, (0.2, 2, 0.6), atol=1e-6)
    falling = curve.power_law(counts, np.array([0.3, 0.32, 0.34, 0.36, 0.4]))
    assert falling[:2] == pytest.approx((0.344, 0.0))  # more images do not help: a flat line
    precision = np.repeat(1 - (0.2 + 2 * counts**-0.6)[:, None, None], 2, 1)
    measured = curve.Curve(
        ("a", "b"), counts * 2, np.repeat(counts[:, None, None], 2, 1).repeat(2, 2),
        np.concatenate([precision, precision * np.nan], 2),
        np.repeat(np.concatenate([precision[:, 0], precision[:, 0] * np.nan], 1)[None], 3, 0), 50,
    )  # fmt: skip
    first, last = curve.needs(measured)
    assert (first.label, last.label) == ("a", "b") and last.more is None
    assert first.more is not None
    error = 0.2 + 2 * (160 + first.more) ** -0.6
    assert error == pytest.approx(0.2 + 2 * 160**-0.6 - curve.GAIN)
    assert first.low == pytest.approx(first.more) == first.high
    assert first.doubled == pytest.approx(1 - 0.2 - 2 * 320**-0.6)


def test_a_learning_curve_becomes_a_table_and_a_page(bundle, data, tmp_path, monkeypatch):
    monkeypatch.setattr(curve, "SHARES", (1 / 8, 1 / 4, 1.0))
    told = learning_curve.run([str(bundle), "--data", str(data), "--output", str(tmp_path)])
    assert "12     24     96" in told and "for +0.03 AP" in told
    with (tmp_path / "learning_curve.csv").open() as file:
        rows = {r["label"]: r for r in csv.DictReader(file)}
    assert {name: r["images"] for name, r in rows.items()} == {
        "cat": "48", "dog": "36", "bird": "12"
    }  # fmt: skip
    assert all(0 <= float(r["AP_96"]) <= 1 for r in rows.values())
    page = Page((tmp_path / "report.html").read_text())
    assert "96 training images" in page.text and "24 validation images" in page.text
    used = curve.parts(np.eye(3)[np.arange(96) % 3], 0)
    assert (used[0] <= used[1]).all() and used[-1].all()
