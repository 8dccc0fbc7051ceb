"""Ending a training when it is asked to: real processes and real signals."""

import os
import pty
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from mlcls_jax.training.in_flight import InFlight
from tests.helpers import toy_backbone

ROOT = Path(__file__).parents[2]
ENV = os.environ | {"JAX_PLATFORMS": "cpu"}

# Blocks as a program that is being compiled does: the main thread runs no Python meanwhile.
BLOCKED = """
import ctypes, logging, sys
from mlcls_jax.training.stop import Stop
logging.basicConfig(level=logging.INFO, format="%(message)s")
step = int(sys.argv[1])
with Stop(None, saved=lambda: step or None) as stop:
    if step:
        stop.underway()
    print("ready", flush=True)
    while True:
        ctypes.CDLL(None).sleep(100)
"""


def blocked(saved_step: int) -> subprocess.Popen:
    command = [sys.executable, "-c", BLOCKED, str(saved_step)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, cwd=ROOT, env=ENV, **pipes)
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_before_the_first_step_a_signal_ends_the_run_at_once(number, code):
    process = blocked(0)
    process.send_signal(number)
    _, said = process.communicate(timeout=20)
    assert process.returncode == code
    told = (
        "Stopped before the first step. No checkpoint was saved yet;"
        " the same command starts over.\n"
    )
    assert said == told


def test_a_second_interruption_ends_at_once_and_says_what_is_there():
    process = blocked(7)
    process.send_signal(signal.SIGINT)
    first = "Saving the step in hand, then ending; Ctrl-C again ends at once.\n"
    assert process.stderr.readline() == first
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 130
    told = "Interrupted. Checkpoint 7 was saved; the same command resumes from it.\n"
    assert said == told


# A command at work on two files: one that is replaced, and one in a new folder.
AT_WORK = """
import hashlib, pathlib, sys, time
from mlcls_jax import commands, files, main, signals

def work(arguments):
    def fill(folder):
        (folder / "b").write_text("new")
        with files.replacing(pathlib.Path("a")) as path:
            path.write_text("new")
            print("ready", flush=True)
            while True:
                exec(arguments[0])

    files.replace_folder(pathlib.Path("folder"), fill)

commands.Command.load = lambda self: work
signals._PATIENCE = 0.1
sys.argv = ["mlcls", "convert", sys.argv[1]]
main.run()
"""


@pytest.mark.parametrize(
    ("number", "code", "told"),
    [(signal.SIGTERM, 75, "Asked to end."), (signal.SIGINT, 130, "Interrupted.")],
)
@pytest.mark.parametrize("is_busy", [False, True])
def test_any_command_ends_when_asked_and_leaves_nothing_half_written(
    tmp_path, number, code, told, is_busy
):
    (tmp_path / "a").write_text("old")
    busy = "hashlib.pbkdf2_hmac('sha256', b'', b'', 30_000_000)"  # as a compiler: runs no Python
    at = busy if is_busy else "time.sleep(100)"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(
        [sys.executable, "-c", AT_WORK, at],
        cwd=tmp_path,
        env=ENV | {"PYTHONPATH": str(ROOT)},
        **pipes,
    )
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.3 * is_busy)  # which it is from its next line on
    process.send_signal(number)
    _, said = process.communicate(timeout=20)
    assert process.returncode == code
    assert said.startswith("Ended at once." if is_busy else f"error: {told}")
    assert "The same command" in said and "Traceback" not in said
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_text() == "old"


def test_the_host_keeps_close_to_the_device():
    @jax.jit
    def slow(x: jax.Array) -> jax.Array:
        return jax.lax.fori_loop(0, 400, lambda _, x: jnp.tanh(x @ x), x)

    x = jnp.ones((300, 300))
    in_flight, sent, most = InFlight(), [], 0
    for step in range(1, 9):
        x = slow(x)
        sent.append(x)
        most = max(most, sum(not done.is_ready() for done in sent))
        in_flight.sent(step, {"x": x})
    assert most <= 2


def test_numbers_are_read_once_and_in_order():
    in_flight = InFlight()
    for step in range(1, 6):
        in_flight.sent(step, {"loss": jnp.float32(step)})
    assert list(in_flight.read(before=3)) == [(n, {"loss": float(n)}) for n in (1, 2, 3)]
    assert [step for step, _ in in_flight.read()] == [4, 5]


def train(workdir: Path, *options: str, **pipes) -> subprocess.Popen:
    command = [sys.executable, "-c", toy_backbone.COMMAND, "--config=configs/clip_vit.py"]
    command += [f"--workdir={workdir}", "--config.log.tensorboard=False", *options]
    return subprocess.Popen(command, cwd=ROOT, env=ENV, **pipes)


@pytest.mark.slow
def test_while_it_compiles_the_bar_says_so_and_a_signal_ends_it(tmp_path):
    terminal, end = pty.openpty()
    termios.tcsetwinsize(end, (24, 100))
    options = (
        "--config.model.name=PP-HGNetV2-B4_ML",
        "--config.train.compile_cache=False",
        "--config.train.time_limit=2.0",
    )
    process = train(tmp_path, *options, stdout=end, stderr=end)
    os.close(end)
    said = b""
    while "compiling …".encode() not in said:
        said += os.read(terminal, 1000)
    time.sleep(1.0)
    process.send_signal(signal.SIGTERM)
    try:
        while received := os.read(terminal, 1000):
            said += received
    except OSError:  # the process has ended
        pass
    os.close(terminal)
    assert process.wait(timeout=20) == 75
    assert b"Stopped before the first step. No checkpoint was saved yet" in said


@pytest.mark.slow
def test_the_first_interruption_saves_the_step_in_hand(tmp_path):
    small = ("--config.model.name=Toy", "--config.model.image_size=32")
    sizes = ("--config.train.batch_size=8", "--config.train.log_steps=1")
    process = train(tmp_path, *small, *sizes, stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "metrics.jsonl").exists():
        assert process.poll() is None
        time.sleep(0.02)
    while not (tmp_path / "metrics.jsonl").read_text():
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=100)
    assert process.returncode == 130
    (checkpoint,) = (tmp_path / "checkpoints").iterdir()
    assert f"Stopped after step {checkpoint.name} of " in said
    assert "a checkpoint is saved.\nThe same command resumes from here.\n" in said
    assert not (tmp_path / ".lock").exists()
