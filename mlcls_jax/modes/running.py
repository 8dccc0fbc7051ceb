"""A mode in its workdir: its lock, its log and its result file."""

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from mlcls_jax import files, lazy, parallel
from mlcls_jax.config import Config
from mlcls_jax.errors import UserError, WorkdirError
from mlcls_jax.lock import locked, locked_folder
from mlcls_jax.modes.result import Result
from mlcls_jax.start import start_console, start_jax, start_logging
from mlcls_jax.workdir import open_workdir


def run_mode(
    config: Config, workdir: Path, hosts: tuple[str | None, int | None, int | None]
) -> Result | None:
    """Run `config.mode`; of several processes the first one writes, and the others return None.

    Args:
      config: what to do.
      workdir: is made if need be.
      hosts: the arguments of `parallel.start_hosts`.
    """
    start_jax(cache=config.train.compile_cache)
    parallel.start_hosts(*hosts)
    # A mode's function has the name of the mode, as its file.
    run = lazy.load(f"mlcls_jax.modes.{config.mode}.{config.mode}")
    if not parallel.is_lead():
        start_console(logging.WARNING)
        run(config, workdir)
        return None
    open_workdir(workdir)
    result_file = workdir / f"{config.mode}_result.json"
    with locked(locked_folder(config, workdir)):
        start_logging(workdir / f"{config.mode}.log")
        with _faults_written(result_file):
            result = run(config, workdir)
        files.write_json(result_file, {"done_flag": True, **result.to_json()})
    return result


@contextlib.contextmanager
def _faults_written(result_file: Path) -> Iterator[None]:
    """Write what goes wrong in the block into the result file."""
    try:
        yield
    except WorkdirError:
        raise  # the workdir belongs to another run: leave it alone
    except Exception as error:
        facts = error.facts if isinstance(error, UserError) else {}
        fault = facts | {"err_type": type(error).__name__, "err_msg": str(error)}
        if result_file.exists():  # may be of an earlier run that went well
            os.replace(result_file, result_file.with_suffix(".json.bak"))
        files.write_json(result_file, {"done_flag": False, **fault})
        raise
