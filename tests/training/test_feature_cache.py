"""Training on feature maps that are computed once."""

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict

from mlcls_jax import config as schema
from mlcls_jax.data import features
from mlcls_jax.errors import ConfigError, PreemptedError, WorkdirError
from mlcls_jax.inference.bundle import read_bundle
from mlcls_jax.models.network import flatten
from tests.helpers.photos import write_photos
from tests.helpers.small_run import MODEL, run, small
from tests.helpers.tiers import slow

HEAD = {"frozen_backbone": True, "ema_decay": 0.9}


pytestmark = pytest.mark.usefixtures("toy", "compiled_once")


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    return write_photos(tmp_path_factory.mktemp("data") / "photos", train=16, val=6)


def config_of(photos: Path, *, views: int = 1, train: dict | None = None, **data) -> schema.Config:
    config = small(epochs=2, train=HEAD | (train or {}), model=replace(MODEL, num_classes=None))
    source = schema.Data(source="mlcls", dir=str(photos), feature_views=views, threads=0, **data)
    return replace(config, data=source)


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def losses(workdir: Path) -> list[float]:
    entries = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return [entry["loss"] for entry in entries if "loss" in entry]


def weights(workdir: Path) -> dict[str, np.ndarray]:
    return flatten(read_bundle(workdir / "best_model").model.variables)


@pytest.mark.parametrize("name", ["Toy", slow("Toy_ML")])
def test_the_head_learns_from_kept_features_as_from_images(photos, tmp_path, name):
    narrow = {"embed_dim": 32, "hidden_dim": 32, "head_dropout": 0.3, "num_classes": None}
    model = replace(MODEL, name=name, **narrow)
    kept = run(replace(config_of(photos), model=model), tmp_path / "kept")
    seen = run(replace(config_of(photos, views=0), model=model), tmp_path / "seen")
    np.testing.assert_allclose(losses(tmp_path / "kept"), losses(tmp_path / "seen"), rtol=1e-6)
    assert len(losses(tmp_path / "kept")) == 4
    assert kept["best_epoch"] == seen["best_epoch"]
    assert kept["MultiLabelMAP"] == pytest.approx(seen["MultiLabelMAP"], abs=1e-6)
    ours, theirs = weights(tmp_path / "kept"), weights(tmp_path / "seen")
    for path, array in ours.items():
        np.testing.assert_allclose(array, theirs[path], rtol=1e-4, atol=1e-6, err_msg=path)


@pytest.mark.slow
def test_a_resumed_run_takes_the_features_that_are_there_and_ends_the_same(
    photos, tmp_path, caplog
):
    caplog.set_level(logging.INFO)
    whole = {"views": 3, "augment": ("flip", "cutout")}
    run(config_of(photos, **whole), tmp_path / "whole")
    with pytest.raises(PreemptedError):
        run(config_of(photos, **whole, train={"time_limit": 0.0}), tmp_path / "parts")
    before = (tmp_path / "parts/features/train/maps.npy").stat().st_mtime_ns
    caplog.clear()
    run(config_of(photos, **whole), tmp_path / "parts")
    assert caplog.text.count("Reusing the features") == 2
    assert (tmp_path / "parts/features/train/maps.npy").stat().st_mtime_ns == before
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    ours, theirs = weights(tmp_path / "parts"), weights(tmp_path / "whole")
    assert all(np.array_equal(array, theirs[path]) for path, array in ours.items())


@pytest.mark.slow
def test_views_differ_and_the_first_is_the_plain_image(photos, tmp_path):
    run(config_of(photos, views=3, augment=("cutout",), train={"epochs": 1}), tmp_path / "three")
    run(config_of(photos, views=1, train={"epochs": 1}), tmp_path / "one")
    three, one = (np.load(tmp_path / n / "features/train/maps.npy") for n in ("three", "one"))
    assert three.shape == (3, 16, 2, 2, 64) and three.dtype == np.float32
    assert np.array_equal(three[0], one[0])
    assert all((three[a] != three[b]).any() for a, b in ((0, 1), (0, 2), (1, 2)))


@pytest.mark.slow
def test_other_data_make_other_features(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    photos = write_photos(tmp_path / "photos", train=16, val=6)
    config = config_of(photos, train={"epochs": 1})
    run(config, tmp_path / "run")
    for path in ("checkpoints", "best_model"):
        (tmp_path / "run" / path).rename(tmp_path / path)  # as if it had saved nothing
    lines = (photos / "train.txt").read_text().splitlines()
    (photos / "train.txt").write_text("\n".join([*lines[1:], lines[0]]) + "\n")
    (tmp_path / "run/features/.train.killed.new").mkdir()
    before = np.load(tmp_path / "run/features/train/maps.npy")
    caplog.clear()
    (tmp_path / "run/train_result.json").unlink(missing_ok=True)
    run(config, tmp_path / "run")
    after = np.load(tmp_path / "run/features/train/maps.npy")
    np.testing.assert_allclose(after, np.roll(before, -1, axis=1), rtol=1e-5, atol=1e-6)
    assert caplog.text.count("Reusing the features") == 1  # of the validation images
    for path in ("checkpoints", "best_model"):
        (tmp_path / "run" / path).rename(tmp_path / f"{path}2")
    shutil.copy(photos / "images/train_3.png", photos / "images/train_2.png")
    flip_a_byte(tmp_path / "run/features/validation/maps.npy")
    caplog.clear()
    run(config, tmp_path / "run")
    last = np.load(tmp_path / "run/features/train/maps.npy")
    assert np.array_equal(last[:, 1], last[:, 2]) and not np.array_equal(after[:, 1], after[:, 2])
    assert "Reusing the features" not in caplog.text
    names = {path.name for path in (tmp_path / "run/features").iterdir()}
    assert names == {"train", "validation"}


@pytest.mark.slow
def test_an_unreadable_image_counts_nowhere_after_a_resume_too(tmp_path):
    photos = write_photos(tmp_path / "photos", train=16, val=6)
    (photos / "images/train_3.png").write_bytes(b"no image")
    skipping = {"on_error": "skip", "views": 2}
    with pytest.raises(PreemptedError):
        run(config_of(photos, **skipping, train={"time_limit": 0.0}), tmp_path / "run")
    (told,) = run(config_of(photos, **skipping), tmp_path / "run")["skipped_images"]
    assert "train_3.png" in told


def test_a_disk_without_room_is_told_before_anything_is_computed(photos, tmp_path, monkeypatch):
    usage = features.shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(features.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(WorkdirError, match="needs 0 MB for feature maps") as caught:
        run(config_of(photos), tmp_path / "run")
    assert "data.feature_views=0" in str(caught.value.hint)


def test_features_that_cannot_be_kept_are_refused():
    values = schema.to_dict(config_of(Path("photos")))
    values["train"]["frozen_backbone"] = False
    values["data"]["mixup"] = 0.2
    values["train"]["resume_from"] = "runs/a/epoch_5"
    with pytest.raises(ConfigError) as caught:
        schema.parse(ConfigDict(values))
    first, second, third = caught.value.message.splitlines()
    assert "it needs train.frozen_backbone=True" in first
    assert "mixup" in second and "resume_from" in third
