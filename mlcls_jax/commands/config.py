"""`mlcls config show|explain|schema`: the options, one of them, or all as a JSON Schema."""

import json
import re
import shlex
import textwrap
from dataclasses import dataclass
from typing import Literal

from mlcls_jax import command_line, recipes, usage
from mlcls_jax import config as schema
from mlcls_jax.command_line import FlagError, take
from mlcls_jax.commands import option_facts
from mlcls_jax.config import from_arguments, option
from mlcls_jax.errors import UserError
from mlcls_jax.workdir import is_free
from mlcls_jax.yaml_config import BASE

_WIDTH = 100


@dataclass(frozen=True)
class Arguments:
    """The options of a configuration.

    They are --config.KEY=VALUE on the command line, sections and keys in a YAML file.
    """

    what: Literal["show", "explain", "schema"] = option(
        "show",
        "show: options, or with --config=FILE that file's values; explain: all about one; schema:"
        " JSON Schema of the YAML files, for editors",
        positional=True,
    )
    key: str | None = option(
        None, "an option, a section, or (show) any text to look for", positional=True
    )


def run(argv: list[str]) -> str:
    """Return what is asked for."""
    file, rest = take(argv, "config")
    keys = [argument for argument in rest if re.match(r"--?(?:no)?config\.", argument)]
    parser = usage.parser_of(
        Arguments,
        "config explain train.batch_size",
        "mlcls config [{show,explain,schema}] [KEY] [--config=FILE] [--config.KEY=VALUE ...]",
    )
    asked = from_arguments(Arguments, parser.parse_args([a for a in rest if a not in keys]))
    if asked.what == "schema":
        return json.dumps(_schema(), indent=2, ensure_ascii=False)
    if asked.what == "show":
        return _show(asked.key, [f"--config={file}"] * (file is not None) + keys)
    if asked.key is None:
        parser.error("explain: which KEY? `mlcls config show` lists all")
    return "\n\n".join(_explain(key) for key in _meant(asked.key))


def helpconfig(argv: list[str]) -> str:
    """Return what `mlcls --helpconfig[=TEXT]` asks for, with any flags of a run."""
    text, flags = take(argv, "helpconfig")
    if text and text.startswith("-"):  # the next flag
        text, flags = None, [*flags, text]
    return _show(text, flags)


def _show(text: str | None, flags: list[str]) -> str:
    try:
        keys = schema.matching(text) if text else None
        values = None
        if take(flags, "config")[0] is not None:
            command_line.parse(["mlcls", *flags], workdir=False)
            values = command_line.CONFIG.value
    except UserError as error:
        raise FlagError(error.message, error.hint or "") from error
    return f"{usage.line()}\n{schema.describe(keys, values)}"


def _schema() -> dict[str, object]:
    of_values = schema.json_schema()
    base = {
        "enum": [*recipes.FILES, *recipes.names()],
        "description": "recipe under the values of this file; without it, the defaults",
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Configuration of mlcls_jax",
        **of_values,
        "properties": {BASE: base, **of_values["properties"]},
    }


def _meant(key: str) -> list[str]:
    """Return the option of this name, those that end in it, or what others call so (`lr`)."""
    known = schema.options()
    found = [key] * (key in known) or [k for k in known if k.endswith(f".{key}")]
    if not found and key not in command_line.ALIASES:
        raise FlagError(schema.unknown_key(key), "")
    return found or [command_line.ALIASES[key]]


def _by_file(names: list[str]) -> str:
    """Return `lcnet:demo,small resnet:demo` of the recipes' names."""
    files: dict[str, list[str]] = {}
    for file, _, recipe in (name.partition(":") for name in names):
        files.setdefault(file, []).append(recipe)
    return "  ".join(f"{file}:{','.join(found)}" for file, found in files.items())


def _explain(key: str) -> str:
    """Return a paragraph about an option."""
    f = schema.options()[key]
    value = list(f.default) if isinstance(f.default, tuple) else f.default
    written = json.dumps(value, ensure_ascii=False)
    for part in reversed(key.split(".")):
        written = f"{part}: {written}" if part == key.split(".")[-1] else f"{part}: {{{written}}}"
    recipe_values = [
        f"{value} in {_by_file(names)}"
        for value, names in option_facts.recipe_values(key, f.default).items()
    ]
    rows = [
        ("value", [schema.kind_of(key)]),
        ("default", [str(f.default)]),
        ("flag", [shlex.quote(f"--config.{key}={f.default}")]),
        ("YAML", [written]),
        ("recipes", recipe_values),
        ("must agree", option_facts.agreements(key)),
        ("going on", ["may change" if is_free(key) else "stays"]),
        ("read in", ["  ".join(option_facts.readers(key))]),
    ]
    lines = textwrap.wrap(f"{key}: {f.metadata['help']}", _WIDTH)
    for name, texts in rows:
        for text in filter(None, texts):
            first = f"  {name:12}"
            name = ""
            lines += textwrap.wrap(
                text, _WIDTH, initial_indent=first, subsequent_indent=" " * 16,
                break_long_words=False, break_on_hyphens=False,
            )  # fmt: skip
    return "\n".join(lines)
