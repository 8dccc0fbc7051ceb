"""The console command in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]


def mlcls(*arguments: Any, cwd: Path) -> subprocess.CompletedProcess:
    """`mlcls` with these arguments, in the folder `cwd`."""
    program = "import sys; from mlcls_jax import main; sys.argv[0] = 'mlcls'; main.run()"
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=300,
    )


def on_devices(count: int, program: str) -> str:
    """What a program prints that sees so many devices."""
    done = subprocess.run(
        [sys.executable, "-c", program],
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
