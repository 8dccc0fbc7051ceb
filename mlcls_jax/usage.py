"""Usage lines, and the parser of a command's arguments."""

import argparse
import logging
import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from mlcls_jax import errors
from mlcls_jax.config import add_arguments, from_arguments

T = TypeVar("T")

DEMO = "--config=configs/lcnet.py --workdir=runs/demo"


def program() -> str:
    """Return how the user calls this command: `mlcls`, or `python -m mlcls_jax.main`."""
    if Path(sys.argv[0]).stem == "mlcls":
        return "mlcls"
    return f"{_python()} -m mlcls_jax.main"


def _python() -> str:
    """Return how the user calls this interpreter: `python`, or its path if that is another one."""
    found = shutil.which("python")
    if found and Path(sys.prefix) in Path(found).parents:
        return "python"
    relative = os.path.relpath(sys.executable)
    return shlex.quote(sys.executable if relative.startswith("..") else relative)


def line(word: str = "") -> str:
    """Return the usage in one line."""
    return f"usage: {program()} {word + ' ' if word else ''}{DEMO} [--config.KEY=VALUE ...]"


# All commands take these, and `main` takes them away before a command sees its arguments.
VERBOSITY = {
    "--quiet": (logging.WARNING, "print results and warnings alone"),
    "--verbose": (logging.DEBUG, "print all that log files get"),
}


def verbosity(arguments: list[str]) -> tuple[list[str], int]:
    """Return the arguments without those of `VERBOSITY`, and the level of messages to print."""
    levels = [VERBOSITY[argument][0] for argument in arguments if argument in VERBOSITY]
    others = [argument for argument in arguments if argument not in VERBOSITY]
    return others, levels[-1] if levels else logging.INFO


def arguments(kind: type[T], argv: list[str], example: str, usage: str | None = None) -> T:
    """Return the arguments of a command as `kind`, a dataclass of `option`s.

    Its docstring is the command's help, and the first word of the example its name.

    Raises:
      SystemExit: argparse refuses the arguments, or has shown their help.
    """
    return from_arguments(kind, parser_of(kind, example, usage).parse_args(argv))


def parser_of(kind: type, example: str, usage: str | None = None) -> argparse.ArgumentParser:
    """Return the parser of `arguments`, for commands that refuse more than it does."""
    made = parser(example.split()[0], kind.__doc__ or "", example, usage)
    add_arguments(made, kind)
    return made


def parser(
    word: str, description: str, example: str, usage: str | None = None
) -> argparse.ArgumentParser:
    """Return a parser for the arguments of a command; its help shows an example."""
    made = _Parser(
        prog=f"mlcls {word}",
        usage=usage,
        description=description,
        epilog=f"for instance:\n  {program()} {example}",
        formatter_class=_Formatter,
        allow_abbrev=False,
    )
    for flag, (_, told) in VERBOSITY.items():
        made.add_argument(flag, action="store_true", help=told)
    return made


class _Parser(argparse.ArgumentParser):
    """Takes `--batch-size` for `--batch_size`, as people type it."""

    _given: Sequence[str] = ()

    def parse_known_args(
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        given = sys.argv[1:] if args is None else args
        self._given = [self._spelled(argument) for argument in given]
        return super().parse_known_args(self._given, namespace)

    def error(self, message: str) -> NoReturn:
        """End the command; a flag that nobody knows gets the nearest spelling."""
        known = self._option_string_actions
        flags = [given.partition("=")[0] for given in self._given if given.startswith("--")]
        near = {flag: errors.nearest(flag, known) for flag in flags if flag not in known}
        told = [f"{flag}: did you mean {meant}?" for flag, meant in near.items() if meant]
        super().error("\n".join([message, *told]))

    def _spelled(self, argument: str) -> str:
        flag, equals, value = argument.partition("=")
        ours = f"--{flag[2:].replace('-', '_')}"
        is_ours = flag not in self._option_string_actions and ours in self._option_string_actions
        return f"{ours}{equals}{value}" if flag.startswith("--") and is_ours else argument


class _Formatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows defaults where there are any, and leaves the lines of the example as they are."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if text.startswith("for instance:"):
            return text
        return super()._fill_text(text, width, indent)

    def _get_help_string(self, action: argparse.Action) -> str | None:
        told = action.help or ""
        before, none, default = told.rpartition("None: ")
        if none and action.default is None:  # which nobody types
            return f"{before.rstrip('; ')} (default: {default})"
        is_plain = any(action.default is plain for plain in (None, False, ()))
        is_plain = is_plain or action.default == ""
        return told if is_plain or "(default" in told else super()._get_help_string(action)
