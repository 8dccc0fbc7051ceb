"""A mode in its workdir: its processes, its lock, its log and its result file."""

import contextlib
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mlcls_jax import files, lazy, parallel
from mlcls_jax.config import Config
from mlcls_jax.errors import UserError, WorkdirError
from mlcls_jax.inference.bundle import model_folder
from mlcls_jax.lock import locked
from mlcls_jax.modes.result import Result
from mlcls_jax.start import logging_to, start_console
from mlcls_jax.workdir import open_workdir


def run_mode(config: Config, workdir: Path, **others: Any) -> Result | None:
    """Run the mode of `config` and write its result file; `others` are the mode's own arguments.

    Returns:
      The outcome; None in all processes but the first.

    Raises:
      PreemptedError: the run was asked to end; the same command goes on.
      UserError: the configuration, the data or a file is wrong.
    """
    with opened(config, workdir) as (mode, done):
        return done(mode(config, workdir, **others))


Done = Callable[[Result | None], Result | None]


@contextlib.contextmanager
def opened(config: Config, workdir: Path) -> Iterator[tuple[Callable[..., Result | None], Done]]:
    """Open the workdir, which is made if need be, for the mode that runs in the block.

    What goes wrong in the block is written into the result file.

    Yields:
      The mode, and what takes its result to write it down and gives it back. In all processes but
      the first this gives None.
    """
    mode = lazy.load(f"mlcls_jax.modes.{config.mode}.{config.mode}")  # as its file is called
    if not parallel.is_lead():
        start_console(logging.WARNING)
        yield mode, lambda result: None
        return
    open_workdir(workdir)
    result_file = workdir / f"{config.mode}_result.json"

    def done(result: Result | None) -> Result | None:
        assert result is not None  # of the first process
        files.write_json(result_file, {"done_flag": True, **result.to_json()})
        return result

    with locked(locked_folder(config, workdir)), logging_to(workdir / f"{config.mode}.log"):
        try:
            yield mode, done
        except WorkdirError:
            raise  # the workdir belongs to another run: leave it alone
        except Exception as error:
            facts = error.facts if isinstance(error, UserError) else {}
            fault = facts | {"err_type": type(error).__name__, "err_msg": str(error)}
            if result_file.exists():  # may be of an earlier run that went well
                os.replace(result_file, result_file.with_suffix(".json.bak"))
            files.write_json(result_file, {"done_flag": False, **fault})
            raise


def locked_folder(config: Config, workdir: Path) -> Path | None:
    """Return the folder that no other run may write into meanwhile; None if it is harmless.

    Training owns its workdir. Choosing thresholds changes a bundle, which a training beside it
    would replace. All other modes only read the bundle, and write files of their own.
    """
    if config.mode == "train":
        return workdir
    if config.mode == "thresholds" or (config.mode == "evaluate" and config.evaluate.thresholds):
        folder = model_folder(config.evaluate.model_dir or workdir / "best_model").parent
        return folder if os.access(folder, os.W_OK) else None
    return None
