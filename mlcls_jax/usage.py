"""What the command line tells of itself: its name, the overview, and the help of its words."""

import argparse
import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import NamedTuple

from mlcls_jax import config as schema

OVERVIEW = """\
Multi-label image classification.

With a configuration file, `{0} WORD --config=configs/lcnet.py --workdir=runs/demo [--config.…]`:
  check        what is wrong with a data set; convert and divide it
  train        train a model; the same command goes on after an interruption
  evaluate     mAP and more on the validation images, with a report
  thresholds   choose thresholds and calibrate on the validation images
  (--helpconfig lists all keys; without --config, the run in the workdir is meant)

With a model, `{0} WORD …`:
  predict      labels of images; also PaddleX' way: {0} --pipeline NAME --input IMAGE
  serve        an HTTP server: {0} serve --model_dir runs/demo/best_model --port 8080;
               PaddleX' way: {0} --serve …
  score        labels of millions of images, as Parquet files
  export       files for other runtimes: StableHLO, ONNX, LiteRT
  backends     what each runtime and precision costs and brings here

Others:
  models       the models that there are
  pack         a data set as shards
  plan         memory and time of a training

`{0} WORD --help` tells more; `{0} --version` prints the version."""


class Word(NamedTuple):
    """What a mode's help shows."""

    purpose: str
    examples: tuple[str, ...]  # flags
    keys: tuple[str, ...]  # options, or sections, that matter most


DEMO = "--config=configs/lcnet.py --workdir=runs/demo"
MINE = "--config=configs/lcnet.py:mlcls --workdir=runs/mine --config.data.dir=dataset"
HELP = {
    "train": Word(
        "Train a model. The same command goes on after an interruption.",
        (DEMO, MINE, "--workdir=runs/mine  # goes on with the run that is there"),
        (
            *("data.dir", "data.augment", "model.name", "model.image_size", "model.weights"),
            *("model.dtype", "train.epochs", "train.batch_size", "train.accumulate"),
            *("train.time_limit", "optimizer.learning_rate", "optimizer.warmup_epochs"),
            *("loss.name", "parallel.fsdp"),
        ),
    ),
    "evaluate": Word(
        "Measure a model on the validation images, and write a report.",
        (DEMO, "--workdir=runs/demo  # with the configuration that is there"),
        ("data.dir", "data.val_list", "data.on_error", "evaluate"),
    ),
    "thresholds": Word(
        "Choose each label's threshold, and calibrate, on the validation images.",
        (DEMO, "--workdir=runs/demo --config.thresholds.objective=precision"
         " --config.thresholds.target=0.9"),
        ("data.dir", "data.val_list", "evaluate.model_dir", "thresholds"),
    ),
    "check_dataset": Word(
        "Tell all that is wrong with a data set. Convert and divide it before, if asked to.",
        ("--config=configs/lcnet.py:mlcls --workdir=runs/check --config.data.dir=dataset",),
        ("data.dir", "check_dataset"),
    ),
    "predict": Word(
        "Label images, with the settings of a configuration.",
        (f"{DEMO} --config.predict.input=runs/demo/samples",),
        ("data.on_error", "predict"),
    ),
    "export": Word(
        "Write a bundle for other runtimes, with the settings of a configuration.",
        (DEMO,),
        ("export",),
    ),
}  # fmt: skip
FLAGS_HELP = """\
  --config=FILE      FILE.py, FILE.py:RECIPE, or the config.yaml of a run; left out: that of the
                     workdir
  --workdir=FOLDER   for all that the run writes"""


def program() -> str:
    """How the user calls this command: `mlcls`, or `python -m mlcls_jax.main`."""
    if Path(sys.argv[0]).stem == "mlcls":
        return "mlcls"
    return f"{_python()} -m mlcls_jax.main"


def _python() -> str:
    """How the user calls this interpreter: `python`, or a path where that is another one."""
    found = shutil.which("python")
    if found and Path(sys.prefix) in Path(found).parents:
        return "python"
    relative = os.path.relpath(sys.executable)
    return shlex.quote(sys.executable if relative.startswith("..") else relative)


def line(word: str = "") -> str:
    """The usage in one line."""
    return f"usage: {program()} {word + ' ' if word else ''}{DEMO} [--config.KEY=VALUE ...]"


def overview() -> str:
    """All commands."""
    return OVERVIEW.format(program())


def help_of(mode: str, word: str) -> str:
    """The help of a mode that the user calls `word`."""
    told = HELP[mode]
    keys = {key for named in told.keys for key in schema.matching(named)}
    examples = (f"  {program()} {word} {flags}" for flags in told.examples)
    return "\n".join([
        line(word), "", told.purpose, "", *examples, "",
        FLAGS_HELP, schema.describe(keys), "",
        f"{program()} --helpconfig lists all keys, --helpconfig=data those of a section, and with",
        "--config=FILE also the values of that file.",
    ])  # fmt: skip


def parser(
    word: str, description: str, example: str, usage: str | None = None
) -> argparse.ArgumentParser:
    """A parser for the arguments after a command word; its help shows an example."""
    return argparse.ArgumentParser(
        prog=f"mlcls {word}",
        usage=usage,
        description=description,
        epilog=f"for instance:\n  {program()} {example}",
        formatter_class=_Formatter,
        allow_abbrev=False,
    )


class _Formatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows defaults where there are any, and leaves the lines of the example as they are."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if text.startswith("for instance:"):
            return text
        return super()._fill_text(text, width, indent)

    def _get_help_string(self, action: argparse.Action) -> str | None:
        told = action.help or ""
        is_plain = action.default in (None, False, ()) and "None:" not in told
        return told if is_plain or "(default" in told else super()._get_help_string(action)
