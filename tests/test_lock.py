"""One run a workdir: real processes that want the same one."""

import errno
import fcntl
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from mlcls_jax import config as schema
from mlcls_jax.config import Config
from mlcls_jax.errors import WorkdirError
from mlcls_jax.lock import LOCK_FILE, locked
from mlcls_jax.modes.running import locked_folder

ROOT = Path(__file__).parents[1]
HOLDER = """
import sys, time
from pathlib import Path
from mlcls_jax.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that is in the folder."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, cwd=ROOT, **pipes)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


@pytest.fixture
def no_locks(monkeypatch):
    """A file system without locks, as NFS may be."""

    def flock(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)


def enter(folder: Path) -> None:
    with locked(folder):
        pass


def refusal(folder: Path) -> WorkdirError:
    before = (folder / LOCK_FILE).read_bytes()
    with pytest.raises(WorkdirError, match="is in use by another process") as caught:
        enter(folder)
    assert (folder / LOCK_FILE).read_bytes() == before
    return caught.value


def write_lock(folder: Path, **facts) -> None:
    own = {"host": socket.gethostname(), "pid": os.getpid(), "started": "then", "command": "x"}
    (folder / LOCK_FILE).write_text(yaml.safe_dump(own | facts))


def test_another_process_is_named_and_leaves_nothing_behind(tmp_path, holder):
    error = refusal(tmp_path)
    assert f": process {holder.pid} on {socket.gethostname()}, since 2" in error.message
    assert f"-c {tmp_path}" in error.message
    holder.communicate("")
    enter(tmp_path)
    assert not list(tmp_path.iterdir())


def test_what_a_killed_process_left_is_taken_over(tmp_path, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (tmp_path / LOCK_FILE).exists()
    enter(tmp_path)


def test_what_a_lost_host_left_is_taken_over_where_the_file_system_has_locks(tmp_path):
    write_lock(tmp_path, host="lost")
    enter(tmp_path)


def test_without_locks_a_dead_process_of_this_host_is_taken_over(tmp_path, holder, no_locks):
    assert "has no locks" in refusal(tmp_path).hint
    holder.kill()
    holder.wait()
    enter(tmp_path)
    write_lock(tmp_path)  # in a container that was started again processes have the same numbers
    enter(tmp_path)
    assert not list(tmp_path.iterdir())


def test_without_locks_another_host_is_named_and_how_to_go_on(tmp_path, no_locks):
    write_lock(tmp_path, host="elsewhere")
    error = refusal(tmp_path)
    assert "on elsewhere, since then: x" in error.message
    assert f"delete {tmp_path / LOCK_FILE}" in error.hint
    (tmp_path / LOCK_FILE).unlink()
    enter(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\xff", b"- 1", b"pid: x"])
def test_a_lock_that_tells_nothing(tmp_path, no_locks, content):
    (tmp_path / LOCK_FILE).write_bytes(content)
    refusal(tmp_path)


def test_what_only_reads_the_model_may_run_beside_training(tmp_path):
    def folder(**sections):
        return locked_folder(Config(**sections), tmp_path)

    elsewhere = schema.Evaluate(model_dir=str(tmp_path / "other" / "best_model"))
    (tmp_path / "other").mkdir()
    assert folder(mode="train") == tmp_path
    assert folder(mode="thresholds") == tmp_path
    assert folder(mode="thresholds", evaluate=elsewhere) == tmp_path / "other"
    assert folder(mode="evaluate", evaluate=schema.Evaluate(thresholds=True)) == tmp_path
    for mode in ("evaluate", "predict", "export", "check_dataset"):
        assert folder(mode=mode) is None


@pytest.mark.slow
def test_a_second_training_is_refused_before_it_writes_anything(tmp_path, holder):
    for name in ("train.log", "train_result.json", "metrics.jsonl"):
        (tmp_path / name).write_text("of the first")
    files = {path: path.read_bytes() for path in tmp_path.iterdir()}
    command = [sys.executable, "-m", "mlcls_jax.main", "--config=configs/lcnet.py"]
    command += [f"--workdir={tmp_path}"]
    env = os.environ | {"JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    told = f"error: {tmp_path}: is in use by another process: process "
    assert done.stderr.splitlines()[1].startswith(told)  # after what it looks at
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == files
