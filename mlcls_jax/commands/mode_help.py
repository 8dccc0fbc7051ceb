"""The help of the modes: what each is for, examples, and the options that matter most."""

from typing import NamedTuple

from mlcls_jax import config as schema
from mlcls_jax import usage
from mlcls_jax.usage import DEMO


class Help(NamedTuple):
    """The parts of a mode's help."""

    purpose: str
    examples: tuple[str, ...]  # flags
    keys: tuple[str, ...]  # options, or sections, that matter most


MINE = "--config=configs/lcnet.py:mlcls --workdir=runs/mine --config.data.dir=dataset"
MODES = {
    "train": Help(
        "Train a model. The same command goes on after an interruption.",
        (
            "photos  # images with labels: the rest is chosen; see `train photos --help`",
            *(DEMO, MINE), "--workdir=runs/mine  # goes on with the run that is there",
        ),
        (
            *("data.dir", "data.augment", "model.name", "model.image_size", "model.weights"),
            *("model.dtype", "train.epochs", "train.batch_size", "train.accumulate"),
            *("train.time_limit", "optimizer.learning_rate", "optimizer.warmup_epochs"),
            *("loss.name", "parallel.fsdp"),
        ),
    ),
    "find_lr": Help(
        "Find a learning rate: a hundred steps of the run, with a rate that rises until the loss"
        " explodes.",
        ("photos  # of the run that `train photos` makes; see `find_lr photos --help`", MINE),
        ("data.dir", "model.weights", "train.batch_size", "train.frozen_backbone",
         "optimizer.name", "optimizer.rate_scaling"),
    ),
    "evaluate": Help(
        "Measure a model on the validation images, and write a report.",
        ("runs/photos-1  # as configured there; --workdir=FOLDER: results elsewhere", DEMO),
        ("data.dir", "data.val_list", "data.on_error", "evaluate"),
    ),
    "thresholds": Help(
        "Choose each label's threshold, and calibrate, on the validation images.",
        (DEMO, "runs/photos-1 --config.thresholds.objective=precision"
         " --config.thresholds.target=0.9"),
        ("data.dir", "data.val_list", "evaluate.model_dir", "thresholds"),
    ),
    "check_dataset": Help(
        "Report all that is wrong with a data set. Convert and split it before, if asked to.",
        ("photos  # in any format that `train` takes; see `check photos --help`",
         "--config=configs/lcnet.py:mlcls --workdir=runs/check --config.data.dir=dataset"),
        ("data.dir", "check_dataset"),
    ),
    "predict": Help(
        "Label images, with the settings of a configuration.",
        (f"{DEMO} --config.predict.input=runs/demo/samples",),
        ("data.on_error", "predict"),
    ),
    "export": Help(
        "Write a bundle for other runtimes, with the settings of a configuration.",
        (DEMO,),
        ("export",),
    ),
}  # fmt: skip
_FLAGS = """\
  --config=FILE      FILE.py, FILE.py:RECIPE, lcnet:RECIPE or FILE.yaml, as that of a run;
                     left out: that of the workdir
  --workdir=FOLDER   for all that the run writes
  --quiet            print results and warnings alone; --verbose: all that log files get"""


def help_of(mode: str, word: str) -> str:
    """Return the help of a mode that the user calls `word`; that of training for unknown modes."""
    told = MODES.get(mode, MODES["train"])
    keys = {key for named in told.keys for key in schema.matching(named)}
    examples = (f"  {usage.program()} {word} {flags}" for flags in told.examples)
    return "\n".join([
        usage.line(word), "", told.purpose, "", *examples, "",
        _FLAGS, schema.describe(keys), "",
        f"`{usage.program()} config` lists all keys, `config show data` those of a section, with",
        "--config=FILE also the values of that file; `config explain KEY` tells all about one.",
    ])  # fmt: skip
