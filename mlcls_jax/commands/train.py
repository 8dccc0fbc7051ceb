"""`mlcls train DATA`: a model from a data set, with nothing else to say."""

import logging
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from mlcls_jax import config as schema
from mlcls_jax import usage
from mlcls_jax.command_line import RECORD, FlagError, take
from mlcls_jax.commands import mode
from mlcls_jax.config import REQUIRED, option
from mlcls_jax.metrics import as_text
from mlcls_jax.modes.result import remarks
from mlcls_jax.modes.train_result import RESULT_FILE, TrainResult
from mlcls_jax.start import start_jax
from mlcls_jax.wishes import Wishes

if TYPE_CHECKING:
    from mlcls_jax.new_run import NewRun

log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Arguments(Wishes):
    """Train on images with labels, and choose the rest by the data and this machine.

    --config.KEY=VALUE sets anything else (`mlcls config` lists it); with --config=FILE, and no
    DATA, the configuration says everything.
    """

    data: str = option(
        REQUIRED, "folder or file of images with labels; or a run, to go on with it",
        positional=True, metavar="DATA",
    )  # fmt: skip


def run(argv: list[str]) -> str:
    """Choose what is not given, train and evaluate, and return what came of it."""
    arguments, settings = asked(Arguments, argv, "train photos", "[--model NAME] [--epochs N]")
    if flags := with_run(arguments.data, argv):
        return mode.run([*flags, "--config.mode=train"])
    place = Path(arguments.data)
    if place.suffix in (".yaml", ".yml", ".py"):
        hint = f"{usage.program()} train --config={shlex.quote(str(place))} --workdir=runs/mine"
        raise FlagError(f"{place}: is a configuration, not data", hint)
    return carry_out(look(arguments.data, arguments, settings))


def carry_out(new: "NewRun") -> str:
    """Train, judge the best model, and return what came of it.

    Raises:
      PreemptedError: the run was asked to end; `mlcls train RUN` goes on.
      UserError: the data, a value or a file is wrong.
    """
    log.info("The equivalent command:\n  %s train %s", usage.program(), new.flags)
    from mlcls_jax.runs import run_and_judge  # takes a second to import: once the plan is told

    again = f"{usage.program()} train {shlex.quote(str(new.folder))}"
    with mode.interruptions(new.config, new.folder, again):
        result, report = run_and_judge(new.config, new.folder)
    return "\n".join(["", *_summary(new, result, report)])


def look(
    data: str,
    wishes: Wishes,
    settings: dict[str, Any],
    *,
    suffix: str = "",
    platform: str | None = None,
) -> "NewRun":
    """Make a new run for a data set, and tell what was found and chosen; see `plan`.

    `platform` is that of the devices that will compute, if they are not this process's.
    """
    log.info("Looking at %s …", data)
    from mlcls_jax import parallel  # imports JAX, which a help does without
    from mlcls_jax.new_run import plan

    start_jax(cache=True)
    with parallel.devices(wishes.device):
        pass
    platform = platform or parallel.platform()
    new = plan(data, wishes, settings, platform=platform, suffix=suffix)
    log.info("%s", "\n".join(new.told))
    return new


def _summary(new: "NewRun", result: TrainResult, report: Path | None) -> list[str]:
    folder = shlex.quote(str(new.folder))
    best = f"{result.best_weights} weights of epoch {result.best_epoch}, " * bool(result.best_epoch)
    lines = [
        f"{result.main_metric} {as_text(result.metric)} on the validation images"
        f" ({best}{result.seconds:.0f} s).",
        f"  model       {new.folder / 'best_model'}",
    ]
    lines += [f"  report      {report}"] * bool(report)
    lines += ["  thresholds  chosen on the validation images, in the model"] * bool(
        "best_model" in result.paths
        and result.main_metric == "MultiLabelMAP"
        and new.config.train.fit_thresholds == "always"
    )
    program = usage.program()
    return [
        *lines,
        *remarks(new.folder / RESULT_FILE, warnings=result.warnings, skipped=result.skipped_images),
        "Next:",
        f"  {program} predict {folder} IMAGES",
        f"  {program} serve {folder}",
        f"  {program} export {folder} --output exported",
    ]


def with_run(data: str, argv: list[str]) -> list[str] | None:
    """Return the arguments with the run that stands for the data as workdir; None: it is none."""
    place = Path(data)
    if not (place / RECORD).is_file():
        return None
    flags = [argument for argument in argv if argument != str(place)]
    if len(flags) == len(argv):  # it was written otherwise
        flags = [a for a in argv if a.startswith("-") or not (Path(a) / RECORD).is_file()]
    return [f"--workdir={place}", *flags]


def asked(kind: type[T], argv: list[str], example: str, flags: str) -> tuple[T, dict[str, Any]]:
    """Return the arguments of a command on data, and the values of its --config.KEY=VALUE by key.

    `flags` are those that its usage shows; see `usage.arguments` and `config_flags`.
    """
    given, settings = config_flags(argv)
    shown = f"mlcls {example.split()[0]} DATA {flags} [--config.KEY=VALUE ...]"
    return usage.arguments(kind, given, example, shown), settings


def config_flags(argv: list[str]) -> tuple[list[str], dict[str, Any]]:
    """Return the arguments without --config.KEY=VALUE, and the values of these by key.

    Raises:
      FlagError: a key does not exist, has no value, or is the mode.
    """
    keys = [m[1] for a in argv if (m := re.match(r"--?config\.([\w.]+)", a))]
    settings, known = {}, schema.options()
    for key in keys:
        if key not in known:
            raise FlagError(schema.unknown_key(key), "")
        text, argv = take(argv, f"config.{key}")
        if text is None:
            raise FlagError(f"--config.{key}: its value is missing: --config.{key}=VALUE", "")
        if key == "mode":
            raise FlagError(
                f"--config.mode={text}: the command itself says the mode", "Leave it out."
            )
        settings[key] = schema.value_of(key, text)
    return argv, settings
