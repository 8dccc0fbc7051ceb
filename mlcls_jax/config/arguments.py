"""Arguments of a command, derived from a dataclass of options."""

import argparse
import dataclasses
import json
import typing
from collections.abc import Callable
from typing import Any, TypeVar

from mlcls_jax import paths
from mlcls_jax.config.field import bare_type, base_type, choices_of, kind_text

T = TypeVar("T")


def add_arguments(parser: argparse._ActionsContainer, kind: type) -> None:
    """Let the parser know every `option` of a dataclass, as `--name VALUE` unless it is positional.

    Its text is checked by the option's type and range; fields without help are none of the user's.
    """
    for f in _options(kind):
        told = f.metadata
        has_default = f.default is not dataclasses.MISSING
        given: dict[str, Any] = {
            "help": told["help"],
            "default": f.default if has_default else None,
        }
        if base_type(f) is bool:
            given["action"] = argparse.BooleanOptionalAction if f.default else "store_true"
            parser.add_argument(f"--{f.name}", **given)
            continue
        given |= {"type": _converter(f), "choices": choices_of(f) or None}
        if base_type(f) is tuple:
            given["nargs"] = "+"
        if told["metavar"] or (told["positional"] and not choices_of(f)):
            given["metavar"] = told["metavar"] or f.name.upper()
        if not told["positional"]:
            given["required"] = not has_default
        elif has_default:
            given["nargs"] = "?"
        parser.add_argument(f.name if told["positional"] else f"--{f.name}", **given)


def from_arguments(kind: type[T], arguments: argparse.Namespace, **others: Any) -> T:
    """Return the dataclass with the values that a parser of `add_arguments` has read.

    `others` are values of fields that are no options, or that go before what was read.
    """
    read = {f.name: getattr(arguments, f.name) for f in _options(kind)}
    given = {name: tuple(v) if isinstance(v, list) else v for name, v in read.items()}
    return kind(**given | others)


def json_value(text: str) -> Any:
    """Return the value of an argument that is a number or JSON."""
    try:
        return json.loads(text)
    except ValueError as error:
        told = f"{text!r} is neither a number nor JSON, such as '{{\"cat\": 0.7}}'"
        raise argparse.ArgumentTypeError(told) from error


def _options(kind: Any) -> list[dataclasses.Field]:
    return [f for f in dataclasses.fields(kind) if "help" in f.metadata]


def _converter(f: dataclasses.Field) -> Callable[[str], Any]:
    """Return the function that makes the value of an option, or an item of it, of its text."""
    told, base = f.metadata, base_type(f)
    if told["parse"]:
        return told["parse"]
    if told["path"] in ("local", "model"):
        name = f.name.upper() if told["positional"] else f"--{f.name}"
        return paths.local(name, kind=told["path"])
    if told["path"] == "any":
        return paths.expand
    item: type = typing.get_args(bare_type(f))[0] if base is tuple else base
    low, high = told["min"], told["max"]
    if low is None and high is None:
        return item

    def number(text: str) -> Any:
        try:
            value = item(text)
        except ValueError:
            value = None
        if value is not None and (low is None or low <= value) and (high is None or value <= high):
            return value
        if item is int and low == 1 and high is None:
            raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
        wanted = kind_text(f).removesuffix(" or None")
        raise argparse.ArgumentTypeError(f"{text!r}: must be {wanted}")

    return number
