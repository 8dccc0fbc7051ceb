"""A mode in its workdir: its lock, its log and its result file."""

import logging
import os
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
    if not parallel.is_lead():
        start_console(logging.WARNING)
        _call(config, workdir)
        return None
    open_workdir(workdir)
    with locked(locked_folder(config, workdir)):
        return _run_lead(config, workdir)


def _run_lead(config: Config, workdir: Path) -> Result:
    """Run the mode with its log and result file in the workdir."""
    start_logging(workdir / f"{config.mode}.log")
    result_file = workdir / f"{config.mode}_result.json"
    try:
        result = _call(config, workdir)
    except WorkdirError:
        raise  # somebody else's: leave it alone
    except Exception as error:
        facts = error.facts if isinstance(error, UserError) else {}
        fault = facts | {"err_type": type(error).__name__, "err_msg": str(error)}
        if result_file.exists():  # may be of an earlier run that went well
            os.replace(result_file, result_file.with_suffix(".json.bak"))
        files.write_json(result_file, {"done_flag": False, **fault})
        raise
    files.write_json(result_file, {"done_flag": True, **result.to_json()})
    return result


def _call(config: Config, workdir: Path) -> Result:
    """Call the mode's function, which has the mode's name, as its file."""
    return lazy.load(f"mlcls_jax.modes.{config.mode}.{config.mode}")(config, workdir)
