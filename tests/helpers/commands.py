"""The console command in processes of its own."""

import atexit
import functools
import json
import os
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Collection
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).parents[2]

# Imports once what commands need, and then is each command by a fork of itself: importing takes
# longer than what most tests ask for.
FORKS = """
import json, os, sys, traceback
import mlcls_jax.commands.predict, mlcls_jax.commands.score, mlcls_jax.modes.train
from mlcls_jax import main
from mlcls_jax.models import registry
from tests.helpers import toy_backbone

for line in sys.stdin:
    asked = json.loads(line)
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for stream in (1, 2):
            os.dup2(os.open(asked["streams"][stream - 1], os.O_WRONLY), stream)
        os.chdir(asked["cwd"])
        os.environ.update(asked["environment"])
        sys.argv, code = asked["argv"], 0
        sys.modules |= dict.fromkeys(asked["without"])
        if asked["toy"]:
            registry.FAMILIES["Toy"] = toy_backbone.FAMILY
        try:
            main.run()
        except SystemExit as ended:
            code = ended.code or 0
        except BaseException:
            traceback.print_exc()
            code = 1
        sys.stdout.flush(), sys.stderr.flush(), os._exit(code)  # tearing down takes long
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@functools.cache
def _forks() -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-c", FORKS],
        # The command would start anew for huge pages, were nothing said of them.
        env=os.environ | {"PYTHONPATH": str(REPOSITORY), "GLIBC_TUNABLES": ""},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    atexit.register(process.kill)
    return process


def forked(
    *argv: Any,
    cwd: Path = REPOSITORY,
    toy: bool = False,
    without: Collection[str] = (),
    **environment: str,
) -> subprocess.CompletedProcess:
    """Run a command line of the console command; `argv[0]` is its name.

    With `toy` it knows the backbone of tests. The modules `without` cannot be imported.

    JAX is imported already: variables that it reads at its import come too late.
    """
    with tempfile.TemporaryDirectory() as folder:
        streams = [Path(folder) / name for name in ("out", "err")]
        for stream in streams:
            stream.touch()
        given = [str(word) for word in argv]
        asked = {"argv": given, "cwd": cwd, "streams": streams, "toy": toy}
        asked["without"] = [*without]
        asked["environment"] = environment
        forks = _forks()
        print(json.dumps(asked, default=str), file=forks.stdin, flush=True)
        code = int(forks.stdout.readline())
        texts = [stream.read_text(encoding="utf-8") for stream in streams]
    return subprocess.CompletedProcess(given, code, *texts)


@functools.cache
def extras() -> frozenset[str]:
    """Return the modules that `pip install .` without an extra does not bring."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    brought: set[str] = set()
    missing = [Requirement(line) for line in project["dependencies"]]
    while missing:
        wanted = missing.pop()
        name = canonicalize_name(wanted.name)
        if name not in brought:
            brought.add(name)
            required = [Requirement(line) for line in metadata.requires(name) or ()]
            for extra in ("", *wanted.extras):
                missing += [
                    line
                    for line in required
                    if not line.marker or line.marker.evaluate({"extra": extra})
                ]
    kept = brought | {"mlcls-jax", "pip", "setuptools"}
    return frozenset(
        module
        for module, distributions in metadata.packages_distributions().items()
        if kept.isdisjoint(map(canonicalize_name, distributions))
    )


def mlcls(*arguments: Any, cwd: Path) -> subprocess.CompletedProcess:
    """Run `mlcls` with these arguments in the folder `cwd`."""
    return forked("mlcls", *arguments, cwd=cwd)


def on_devices(count: int, program: str, *arguments: Any) -> str:
    """Return what a program prints that sees so many devices."""
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        cwd=REPOSITORY,
        env=os.environ
        | {
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={count}",
        },
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
