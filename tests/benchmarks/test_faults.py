"""Faults that benchmarks make in labels are those of their tables; what is confirmed is wrong."""

import numpy as np
import pytest
from PIL import Image

from benchmarks.curation import confirm
from benchmarks.labels import FALL, damaged
from benchmarks.labels_trained import FORMS, write_damaged
from benchmarks.learning_curve import rank_correlation, write_half
from mlcls_jax import config as schema
from mlcls_jax.curation.corrections import as_csv, read_confirmed
from mlcls_jax.curation.judge import Suspect
from mlcls_jax.data.label_counts import LabelCounts
from mlcls_jax.data.sources import open_split
from mlcls_jax.training import auto_loss


@pytest.fixture(scope="module")
def targets():
    return (np.random.default_rng(0).random((2000, 8)) < np.linspace(0.5, 0.2, 8)).astype(float)


def made(targets, fault):
    return damaged(targets, fault, np.random.default_rng(1))


def test_half_of_all_labels_or_of_those_that_are_present_go(targets):
    _, half = made(targets, "half")
    for value in (0, 1):
        assert abs((half[targets == value] == -1).mean() - 0.5) < 0.03
    _, missing = made(targets, "missing")
    assert (missing[targets == 0] == 0).all()
    assert abs(missing[targets == 1].mean() - 0.5) < 0.03


def test_one_label_that_is_present_is_left_of_each_image(targets):
    _, single = made(targets, "single")
    assert ((single >= 0).sum(1) == (targets == 1).any(1)).all()
    assert (targets[single >= 0] == 1).all()


def test_labels_of_a_tail_get_rarer_and_keep_their_values(targets):
    kept, tail = made(targets, "tail")
    assert (tail == targets[kept]).all()
    images, before = tail.sum(0), targets.sum(0)
    allowed = before.max() * FALL ** -np.linspace(0, 1, 8)
    assert (images[np.argsort(-before)] <= np.round(allowed)).all()
    assert images.min() > 0


def test_auto_is_compared_with_the_forms_that_it_tries():
    uneven = LabelCounts(np.array([10, 100]), np.array([500, 500]), 500)
    tried = [schema.Loss(**form) for _, form in auto_loss._forms(uneven)]
    flags = (
        dict(flag.removeprefix("loss.").split("=") for flag in form) for form in FORMS.values()
    )
    *compared, auto = (
        schema.Loss(**{key: schema.value_of(f"loss.{key}", text) for key, text in form.items()})
        for form in flags
    )
    assert compared == tried and auto.name == auto_loss.AUTO


def test_a_training_reads_the_faulty_labels_and_the_whole_validation_list(tmp_path):
    whole, folder = tmp_path / "whole", tmp_path / "faulty"
    for place in (whole / "images", folder):
        place.mkdir(parents=True)
    for image in "ab":
        Image.new("RGB", (8, 8)).save(whole / "images" / f"{image}.png")
    (whole / "label.txt").write_text("0 cat\n1 dog\n2 bird\n")
    for name in ("train", "val"):
        (whole / f"{name}.txt").write_text("images/a.png\t1,1,0\nimages/b.png\t0,0,1\n")
    images = write_damaged(whole, folder, "single", seed=0)
    data = schema.Data(source="mlcls", dir=str(folder))
    train, validation = (open_split(data, split) for split in ("train", "validation"))
    targets = np.stack([train[i][1] for i in range(2)])
    assert (targets == 1).sum(0).tolist() == images.tolist()
    assert ((targets >= 0).sum(1) == 1).all() and targets[1].tolist() == [-1, -1, 1]
    assert [validation[i][1].tolist() for i in range(2)] == [[1, 1, 0], [0, 0, 1]]


def test_half_of_a_training_list_keeps_the_share_of_every_label(tmp_path):
    whole, half = tmp_path / "whole", tmp_path / "half"
    for place in (whole / "images", half):
        place.mkdir(parents=True)
    (whole / "label.txt").write_text("0 cat\n1 dog\n")
    rows = [f"images/{i}.png\t{int(i < 6)},{int(i >= 6)}\n" for i in range(10)]
    for name in ("train", "val"):
        (whole / f"{name}.txt").write_text("".join(rows))
    write_half(whole, half, seed=0)
    kept = (half / "train.txt").read_text().splitlines(keepends=True)
    assert set(kept) < set(rows) and len(kept) == 5
    assert sum(row.endswith("1,0\n") for row in kept) == 3
    assert (half / "val.txt").read_text() == "".join(rows)


def test_an_ideal_person_confirms_what_is_wrong_and_nothing_of_an_empty_list(tmp_path):
    images, labels = ("images/a.png", "images/b.png"), ("cat", "dog")
    (tmp_path / "label.txt").write_text("0 cat\n1 dog\n")
    (tmp_path / "audit").mkdir()
    entries = [(0, 0, 1), (1, 1, 0), (0, 1, 1)]  # row, label, given
    suspects = [Suspect(*entry, doubt=0.9, score=0.1, alike=0) for entry in entries]
    clean = np.array([[0, 0], [1, 0]])
    for some, expected in ((suspects, ["cat"]), ([], [])):
        (tmp_path / "audit" / "audit.csv").write_text(as_csv(some, images, labels))
        found = read_confirmed(confirm(tmp_path, images, clean, looked_at=2))
        assert [one.label for one in found] == expected


def test_rank_correlation_sees_the_order_alone():
    values = np.array([0.3, 0.1, 0.2])
    assert rank_correlation(values, np.exp(9 * values)) == 1
    assert rank_correlation(values, -values) == -1
