"""The commands of `mlcls`: a table of all, and the search for the one that is meant.

A command is a file `commands/NAME.py` with `run(arguments)`, which returns the text to print, and a
line in `COMMANDS`. Nothing of it is imported before it runs, so that `mlcls --help` is quick.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from mlcls_jax import lazy, usage
from mlcls_jax.command_line import RECORD, FlagError, take
from mlcls_jax.errors import nearest


@dataclass(frozen=True)
class Command:
    """A word after `mlcls`, and what it does."""

    name: str
    function: str  # (arguments) → text to print; in this package
    group: Literal["config", "model", "other", "hidden"]  # its place in the overview
    help: str = ""
    mode: str | None = None  # what it does with a configuration file
    is_long: bool = False  # long enough that huge pages are worth starting anew

    def load(self) -> Callable[[list[str]], str]:
        """Import and return the function (arguments) → text to print.

        It raises:
          UserError: an argument, a file or the data is wrong.
          SystemExit: argparse refuses the arguments, or has shown their help.
        """
        return lazy.load(f"{__name__}.{self.function}")


_PADDLEX = "PaddleX's way:"
_TABLE = (
    Command("check", "mode.run", "config", "what is wrong with a data set; convert and split it",
            mode="check_dataset", is_long=True),
    Command("train", "mode.run", "config",
            "train a model; the same command goes on after an interruption",
            mode="train", is_long=True),
    Command("from_words", "from_words.run", "config",
            "a small model from images without labels and a list of words", is_long=True),
    Command("find_lr", "mode.run", "config", "a learning rate for a run, by a short test",
            mode="find_lr", is_long=True),
    Command("evaluate", "mode.run", "config",
            "mAP and more on the validation images, with a report",
            mode="evaluate", is_long=True),
    Command("thresholds", "mode.run", "config",
            "choose thresholds and calibrate on the validation images",
            mode="thresholds", is_long=True),
    Command("predict", "predict.run", "model",
            f"labels of images; also {_PADDLEX} {{0}} --pipeline NAME --input IMAGE",
            mode="predict"),
    Command("serve", "serve.run", "model",
            "an HTTP server: {0} serve --model_dir runs/demo/best_model --port 8080;\n"
            f"{_PADDLEX} {{0}} --serve …", is_long=True),
    Command("score", "score.run", "model", "labels of millions of images, as Parquet files",
            is_long=True),
    Command("export", "export.run", "model", "files for other runtimes: StableHLO, ONNX, LiteRT",
            mode="export"),
    Command("push", "push.run", "model", "a model to the Hugging Face Hub"),
    Command("backends", "backends.run", "model",
            "what each runtime and precision costs and gains here"),
    Command("studio", "studio.run", "other",
            "look through a data set in the browser, and correct its labels"),
    Command("tune", "tune.run", "other", "better settings for a data set, by a search over runs",
            is_long=True),
    Command("audit", "audit.run", "other", "labels of a data set that are probably wrong"),
    Command("next", "next.run", "other", "which unlabelled images to label next"),
    Command("learning_curve", "learning_curve.run", "other",
            "what more labelled images would bring"),
    Command("compare", "compare.run", "other", "runs or bundles side by side: metrics, cost"),
    Command("average", "average.run", "other", "several runs as one: their weights, or scores",
            is_long=True),
    Command("models", "models.run", "other", "the available models"),
    Command("weights", "weights.run", "other", "published weights: list, fetch, keep"),
    Command("pack", "pack.run", "other", "a data set as shards"),
    Command("convert", "convert.run", "other", "a data set for other tools: COCO, Label Studio, …"),
    Command("plan", "plan.run", "other", "memory and time of a training step"),
    Command("config", "config.run", "other", "the options: show, explain, schema for editors"),
    Command("completion", "completion.run", "other", "what lets bash, zsh or fish complete mlcls"),
    Command("help", "help.run", "hidden"),
    Command("version", "help.version", "hidden"),
    Command("helpconfig", "config.helpconfig", "hidden"),
)  # fmt: skip
COMMANDS = {command.name: command for command in _TABLE}
# Flags without a word: those of a configuration.
FLAGS = Command("", "mode.run", "hidden", is_long=True)

# What takes a data set, or a run, instead of them.
OF_DATA = {
    word: Command(word, f"{word}.run", "hidden", is_long=True)
    for word in ("check", "find_lr", "train")
}

# Other names of commands: the usual flags, and a mode that is called otherwise.
_ALIASES = {
    "--help": "help",
    "-h": "help",
    "--version": "version",
    "check_dataset": "check",
}
# What a run's folder, or a bundle, that stands first is for; and what follows it.
_PLACES = {
    "evaluate": ("--workdir", None),
    "thresholds": ("--workdir", None),
    "plan": ("--workdir", None),
    "predict": ("--model_dir", "--input"),
    "serve": ("--model_dir", None),
    "score": ("--model_dir", "--input"),
    "studio": ("--data", None),
}
# What opens a run or bundle first, which takes a moment. Modes tell it themselves.
_OPENING = {
    *("predict", "serve", "score", "push", "backends"),
    *("audit", "next", "learning_curve", "compare", "average"),
}
# Flags of PaddleX that stand without a word, and mean `predict`.
_PIPELINE_FLAGS = {"--pipeline", "--input", "--get_pipeline_config"}


def find(arguments: list[str]) -> tuple[Command, list[str]]:
    """Return the command that is meant, and the arguments that are left for it.

    Raises:
      FlagError: there is no such command, or its mode is not that of the flags.
    """
    word, *rest = arguments or ["help"]
    if word == "help" and rest:
        word, rest = rest[0], ["--help"]
    word = _ALIASES.get(word, word)
    if word.startswith("-"):
        word, rest = "", arguments
    command = COMMANDS.get(word, FLAGS)
    rest = _with_flags(word, rest)
    flags = {argument.partition("=")[0] for argument in rest}
    if command.name in ("help", "version"):
        return command, rest
    if flags & {"--helpconfig", "-helpconfig"}:
        return COMMANDS["helpconfig"], rest
    if command.name in OF_DATA and _has_place(rest):
        *others, _ = _with_mode(command, rest)
        return OF_DATA[command.name], others
    if command.mode and (command.group == "config" or take(rest, "config")[0] is not None):
        return FLAGS, _with_mode(command, rest)
    if "--serve" in flags and command.name in ("", "predict"):
        return COMMANDS["serve"], rest
    if not word and flags & _PIPELINE_FLAGS:
        return COMMANDS["predict"], rest
    if word and command is FLAGS:
        known = [name for name, command in COMMANDS.items() if command.group != "hidden"]
        close = nearest(word, known)
        hint = f"Did you mean {close}?" if close else f"`{usage.program()} --help` names all."
        raise FlagError(f"{word}: there is no such command", hint)
    return command, rest


def opened(word: str, arguments: list[str]) -> str | None:
    """Return the run or bundle that a word opens first, if any; `arguments` as `find` left them."""
    if word not in _OPENING or {"--help", "-h"} & {*arguments} or take(arguments, "config")[0]:
        return None
    first = arguments[0] if arguments and not arguments[0].startswith("-") else None
    return take(arguments, "model_dir")[0] or take(arguments, "workdir")[0] or first


def _with_flags(word: str, rest: list[str]) -> list[str]:
    """Return the arguments with flags for a run that stands first, and for what follows it."""
    places = list(itertools.takewhile(lambda argument: not argument.startswith("-"), rest))
    if word not in _PLACES or not places:
        return rest
    if word == "evaluate" and take(rest, "workdir")[0] and not take(rest, "config")[0]:
        run = places[0]  # is only read
        return [f"--config={run}/{RECORD}", f"--config.evaluate.model_dir={run}", *rest[1:]]
    first, others = _PLACES[word]
    flags, inputs = [f"{first}={places[0]}"], places[1:]
    if inputs and others:
        flags += [others, *inputs]
        inputs = []
    return [*flags, *rest[len(places) :], *inputs]


def _has_place(rest: list[str]) -> bool:
    """Return whether there is an argument that is neither a flag nor the value of one.

    Beside --config and --workdir it is not looked for: these say all that a place could.
    """
    if {"--config", "-config", "--workdir", "-workdir"} & {a.partition("=")[0] for a in rest}:
        return False
    before = ["", *rest]
    return any(
        not argument.startswith("-") and ("=" in flag or not flag.startswith("-"))
        for flag, argument in zip(before, rest, strict=False)
    )


def _with_mode(command: Command, flags: list[str]) -> list[str]:
    mode, others = take(flags, "config.mode")
    if mode not in (None, command.mode):
        raise FlagError(
            f"--config.mode={mode}: the command {command.name} means mode={command.mode}",
            "Leave out one of the two.",
        )
    return [*others, f"--config.mode={command.mode}"]
