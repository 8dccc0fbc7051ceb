"""Checkpoints on disk: damaged, of another model, on a full disk."""

import json
import os
import resource
import shutil
import subprocess
import sys
import threading
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
from mlcls_jax.training import checkpoints as module
from mlcls_jax.training.checkpoints import Checkpoints
from mlcls_jax.training.checksums import checksums
from mlcls_jax.training.state import TrainState, init_state

WRITTEN = "22280d92a2e00000"
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
    placement = parallel.shardings(abstract, parallel.make_mesh(), {})
    with open_checkpoints(folder) as checkpoints:
        return checkpoints.restore(parallel.placed(abstract, placement))


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "checkpoints"
    with open_checkpoints(folder) as checkpoints:
        for step in (3, 7):
            metrics = {"MultiLabelMAP": step / 10}
            checkpoints.save(state_of(step), RECORD | {"step": step}, metrics=metrics)
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


def test_a_save_waits_for_a_copy_alone_and_the_memory_may_be_used_again(tmp_path, monkeypatch):
    goes_on, state = threading.Event(), state_of(5)
    monkeypatch.setattr(module, "checksums", lambda s: goes_on.wait(9) and checksums(s))
    with open_checkpoints(tmp_path / "checkpoints") as checkpoints:
        checkpoints.save(state, RECORD | {"step": 5}, metrics=None)
        assert not (tmp_path / "checkpoints/5").exists()
        jax.tree.map(lambda array: array.delete(), state)
        goes_on.set()
    monkeypatch.undo()
    assert_is(restore(tmp_path / "checkpoints"), 5)


def test_a_save_that_fails_is_told_by_the_next(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "checksums", lambda _: 1 / 0)
    with open_checkpoints(tmp_path / "checkpoints") as checkpoints:
        checkpoints.save(state_of(5, 3), RECORD, metrics=None)
        with pytest.raises(CheckpointError, match="could not be written: division by zero"):
            checkpoints.save(state_of(6, 3), RECORD, metrics=None)


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


def flip_in_the_arrays(checkpoint: Path) -> None:
    file = biggest(checkpoint)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0x40
    file.write_bytes(content)


def change_record(checkpoint: Path) -> None:
    for file in checkpoint.rglob("_CHECKPOINT_METADATA"):
        file.write_text(file.read_text().replace('"seconds": 1.5', '"seconds": 3.5'))


def garble_metrics(checkpoint: Path) -> None:
    (checkpoint / "metrics" / "metrics").write_text("{garbage")


def rename_metric(checkpoint: Path) -> None:
    (checkpoint / "metrics" / "metrics").write_text('{"OtherMAP": 0.7}')


def change_metric(checkpoint: Path) -> None:
    (checkpoint / "metrics" / "metrics").write_text('{"MultiLabelMAP": 0.9}')


DAMAGE = {
    "a bit of the arrays": flip_in_the_arrays,
    "a digit of the record": change_record,
    "garbage for metrics": garble_metrics,
    "other metrics": rename_metric,
    "a digit of the metrics": change_metric,
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
    with pytest.raises(CheckpointError, match="damaged"):  # nor when tried again
        restore(folder)


def test_a_checkpoint_of_a_version_without_checksums_is_read_with_a_word(folder, caplog):
    for file in (folder / "7").rglob("_CHECKPOINT_METADATA"):
        content = json.loads(file.read_text())
        del content["custom_metadata"]["checksums"]
        file.write_text(json.dumps(content))
    assert_is(restore(folder), 7)
    assert "7: was written by a version without checksums" in caplog.text


def test_an_evaluation_without_a_score_is_never_the_best(tmp_path):
    with open_checkpoints(tmp_path / "checkpoints", keep=1) as checkpoints:
        for step, score in ((1, 0.2), (2, float("nan")), (3, None), (4, 0.1)):
            checkpoints.save(state_of(step, 3), RECORD, metrics={"MultiLabelMAP": score})
            checkpoints.wait()
        assert checkpoints.steps == [4, 1]


def test_any_changed_bit_swapped_or_lost_part_changes_the_checksum():
    rng = np.random.default_rng(0)
    array = rng.normal(size=(7, 3, 5)).astype(np.float32)
    changed = {"": array}
    for place in range(array.nbytes):
        other = array.copy()
        other.view(np.uint8).reshape(-1)[place] ^= 1 << place % 8
        changed[f"bit of {place}"] = other
    changed |= {f"turned on {axis}": np.flip(array, axis) for axis in range(3)}
    changed["shifted"] = np.roll(array, 1)
    changed["cleared"] = np.concatenate([array[:4], np.zeros_like(array[4:])])
    changed["transposed"] = array.transpose(1, 0, 2).reshape(7, 3, 5)
    state = {name: jnp.asarray(value) for name, value in changed.items()}
    found = checksums(state)
    assert len(set(found.values())) == len(changed)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int32", "bool", "uint8"])
@pytest.mark.parametrize("shape", [(), (5,), (0, 3), (600, 700)])
def test_arrays_of_any_type_and_shape_have_a_checksum(dtype, shape):
    array = jnp.ones(shape, dtype)
    (found,) = checksums([array]).values()
    assert len(found) == 16
    assert found == next(iter(checksums([jnp.ones(shape, dtype)]).values()))


def test_a_copy_on_the_host_has_the_checksum_of_the_array_on_the_device():
    rng = np.random.default_rng(3)
    arrays = [rng.normal(size=size).astype(np.float32) for size in ((), (3, 2), (1200, 900))]
    assert checksums([*map(jnp.asarray, arrays)]) == checksums([*map(np.asarray, arrays)])


def test_checksums_are_those_that_were_written_on_other_days():
    assert checksums({"a": jnp.arange(6, dtype=jnp.float32).reshape(2, 3)}) == {"a": WRITTEN}


def test_another_models_checkpoint_is_refused_and_left_alone(folder):
    with pytest.raises(CheckpointError, match=r"7: is of another model: .*kernel \(300, 300\)"):
        restore(folder, like=state_of(0, size=5))
    assert sorted(p.name for p in folder.iterdir()) == ["3", "7"]


FULL_DISK = """
import resource, sys
from pathlib import Path
from mlcls_jax.start import start_console
from tests.training.test_checkpoints import *

start_console()
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
        cwd=Path(__file__).parents[2],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([".", *sys.path])},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "a checkpoint could not be written: File too large" in done.stdout, done.stderr
    assert "the same command again" in done.stdout
    assert "Traceback" not in done.stderr
    assert_is(restore(folder), 7)
