"""`mlcls WORD --config=FILE --workdir=FOLDER`: a mode, as its configuration says."""

import contextlib
import logging
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

from mlcls_jax import command_line, paths, usage
from mlcls_jax import config as schema
from mlcls_jax.command_line import FlagError
from mlcls_jax.commands import COMMANDS
from mlcls_jax.commands.mode_help import help_of
from mlcls_jax.errors import PreemptedError, UserError
from mlcls_jax.modes.result import Result
from mlcls_jax.signals import outcome
from mlcls_jax.start import start_jax

log = logging.getLogger(__name__)

# The words that mean a mode, for its help.
_WORDS = {command.mode: name for name, command in COMMANDS.items() if command.mode}


class _EndedError(UserError):
    """A signal ended a mode."""

    def __init__(self, message: str, hint: str, code: int) -> None:
        super().__init__(message, hint)
        self.exit_code = code


def run(arguments: list[str]) -> str:
    """Run a mode, and return its summary; or its help if that is asked for.

    Raises:
      FlagError: a flag, a key or a value is wrong, or the configuration file is.
      PreemptedError: the run was asked to end; the same command goes on.
      UserError: the configuration, the data or a file is wrong.
    """
    mode, _ = command_line.take(arguments, "config.mode")
    word = _WORDS.get(mode or "", "")
    if {"--help", "-h"} & {*arguments}:
        return help_of(mode or "train", word)
    try:
        command_line.parse([sys.argv[0], *arguments])
    except FlagError as error:
        error.hint = usage.line(word) if error.hint is None else error.hint
        raise
    workdir = paths.local_path("--workdir", command_line.WORKDIR.value or "")
    config = schema.parse(command_line.CONFIG.value)
    with interruptions(config, workdir):
        place = Path(config.evaluate.model_dir or workdir / "best_model")
        if config.mode in ("evaluate", "thresholds") and place.exists():
            log.info("Opening %s …", place)  # before imports, which take seconds
        elif config.mode in ("train", "find_lr", "check_dataset"):
            log.info("Looking at %s …", config.data.dir or config.data.source)
        from mlcls_jax import parallel  # imports JAX: once nothing is wrong
        from mlcls_jax.modes.running import opened

        start_jax(cache=config.train.compile_cache)
        with parallel.devices(command_line.DEVICE.value):
            parallel.start_hosts(*command_line.hosts())
        with opened(config, workdir) as (mode, done):
            result = done(mode(config, workdir))
        if result is None:  # of several processes the first one tells the outcome
            return ""
    return summary(result, config, workdir, arguments)


def run_new(config: schema.Config, workdir: Path, flags: list[str]) -> str:
    """Run a mode in its new folder, and return its summary; see `run` for what it raises."""
    from mlcls_jax.modes.running import run_mode  # imports JAX: once the plan is told

    with interruptions(config, workdir):
        result = run_mode(config, workdir)
    assert result is not None  # one process is the first one
    return summary(result, config, workdir, flags)


@contextlib.contextmanager
def interruptions(config: schema.Config, workdir: Path, again: str | None = None) -> Iterator[None]:
    """Raise errors for users in place of those of the system, and of Ctrl-C, in the block.

    `again` is the command that goes on; None: the same command does.
    """
    try:
        yield
    except PreemptedError as error:
        if again:
            error.hint = f"It goes on by: {again}"
        raise
    except OSError as error:  # disk full, permission lost
        raise UserError(f"{error.filename or workdir}: {error.strerror or error}") from error
    except KeyboardInterrupt as error:
        same = f"The same command {_goes_on(config, workdir)}."
        hint = f"It goes on by: {again}" if again else same
        told, code = outcome(error)
        raise _EndedError(told, hint, code) from error


def summary(result: Result, config: schema.Config, workdir: Path, flags: list[str]) -> str:
    """Return what was written where, and what to do next."""
    same = [flag for flag in flags if not re.match(r"--?config\.(mode\b|predict\.)", flag)]
    command = f"{usage.program()} {shlex.join(same)}"
    return "\n".join(["", *result.summary(config, workdir, command)])


def _goes_on(config: schema.Config, workdir: Path) -> str:
    """Return what a mode does that is started again after an interruption."""
    from mlcls_jax.workdir import saved_step

    step = saved_step(workdir) if config.mode == "train" else None
    return "starts over" if step is None else f"resumes from the checkpoint of step {step}"
