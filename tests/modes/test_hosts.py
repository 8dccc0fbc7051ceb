"""Several processes as one run: real ones, on this machine, with two virtual devices each."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp

from tests.helpers import toy_backbone

ROOT = Path(__file__).parents[2]
STEPS = 16  # a signal takes effect some steps later, and must not meet the last one
SMALL = (
    "--config.data.epoch_size=128",
    "--config.data.val_size=20",
    "--config.train.batch_size=8",
    "--config.train.epochs=1",
    "--config.train.log_steps=1",
    "--config.evaluate.batch_size=8",
    "--config.model.name=Toy_ML",
    "--config.model.embed_dim=128",
    "--config.model.image_size=32",
    "--config.model.head_dropout=0.1",
    # Steps so small that what rounding changes does not grow.
    "--config.optimizer.name=momentum",
    "--config.optimizer.learning_rate=1e-5",
    "--config.optimizer.schedule=constant",
    "--config.optimizer.warmup_epochs=0",
    "--config.log.tensorboard=False",
    "--config.log.pictures=0",
)


def start(workdir: Path, processes: int, devices: int, *options: str) -> list[subprocess.Popen]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = []
    for number in range(processes):
        hosts = [
            f"--coordinator=127.0.0.1:{port}",
            f"--num_processes={processes}",
            f"--process_id={number}",
        ]
        command = [
            *(sys.executable, "-c", toy_backbone.COMMAND, "--config=configs/clip_vit.py"),
            *(f"--workdir={workdir}", *SMALL, *(hosts if processes > 1 else []), *options),
        ]
        started.append(
            subprocess.Popen(
                command,
                cwd=ROOT,
                env=os.environ
                | {
                    "JAX_PLATFORMS": "cpu",
                    "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
                },
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    return started


def wait(processes: list[subprocess.Popen], *, code: int = 0) -> list[str]:
    outputs = [process.communicate(timeout=400)[0] for process in processes]
    assert [process.returncode for process in processes] == [code] * len(processes), outputs
    return outputs


def run(workdir: Path, processes: int, devices: int, *options: str) -> list[str]:
    return wait(start(workdir, processes, devices, *options))


def state_of(workdir: Path) -> dict[str, np.ndarray]:
    """The newest checkpoint's arrays by path, whole, on one device."""
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    with ocp.training.Checkpointer((workdir / "checkpoints").absolute()) as checkpoints:
        step = checkpoints.latest.step
        shapes = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place),
            checkpoints.metadata(step).metadata,
        )
        leaves = jax.tree_util.tree_flatten_with_path(checkpoints.load(step, shapes))[0]
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def losses(workdir: Path) -> list[float]:
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return [line["loss"] for line in lines if "loss" in line]


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("hosts") / "alone"
    run(workdir, 1, 1)
    return workdir


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> Path:
    """Two processes of two devices, the batch shared among all four."""
    workdir = tmp_path_factory.mktemp("hosts") / "pair"
    lead, other = run(workdir, 2, 2)
    assert "Devices: data 4 x fsdp 1 x tensor 1, in 2 process(es)." in lead
    assert "MultiLabelMAP" in lead and "MultiLabelMAP" not in other  # one of them talks
    return workdir


def test_two_processes_are_one_run_of_which_one_talks(tmp_path):
    tiny = ("--config.model.name=Toy", "--config.data.epoch_size=16")
    lead, other = run(tmp_path / "run", 2, 1, *tiny, "--config.data.val_size=8")
    assert "Devices: data 2 x fsdp 1 x tensor 1, in 2 process(es)." in lead
    assert "MultiLabelMAP" in lead and "MultiLabelMAP" not in other
    assert json.loads((tmp_path / "run/train_result.json").read_text())["steps"] == 2
    assert len(losses(tmp_path / "run")) == 2


def assert_same_training(ours: Path, theirs: Path) -> None:
    np.testing.assert_allclose(losses(ours), losses(theirs), rtol=1e-5)
    one, other = state_of(ours), state_of(theirs)
    assert one.keys() == other.keys()
    for path in one:
        if path.startswith((".params", ".ema")):
            np.testing.assert_allclose(one[path], other[path], rtol=1e-5, atol=1e-5, err_msg=path)


@pytest.mark.slow
def test_two_processes_train_like_one(alone, pair):
    assert_same_training(pair, alone)
    results = [json.loads((workdir / "train_result.json").read_text()) for workdir in (alone, pair)]
    assert results[0]["steps"] == results[1]["steps"] == STEPS


@pytest.mark.slow
def test_a_shared_state_trains_like_a_whole_one(alone, tmp_path):
    """fsdp across the processes, tensor inside each."""
    layout = ("--config.parallel.fsdp=2", "--config.parallel.tensor=2")
    lead, _ = run(tmp_path / "run", 2, 2, *layout)
    assert "arrays of the training state shared among fsdp" in lead
    assert_same_training(tmp_path / "run", alone)


def step_of(workdir: Path) -> int:
    try:
        return len(losses(workdir))
    except (OSError, ValueError):  # not there yet, or being written
        return 0


@pytest.mark.slow
def test_a_killed_or_stopped_pair_goes_on_bit_for_bit(pair, tmp_path):
    workdir, saving = tmp_path / "run", "--config.train.save_steps=2"
    processes = start(workdir, 2, 2, saving)
    while step_of(workdir) < 3:
        assert all(process.poll() is None for process in processes)
        time.sleep(0.05)
    for process in processes:
        process.send_signal(signal.SIGKILL)
    wait(processes, code=-signal.SIGKILL)

    processes = start(workdir, 2, 2, saving)
    while step_of(workdir) < 5:
        assert all(process.poll() is None for process in processes)
        time.sleep(0.05)
    processes[1].send_signal(signal.SIGTERM)  # both stop, whoever is told
    lead, _ = wait(processes, code=75)
    stopped = next(line for line in lead.splitlines() if line.startswith("Stopped after step"))
    step = stopped.split()[3]
    assert (workdir / "checkpoints" / step).is_dir()

    run(workdir, 2, 2, saving)
    ours, theirs = state_of(workdir), state_of(pair)
    assert ours.keys() == theirs.keys()
    for path in ours:
        np.testing.assert_array_equal(ours[path], theirs[path], err_msg=path)
    assert losses(workdir) == losses(pair)


@pytest.mark.slow
def test_a_pairs_checkpoint_goes_on_in_one_process_of_another_layout(pair, tmp_path):
    workdir = tmp_path / "run"
    processes = start(workdir, 2, 2, "--config.parallel.fsdp=4", "--config.train.save_steps=2")
    while not (workdir / "checkpoints" / "4").is_dir():
        assert all(process.poll() is None for process in processes)
        time.sleep(0.05)
    for process in processes:
        process.send_signal(signal.SIGTERM)
    wait(processes, code=75)
    (output,) = run(workdir, 1, 2)
    assert "Resumed after step" in output
    assert_same_training(workdir, pair)


@pytest.mark.slow
def test_two_processes_evaluate_every_image_once(pair):
    expected = json.loads((pair / "train_result.json").read_text())["MultiLabelMAP"]
    run(pair, 2, 2, "--config.mode=evaluate")
    result = json.loads((pair / "evaluate_result.json").read_text())
    assert result["images"] == 20  # of which the last batch of 8 holds four
    assert result["MultiLabelMAP"] == pytest.approx(expected, abs=1e-6)
