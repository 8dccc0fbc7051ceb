"""How one option of the schema or of a command is written down, and what its type says."""

import types
import typing
from collections.abc import Callable
from dataclasses import MISSING, Field, field
from typing import Any, Literal

REQUIRED = MISSING  # in the place of a default


def option(
    default: Any,
    help: str,
    *,
    min: float | None = None,
    max: float | None = None,
    path: Literal["local", "model", "any"] | None = None,
    is_secret: bool = False,
    positional: bool = False,
    metavar: str | None = None,
    parse: Callable[[str], Any] | None = None,
) -> Any:
    """Declare a field with one line of help and, for numbers, the range of its values.

    Args:
      default: its value where none is given, or `REQUIRED`.
      help: what it is.
      min: the least value; allowed itself.
      max: the greatest value; allowed itself.
      path: the value is a path, in which `~` and `file://` are written out when it is parsed; of
        this machine; or (model) a bundle or run there, or `hf://owner/name`; or else (any) its
        reader may understand other URLs.
      is_secret: it is left out of the `repr`.
      positional: of a command: it has no flag.
      metavar: of a command: what stands for its value in the help.
      parse: of a command: what makes the value of its text, instead of the type.
    """
    metadata = {
        **{"help": help, "min": min, "max": max, "path": path},
        **{"positional": positional, "metavar": metavar, "parse": parse},
    }
    return field(default=default, metadata=metadata, repr=not is_secret)


def bare_type(f: Field) -> Any:
    """Return the field's type without None."""
    args = [a for a in typing.get_args(f.type) if a is not types.NoneType]
    return args[0] if is_optional(f) else f.type


def is_optional(f: Field) -> bool:
    """Return whether the value may be None."""
    return types.NoneType in typing.get_args(f.type)


def base_type(f: Field) -> type:
    """Return the class of the values that are not None: str for choices, tuple for several."""
    bare = bare_type(f)
    origin = typing.get_origin(bare)
    return str if origin is Literal else origin or bare


def choices_of(f: Field) -> tuple[str, ...]:
    """Return the values to choose from; empty if they are not listed."""
    bare = bare_type(f)
    return typing.get_args(bare) if typing.get_origin(bare) is Literal else ()


def kind_text(f: Field) -> str:
    """Return what a value must be, in words: `int, at least 1` or `one of cosine, constant`."""
    base, choices = base_type(f), choices_of(f)
    if choices:
        return f"one of {', '.join(choices)}"
    name = base.__name__
    if base is tuple:
        name = f"tuple of {typing.get_args(bare_type(f))[0].__name__}"
    low, high = f.metadata["min"], f.metadata["max"]
    if low is not None and high is not None:
        name += f", {low} to {high}"
    elif low is not None:
        name += f", at least {low}"
    return name + (" or None" if is_optional(f) else "")
