"""`mlcls weights`: what is published for which model, what of it is here, and how to get it."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from mlcls_jax import files, usage
from mlcls_jax.config import option
from mlcls_jax.errors import ConfigError, InputError
from mlcls_jax.paths import expand
from mlcls_jax.readable import table

Action = Literal["list", "get", "add", "where"]
COLUMNS = ("model", "model.weights=", "file", "licence", "trained on", "pixels", "here")


@dataclass(frozen=True)
class Arguments:
    """List, fetch and keep published weights, by the words of model.weights.

    A file that was fetched elsewhere is kept by add; where says where files are kept.
    """

    action: Action = option(
        "list", "list PATTERN, or the pattern alone, get MODEL, add FILE, or where", positional=True
    )
    subject: str = option("", "pattern of models (*_ML), model, or file", positional=True)
    source: str = option("auto", "of get: official, backbone, ssld_stage2, timm or timm:NAME")


def run(argv: list[str]) -> str:
    """Do what the arguments say, and return the text to print."""
    if argv and argv[0] not in get_args(Action) and not argv[0].startswith("-"):
        argv = ["list", *argv]
    args = usage.arguments(Arguments, argv, "weights get PP-LCNet_x1_0_ML --source backbone")
    from mlcls_jax.models.weights import sources  # imports JAX, which a help does without

    if args.action == "get":
        return f"{sources.weight_file(args.source, args.subject)}"
    if args.action == "add":
        return _add(Path(expand(args.subject)))
    return _list(args.subject or "*_ML") if args.action == "list" else _where()


def _list(pattern: str) -> str:
    from mlcls_jax.models.registry import list_models
    from mlcls_jax.models.weights import sources

    if not (names := list_models(pattern)):
        raise ConfigError(f"no model matches {pattern!r}", "`mlcls models` lists them.")
    rows: list[tuple[str, ...]] = [COLUMNS]
    for name in names:
        for source in sources.sources(name):
            here = "yes" if sources.kept(source) else ""
            facts = (source.licence, source.trained_on, source.pixels)
            rows.append((name, source.word, source.file, *facts, here))
    lines = table(rows, to_left=len(COLUMNS))
    return "\n".join([*lines, "", "auto takes the first of a model. Pixels: of its training."])


def _add(file: Path) -> str:
    from mlcls_jax.models.registry import list_models
    from mlcls_jax.models.weights import sources

    if not file.is_file():
        raise InputError(f"{file}: there is no such file")
    for name in list_models():
        for source in sources.sources(name):
            if source.file == file.name:
                return f"{file.name} is kept as {sources.add(file, source)}"
    raise InputError(
        f"{file.name}: no file of this name is published for a model",
        "`mlcls weights` lists the names. Any other file is given by its path: model.weights=FILE.",
    )


def _where() -> str:
    from mlcls_jax.models.weights import sources

    folder = os.environ.get(sources.FOLDER)
    mirror = os.environ.get(sources.MIRROR)
    return (
        f"fetched files: {files.cache_folder('weights')}\n"
        f"{sources.FOLDER} (a folder of files fetched by hand): {folder or 'not set'}\n"
        f"{sources.MIRROR} (an address with the same files): {mirror or 'not set'}"
    )
