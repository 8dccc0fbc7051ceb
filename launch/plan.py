#!/usr/bin/env python3
"""Plan a run on a TPU slice before it is created: does it fit, and what does an hour cost?

    launch/plan.py v5litepod-8 -- --config=configs/lcnet.py --config.train.batch_size=1024

`tpu_vm.sh` and `gke.py` run it first, unless they are told `--no-plan`. It runs `mlcls plan` for
the accelerator type and the configuration: compiled by libtpu where that is installed
(pip install "mlcls-jax[plan-tpu]"), which takes minutes, and counted by formulas elsewhere. Exits
with 1 if the run does not fit or is wrong; with 0 if nothing can be planned, and says so.
--dry-run prints the command.
"""

import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
# Cloud's names of chips → ours, and what the names count a chip as.
KINDS = {"v4": ("v4", 2), "v5litepod": ("v5e", 1), "v5p": ("v5p", 2), "v6e": ("v6e", 1)}


def main(argv: list[str]) -> int:
    at = argv.index("--") if "--" in argv else len(argv)
    own, flags = argv[:at], argv[at + 1 :]
    if {"--help", "-h"} & {*own}:
        print(__doc__)
        return 0
    is_dry = "--dry-run" in own
    (accelerator,) = [word for word in own if word != "--dry-run"]
    name, _, count = accelerator.partition("-")
    flags = [flag for flag in flags if re.match(r"--(no)?config\b", flag)]
    if name not in KINDS or not count.isdigit():
        return unplanned(f"{accelerator} is not known to `mlcls plan`")
    if not any(flag.startswith("--config=") for flag in flags):
        return unplanned("no --config=FILE was given")
    kind, per_chip = KINDS[name]
    command = [
        "python3", "-m", "mlcls_jax.main", "plan", f"--kind={kind}",
        f"--chips={max(1, int(count) // per_chip)}", "--must_fit",
    ]  # fmt: skip
    if importlib.util.find_spec("libtpu") is None:
        command.append("--no-compile")
        say('libtpu is not installed, so formulas have to do: pip install "mlcls-jax[plan-tpu]"')
    command += flags
    if is_dry:
        print(shlex.join(command))
        return 0
    if importlib.util.find_spec("jax") is None:
        return unplanned("this Python has no jax")
    done = subprocess.run([sys.executable, *command[1:]], cwd=PROJECT, stdout=sys.stderr)
    if done.returncode:
        say("nothing was created; --no-plan goes on without asking")
    return min(done.returncode, 1)


def unplanned(reason: str) -> int:
    say(f"not planned: {reason}")
    return 0


def say(text: str) -> None:
    print(f"plan: {text}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
