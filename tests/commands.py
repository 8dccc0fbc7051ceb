"""The console command in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parent.parent


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
