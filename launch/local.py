#!/usr/bin/env python3
"""Train on this machine, in one process or several, and go on after interruptions.

    python launch/local.py -- --config=configs/lcnet.py --workdir=runs/demo
    python launch/local.py --processes=2 --devices_per_process=2 -- --config=… --workdir=…

What follows `--` are flags of `python -m mlcls_jax.main`, or a whole command. With several
processes, each gets --coordinator, --num_processes and --process_id too, and its share of the GPUs.
When one process fails, the others are ended; the exit code is that of the first to fail. Exit code
75 (a checkpoint was saved) or a killed process starts all again. SIGTERM and SIGINT are passed on;
a second one kills.
"""

import argparse
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import BinaryIO

INTERRUPTED = 75  # a checkpoint was saved; the same command goes on
POLL_SECONDS = 0.05


def main(argv: list[str]) -> int:
    """Parse, then run until done; returns the exit code."""
    own, separator, given = argv, [], []
    if "--" in argv:
        at = argv.index("--")
        own, separator, given = argv[:at], argv[at : at + 1], argv[at + 1 :]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="local.py [options] -- FLAGS | COMMAND …", allow_abbrev=False,
    )  # fmt: skip
    parser.add_argument("--processes", type=int, default=1, metavar="N")
    parser.add_argument(
        "--devices_per_process", type=int, metavar="K", help="run on the CPU as K devices a process"
    )
    parser.add_argument("--restarts", type=int, default=3, metavar="N", help="at most; default 3")
    parser.add_argument(
        "--grace", type=float, default=60, metavar="SECONDS",
        help="how long the others may take to end once one has failed; default 60",
    )  # fmt: skip
    parser.add_argument("--dry-run", action="store_true", help="print the commands, run nothing")
    options = parser.parse_args(own)
    if not separator or not given:
        parser.error("nothing to run: give the flags of mlcls_jax.main after --")
    if options.processes < 1 or (options.devices_per_process or 1) < 1:
        parser.error("--processes and --devices_per_process must be at least 1")
    command = given
    if given[0].startswith("-"):
        command = [sys.executable, "-m", "mlcls_jax.main", *given]
    if not shutil.which(command[0]):
        parser.error(f"{command[0]}: no such command")
    try:
        variables = device_variables(options.processes, options.devices_per_process)
    except ValueError as error:
        parser.error(str(error))

    if options.dry_run:
        print("\n".join(shell_lines(process_commands(command, options.processes), variables)))
        return 0
    received: list[int] = []  # signals to this launcher
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: received.append(number))
    for restart in range(options.restarts + 1):
        commands = process_commands(command, options.processes)
        process, code = run_once(commands, variables, options.grace, received)
        again = code == INTERRUPTED or (code > 128 and code != 128 + signal.SIGINT)
        if code == 0 or received or not again or restart == options.restarts:
            break
        say(f"process {process} ended with {code}: restart {restart + 1} of {options.restarts}")
    if code:
        say(f"process {process} ended with {code}")
    return code


def device_variables(processes: int, cpu_devices: int | None) -> list[dict[str, str]]:
    """The environment variables of each process that choose its devices.

    Raises ValueError if the GPUs cannot be shared out evenly.
    """
    if cpu_devices:
        flag = f"--xla_force_host_platform_device_count={cpu_devices}"
        flags = f"{os.environ.get('XLA_FLAGS', '')} {flag}".strip()
        return [{"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}] * processes
    gpus = visible_gpus() if processes > 1 else []
    if len(gpus) % processes:
        raise ValueError(f"{len(gpus)} GPUs cannot be shared out evenly to {processes} processes")
    if not gpus:
        return [{}] * processes
    share = len(gpus) // processes
    return [
        {"CUDA_VISIBLE_DEVICES": ",".join(gpus[i * share : (i + 1) * share])}
        for i in range(processes)
    ]


def visible_gpus() -> list[str]:
    """Names of the NVIDIA GPUs that processes may use, as CUDA_VISIBLE_DEVICES takes them."""
    if (chosen := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name for name in chosen.split(",") if name]
    if not shutil.which("nvidia-smi"):
        return []
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    count = sum(line.startswith("GPU ") for line in listed.stdout.splitlines())
    return [str(i) for i in range(count)]


def process_commands(command: list[str], processes: int) -> list[list[str]]:
    """The command of each process; several meet at a port of this machine that is free."""
    if processes == 1:
        return [command]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    together = [f"--coordinator=127.0.0.1:{port}", f"--num_processes={processes}"]
    return [[*command, *together, f"--process_id={i}"] for i in range(processes)]


def shell_lines(commands: list[list[str]], variables: list[dict[str, str]]) -> list[str]:
    """The same as a shell would start it."""
    lines = [
        " ".join([*(f"{k}={shlex.quote(v)}" for k, v in chosen.items()), shlex.join(command)])
        for command, chosen in zip(commands, variables, strict=True)
    ]
    return lines if len(lines) == 1 else [*(f"{line} &" for line in lines), "wait"]


def run_once(
    commands: list[list[str]], variables: list[dict[str, str]], grace: float, received: list[int]
) -> tuple[int, int]:
    """Run all processes to their end → (the first to fail or 0, its exit code or 0)."""
    children = [
        # A session of its own: Ctrl-C reaches it once, through us.
        subprocess.Popen(
            command, env=os.environ | chosen, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, start_new_session=True,
        )
        for command, chosen in zip(commands, variables, strict=True)
    ]  # fmt: skip
    lock = threading.Lock()
    readers = []
    for i, child in enumerate(children):
        prefix = f"[{i}] " if len(children) > 1 else ""
        reader = threading.Thread(
            target=copy_lines, args=(child.stdout, prefix.encode(), lock), daemon=True
        )
        reader.start()
        readers.append(reader)

    failed: tuple[int, int] | None = None
    deadline = float("inf")
    passed_on = 0
    while alive(children):
        if len(received) > passed_on:
            send(children, received[passed_on] if passed_on == 0 else signal.SIGKILL)
            passed_on += 1
        if not failed and (failed := first_failure(children)):
            deadline = time.monotonic() + grace
            if failed[1] != INTERRUPTED:  # else the others are about to save and end as well
                send(children, signal.SIGTERM)
        if time.monotonic() > deadline:
            say(f"the others did not end within {grace:g} s: killed")
            send(children, signal.SIGKILL)
            deadline = float("inf")
        time.sleep(POLL_SECONDS)
    for reader in readers:
        reader.join(timeout=5)  # a grandchild may hold the pipe open
    return failed or first_failure(children) or (0, 0)


def alive(children: list[subprocess.Popen[bytes]]) -> list[subprocess.Popen[bytes]]:
    """Those that still run."""
    return [child for child in children if child.poll() is None]


def first_failure(children: list[subprocess.Popen[bytes]]) -> tuple[int, int] | None:
    """(process, exit code as a shell tells it) of a process that failed; a real fault first."""
    codes = [
        (i, child.returncode if child.returncode > 0 else 128 - child.returncode)
        for i, child in enumerate(children)
        if child.returncode
    ]
    return min(codes, key=lambda failure: failure[1] == INTERRUPTED, default=None)


def send(children: list[subprocess.Popen[bytes]], number: int) -> None:
    """Send a signal to those that still run; SIGKILL to their own children as well."""
    for child in alive(children):
        if number == signal.SIGKILL:
            os.killpg(child.pid, number)
        else:
            child.send_signal(number)


def copy_lines(stream: BinaryIO, prefix: bytes, lock: threading.Lock) -> None:
    """Copy lines to our output, whole ones, with a prefix."""
    for line in stream:
        with lock:
            sys.stdout.buffer.write(prefix + line.rstrip(b"\n") + b"\n")
            sys.stdout.buffer.flush()


def say(message: str) -> None:
    """Tell what the launcher does, apart from the output of the processes."""
    print(f"local.py: {message}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
