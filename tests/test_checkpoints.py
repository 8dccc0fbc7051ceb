"""Checkpoints on disk: damaged, of another model, on a full disk."""

import json
import os
import resource
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mlcls_jax import parallel
from mlcls_jax.errors import CheckpointError
from mlcls_jax.models.network import Variables
from mlcls_jax.training.checkpoints import Checkpoints
from mlcls_jax.training.state import TrainState, init_state

RECORD = {"best": None, "seconds": 1.5}


def state_of(step: int, size: int = 300) -> TrainState:
    kernel = np.random.default_rng(step).normal(size=(size, size)).astype(np.float32)
    variables = Variables({"layer": {"kernel": kernel}}, {"mean": np.zeros(3, np.float32)})
    state = init_state(variables, optimizer=optax.adam(0.1), ema=True)
    return replace(state, step=jnp.asarray(step, jnp.int32))


def open_checkpoints(folder: Path, *, keep: int = 2) -> Checkpoints:
    return Checkpoints(folder, keep=keep, metric="MultiLabelMAP")


def restore(folder: Path, like: TrainState | None = None):
    abstract = jax.eval_shape(lambda: state_of(0) if like is None else like)
    placement = parallel.shardings(abstract, parallel.make_mesh())
    with open_checkpoints(folder) as checkpoints:
        return checkpoints.restore(parallel.placed(abstract, placement))


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "checkpoints"
    with open_checkpoints(folder) as checkpoints:
        for step in (3, 7):
            checkpoints.save(state_of(step), RECORD | {"step": step}, metrics=None)
    return folder


@pytest.fixture
def folder(saved, tmp_path) -> Path:
    shutil.copytree(saved, tmp_path / "checkpoints")
    return tmp_path / "checkpoints"


def assert_is(restored, step: int) -> None:
    state, record = restored
    jax.tree.map(np.testing.assert_array_equal, state, state_of(step))
    assert record == RECORD | {"step": step}


def test_the_newest_comes_back_whole_with_its_record(folder):
    assert_is(restore(folder), 7)


def test_there_is_nothing_where_nothing_was_saved(tmp_path):
    assert restore(tmp_path / "checkpoints") is None


def test_only_the_latest_and_the_best_are_kept(tmp_path):
    with open_checkpoints(tmp_path / "checkpoints", keep=1) as checkpoints:
        for step, score in ((1, 0.2), (2, 0.9), (3, 0.5), (4, None)):
            metrics = score and {"MultiLabelMAP": score}
            checkpoints.save(state_of(step, 3), RECORD, metrics=metrics)
            checkpoints.wait()
        assert checkpoints.steps == [4, 2]


def biggest(folder: Path) -> Path:
    return max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def truncate(checkpoint: Path) -> None:
    file = biggest(checkpoint)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def garble_metadata(checkpoint: Path) -> None:
    for file in checkpoint.rglob("_METADATA"):
        file.write_text("{garbage")


def garble_record(checkpoint: Path) -> None:
    for file in checkpoint.rglob("_CHECKPOINT_METADATA"):
        file.write_text("garbage")


def forget_record(checkpoint: Path) -> None:
    for file in checkpoint.rglob("_CHECKPOINT_METADATA"):
        content = json.loads(file.read_text())
        file.write_text(json.dumps(content | {"custom_metadata": {}}))


DAMAGE = {
    "a truncated file": truncate,
    "a missing file": lambda checkpoint: biggest(checkpoint).unlink(),
    "garbage for metadata": garble_metadata,
    "garbage for a record": garble_record,
    "no record": forget_record,
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_checkpoint_is_set_aside_for_the_one_before(folder, damage, caplog):
    damage(folder / "7")
    assert_is(restore(folder), 3)
    assert any("checkpoints/7: is damaged" in record.message for record in caplog.records)
    assert (folder / "7.damaged").is_dir() and not (folder / "7").exists()
    with open_checkpoints(folder) as checkpoints:  # the step can be saved again
        assert checkpoints.steps == [3]
        checkpoints.save(state_of(7), RECORD | {"step": 7}, metrics=None)
    assert_is(restore(folder), 7)


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_when_all_are_damaged_nothing_begins_anew_in_silence(folder, damage):
    for step in (3, 7):
        damage(folder / str(step))
    with pytest.raises(CheckpointError, match=r"checkpoints: all 2 checkpoints are damaged"):
        restore(folder)
    assert sorted(p.name for p in folder.iterdir()) == ["3.damaged", "7.damaged"]


def test_another_models_checkpoint_is_refused_and_left_alone(folder):
    with pytest.raises(CheckpointError, match=r"7: is of another model: .*kernel \(300, 300\)"):
        restore(folder, like=state_of(0, size=5))
    assert sorted(p.name for p in folder.iterdir()) == ["3", "7"]


FULL_DISK = """
import resource, sys
from pathlib import Path
from test_checkpoints import *

folder = Path(sys.argv[1])
try:
    with open_checkpoints(folder) as checkpoints:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
        checkpoints.save(state_of(9), RECORD, metrics=None)
        checkpoints.wait()
except CheckpointError as error:
    print(error.message)
    print(error.hint)
"""


def test_a_full_disk_is_told_and_leaves_the_checkpoints_before_intact(folder):
    """A limit on the size of files stands for the disk: writing fails in the same way."""
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(folder)],
        cwd=Path(__file__).parent,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([".", *sys.path])},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "a checkpoint could not be written: " in done.stdout, done.stdout + done.stderr
    assert "the same command again" in done.stdout
    assert_is(restore(folder), 7)
