"""Curves of a run in the trackers, read back by their own libraries; no network."""

import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlcls_jax import config as schema
from mlcls_jax.config import Config, Log, Train
from mlcls_jax.errors import ConfigError, UserError, install_hint
from mlcls_jax.training.cadence import Plan
from mlcls_jax.training.records import Recorder
from mlcls_jax.training.trackers import kept_id, open_trackers
from mlcls_jax.training.trackers.tensorboard import write_outcome


def record(workdir: Path, *, name: str, first: int, last: int) -> None:
    """Write down the numbers of some steps, as a run does that begins after step `first`."""
    log = Log(tensorboard=name == "tensorboard", trackers=() if name == "tensorboard" else (name,))
    config = Config(train=Train(epochs=1, batch_size=2, log_steps=1), log=log)
    with Recorder(workdir, config, Plan.of(config.train, epoch_size=20), start_step=first) as run:
        for step in range(first + 1, last + 1):
            numbers = {"loss": 1 / step, "learning_rate": 0.1}
            run.sent(numbers)
            run.train(step, numbers)


def leveldb_records(content: bytes) -> Iterator[bytes]:
    """The records of a log as LevelDB writes it: blocks of 32 KB with their own header's space."""
    at, parts, block = 0, b"", 32 * 1024
    while at + 7 <= len(content):
        left = block - (at + 7) % block  # the file's first seven bytes count
        if left < 7:
            at += left
            continue
        size, kind = struct.unpack_from("<HB", content, at + 4)
        parts += content[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield parts
            parts = b""


def test_tensorboard_has_the_configuration_as_text(tmp_path):
    record(tmp_path, name="tensorboard", first=0, last=2)
    (events,) = (tmp_path / "tensorboard").iterdir()
    held = events.read_bytes()
    for text in (b"config/text_summary", b"weight_decay:", b"train/loss", b"train/learning_rate"):
        assert text in held


def test_tensorboard_has_curves_and_what_a_run_came_to(tmp_path):
    from PIL import Image

    targets = np.float32([[1, 0, -1], [0, 0, 1], [1, 0, 0]])
    (tracker,) = open_trackers(tmp_path, Config(), 0)
    tracker.curves(3, np.float32(targets == 1), targets, ("a", "never", "c"))
    tracker.close()
    Image.new("RGB", (8, 6)).save(tmp_path / "predictions.png")
    metrics = {"MultiLabelMAP": 0.5}
    write_outcome(tmp_path, Config(), 4, metrics, tmp_path / "predictions.png")
    held = b"".join(path.read_bytes() for path in (tmp_path / "tensorboard").iterdir())
    for text in (
        b"precision_recall/all labels", b"precision_recall/a", b"precision_recall/c", b"pr_curves",
        b"optimizer.learning_rate", b"best/MultiLabelMAP", b"\x89PNG", b"hparams",
    ):  # fmt: skip
        assert text in held
    assert b"precision_recall/never" not in held


def test_a_tracker_that_does_not_exist_is_told_with_those_that_do():
    config: Any = schema.default()
    config.log.trackers = ("neptune",)
    with pytest.raises(
        ConfigError, match=r"trackers has neptune: must be some of wandb, mlflow, aim"
    ):
        schema.parse(config)


def test_a_missing_library_is_told_with_its_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match="^log.trackers=wandb needs a library: ") as caught:
        open_trackers(tmp_path, Config(log=Log(tensorboard=False, trackers=("wandb",))), 0)
    assert caught.value.hint == install_hint("wandb")


def test_an_identifier_stays(tmp_path):
    path = tmp_path / "trackers/x.id"
    assert kept_id(path) == kept_id(path) != kept_id(path.with_name("y.id"))


@pytest.mark.slow
def test_a_resumed_run_goes_on_in_the_same_run_of_mlflow(tmp_path, monkeypatch):
    tracking = pytest.importorskip("mlflow.tracking")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    record(tmp_path, name="mlflow", first=0, last=3)
    record(tmp_path, name="mlflow", first=3, last=5)
    client = tracking.MlflowClient(f"sqlite:///{tmp_path}/trackers/mlflow.db")
    (run,) = client.search_runs([client.get_experiment_by_name("mlcls_jax").experiment_id])
    history = client.get_metric_history(run.info.run_id, "train/loss")
    assert [(m.step, m.value) for m in history] == [(s, pytest.approx(1 / s)) for s in range(1, 6)]
    assert run.info.status == "FINISHED" and run.data.params["train.batch_size"] == "2"


@pytest.mark.slow
def test_a_resumed_run_goes_on_in_the_same_run_of_aim(tmp_path):
    aim = pytest.importorskip("aim")
    record(tmp_path, name="aim", first=0, last=4)
    record(tmp_path, name="aim", first=3, last=5)
    repository = aim.Repo(str(tmp_path / "trackers"))
    (identifier,) = repository.list_all_runs()
    run = aim.Run(identifier, repo=repository, system_tracking_interval=None)
    assert run["config"]["train"]["batch_size"] == 2
    (loss,) = [metric for metric in run.metrics() if metric.name == "train/loss"]
    _, values = loss.values.sparse_list()
    assert sorted(values) == [pytest.approx(1 / step) for step in range(5, 0, -1)]


@pytest.mark.slow
def test_a_resumed_run_goes_on_in_the_same_run_of_wandb(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    from wandb.proto import wandb_internal_pb2  # pyright: ignore[reportMissingImports]

    monkeypatch.setenv("WANDB_MODE", "offline")
    record(tmp_path, name="wandb", first=0, last=3)
    record(tmp_path, name="wandb", first=3, last=5)
    identifiers, found = set(), []
    for path in sorted((tmp_path / "trackers/wandb").glob("offline-run-*/*.wandb")):
        for data in leveldb_records(path.read_bytes()[7:]):  # after wandb's own header
            entry = wandb_internal_pb2.Record.FromString(data)
            if entry.run.run_id:
                identifiers.add(entry.run.run_id)
            items = {"/".join(i.nested_key) or i.key: i.value_json for i in entry.history.item}
            if "train/loss" in items:
                found.append((int(items["_step"]), float(items["train/loss"])))
    assert len(identifiers) == 1
    assert found == [(step, pytest.approx(1 / step)) for step in range(1, 6)]
