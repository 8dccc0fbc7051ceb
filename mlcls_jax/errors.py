"""Errors that a user can mend: `main` prints message and hint, without a traceback, and exits 1."""

import difflib
import json
import shlex
from collections.abc import Collection
from importlib import metadata
from itertools import islice
from pathlib import Path
from typing import Any

MAX_FAULTS = 20  # shown in one message


class UserError(Exception):
    """Something in the user's hands is wrong; `hint` says what to do about it."""

    exit_code = 1  # of the command

    def __init__(
        self, message: str, hint: str | None = None, *, facts: dict[str, Any] | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        if hint:
            self.add_note(hint)  # shown in a traceback and in a notebook
        self.facts = facts or {}  # for the mode's result file


def install_hint(extra: str) -> str:
    """Say how to install an extra of pyproject.toml: from the checkout, or from where we came."""
    checkout = Path(__file__).parents[1]
    if not (checkout / "pyproject.toml").exists():
        return f'Install it: pip install "mlcls_jax[{extra}]{_origin()}"'
    there = "" if checkout == Path.cwd() else f"cd {shlex.quote(str(checkout))} && "
    return f'Install it: {there}pip install -e ".[{extra}]"'


def _origin() -> str:
    """Return where pip had the package from, such as a wheel's file; nothing for an index."""
    try:
        noted = metadata.distribution("mlcls_jax").read_text("direct_url.json")
    except metadata.PackageNotFoundError:
        return ""
    if noted is None:
        return ""
    origin = json.loads(noted)
    kind = origin.get("vcs_info", {}).get("vcs")
    return f" @ {kind}+{origin['url']}" if kind else f" @ {origin['url']}"


def raise_faults(kind: type[UserError], faults: Collection[str], hint: str | None = None) -> None:
    """Raise one error that tells all `faults`, as far as they fit; nothing if there are none."""
    if faults:
        lines = list(islice(faults, MAX_FAULTS))
        if more := len(faults) - len(lines):
            lines.append(f"… and {more} more faults")
        raise kind("\n".join(lines), hint)


def nearest(name: str, known: Collection[str], *, cutoff: float = 0.6) -> str | None:
    """Return the known name spelled most like `name`, in any case, if one is at least `cutoff`.

    The cutoff is of `difflib`'s ratio, 0 to 1.
    """
    if close := difflib.get_close_matches(name, known, n=1, cutoff=cutoff):
        return close[0]
    lowered = {other.lower(): other for other in known}
    close = difflib.get_close_matches(name.lower(), lowered, n=1, cutoff=cutoff)
    return lowered[close[0]] if close else None


def unknown(given: str, kind: str, name: str, known: Collection[str], cutoff: float = 0.6) -> str:
    """Return the message about a name that does not exist, with the nearest or all that do.

    Args:
      given: how the user wrote it, `model.name=PP-LCNet` for instance.
      kind: what it should name, `model` for instance.
      name: the name itself.
      known: the names that exist.
      cutoff: see `nearest`.
    """
    close = nearest(name, known, cutoff=cutoff)
    hint = f"did you mean {close}?" if close else f"there are {', '.join(known)}."
    return f"{given}: there is no such {kind}; {hint}"


class ConfigError(UserError):
    """A configuration key, type or value is wrong, or two of them do not go together."""


class DataError(UserError):
    """A data set or one of its files is missing, unreadable or malformed."""


# The names that the originals write as err_type.


class DatasetFileNotFoundError(DataError):
    """The data set, or one of the files that it must have, is not there."""


class CheckFailedError(DataError):
    """The check of a data set found errors."""


class ConvertFailedError(DataError):
    """A data set could not be converted; it is as it was."""


class SplitFailedError(DataError):
    """A data set could not be divided; it is as it was."""


class WeightsError(UserError):
    """A weight file cannot be read or does not fit the model."""


class CheckpointError(UserError):
    """A training checkpoint is missing, damaged or of another model."""


class InputError(UserError):
    """An input given for prediction cannot be read."""


class ExportError(UserError):
    """A model cannot be written for another runtime, or that runtime gives other scores."""


class WorkdirError(UserError):
    """The working directory cannot be used; nothing in it was touched."""


class NonFiniteError(UserError):
    """A loss or a score is NaN or infinite: the training has diverged."""


class PreemptedError(UserError):
    """The run was asked to end, or its time is over; a checkpoint is saved."""

    exit_code = 75  # launchers understand: try again


class InterruptedRunError(PreemptedError):
    """The same, asked from the keyboard: launchers are not to start it again."""

    exit_code = 130
