"""`mlcls WORD --config=FILE --workdir=FOLDER`: a mode, as its configuration says."""

import re
import shlex
import sys
from pathlib import Path
from typing import NoReturn

from absl import app

from mlcls_jax import command_line, paths, usage
from mlcls_jax import config as schema
from mlcls_jax.command_line import FlagError
from mlcls_jax.commands import COMMANDS
from mlcls_jax.commands.mode_help import help_of
from mlcls_jax.errors import UserError
from mlcls_jax.modes.result import Result


class _InterruptedError(UserError):
    """The user interrupted a mode from the keyboard."""

    exit_code = 130


def run(arguments: list[str]) -> str:
    """Run a mode and print its summary; return the help if that is asked for.

    Args:
      arguments: a word that means the mode, and flags; without a word, the configuration names it.

    Raises:
      SystemExit: it is done: absl, whose flags these are, ends the process.
      FlagError: a flag, a key or a value is wrong, or the configuration file is.
      PreemptedError: the run was asked to end; the same command goes on.
      UserError: the configuration, the data or a file is wrong.
    """
    word, flags = ("", arguments) if arguments[0].startswith("-") else (arguments[0], arguments[1:])
    mode, others = command_line.take(flags, "config.mode")
    if word:
        meant = COMMANDS[word].mode
        if mode not in (None, meant):
            raise FlagError(
                f"--config.mode={mode}: the command {word} means mode={meant}",
                "Leave out one of the two.",
            )
        mode, flags = meant, [*others, f"--config.mode={meant}"]
    if {"--help", "-h"} & {*flags}:
        return help_of(mode or "train", word)
    _run_flags(word, flags)


def _run_flags(word: str, flags: list[str]) -> NoReturn:
    def parse(argv: list[str]) -> list[str]:
        try:
            return command_line.parse(argv)
        except FlagError as error:
            error.hint = usage.line(word) if error.hint is None else error.hint
            raise

    app.run(lambda _: _run_config(flags), argv=[sys.argv[0], *flags], flags_parser=parse)


def _run_config(flags: list[str]) -> None:
    """Run the mode of the configuration that the flags gave, and print its summary."""
    given = command_line.WORKDIR.value or ""  # `command_line.parse` wants one
    workdir, mode = Path(given), None
    try:
        workdir = paths.local_path("--workdir", given)
        config = schema.parse(command_line.CONFIG.value)
        mode = config.mode
        from mlcls_jax.modes.running import run_mode  # imports JAX: once nothing is wrong

        result = run_mode(config, workdir, command_line.hosts())
    except OSError as error:  # disk full, permission lost
        raise UserError(f"{error.filename or workdir}: {error.strerror or error}") from error
    except KeyboardInterrupt as error:
        hint = f"The same command {_goes_on(mode, workdir)}."
        raise _InterruptedError("Interrupted.", hint) from error
    if result:
        print(summary(result, config, workdir, flags), flush=True)


def summary(result: Result, config: schema.Config, workdir: Path, flags: list[str]) -> str:
    """Return what was written where, and what to do next."""
    same = [flag for flag in flags if not re.match(r"--?config\.(mode\b|predict\.)", flag)]
    command = f"{usage.program()} {shlex.join(same)}"
    return "\n".join(["", *result.summary(config, workdir, command)])


def _goes_on(mode: str | None, workdir: Path) -> str:
    """Return what a mode does that is started again after an interruption."""
    from mlcls_jax.workdir import saved_step

    step = saved_step(workdir) if mode == "train" else None
    return "begins again" if step is None else f"goes on from the checkpoint of step {step}"
