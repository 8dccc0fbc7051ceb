"""The page of a run that may still be training, from the files that it writes anyway."""

import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from mlcls_jax import config as schema
from mlcls_jax.errors import WorkdirError
from mlcls_jax.files import read_json
from mlcls_jax.metrics import MAIN_METRIC, SHOWN_METRICS
from mlcls_jax.reports.curves import charts_of, read_history
from mlcls_jax.reports.page import templates
from mlcls_jax.workdir import CONFIG_FILE, METRICS, PREDICTIONS
from mlcls_jax.yaml_config import get_config

STYLES = ("page.css", "evaluation.css")  # of the page, in this order
_MEASURED = 20  # lines that speed is taken from
_QUIET_S = 120  # without a new line, a run is perhaps no longer alive
_RESULT = "train_result.json"


class Progress(NamedTuple):
    """How far a run is."""

    epoch: float
    epochs: int
    speed: float | None  # images a second
    left_s: float | None  # estimated
    silent_s: float  # since the last line
    is_done: bool

    @property
    def seems_dead(self) -> bool:
        """Return whether nothing has come for long."""
        return not self.is_done and self.silent_s > _QUIET_S


def render(workdir: Path) -> str:
    """Return the page of a run as it is now.

    Raises:
      WorkdirError: there is no run in the folder.
    """
    if not (workdir / CONFIG_FILE).is_file():
        hint = "Name the folder that `mlcls train` writes, runs/photos-1 for instance."
        raise WorkdirError(f"{workdir}: is no run: there is no {CONFIG_FILE} in it", hint)
    config = schema.parse(get_config(str(workdir / CONFIG_FILE)))
    history = read_history(workdir / METRICS, workdir.name)
    judged = [line for line in history.lines if "loss" not in line]
    picture = workdir / PREDICTIONS
    return templates.get_template("live.html").render(
        name=str(workdir),
        model=config.model.name,
        progress=_progress(workdir, config, history.lines),
        charts=charts_of([history], MAIN_METRIC[config.model.task]),
        metrics=("loss", *SHOWN_METRICS[config.model.task]),
        judged=judged[::-1][:20],
        picture=f"{PREDICTIONS}?{picture.stat().st_mtime_ns}" if picture.exists() else None,
    )


def _progress(
    workdir: Path, config: schema.Config, lines: Sequence[dict[str, Any]]
) -> Progress | None:
    """Return how far it is; None: nothing is written yet."""
    if not lines:
        return None
    last, epochs = lines[-1], config.train.epochs
    speed = _speed(lines)
    left = None
    if speed and last["epoch"]:
        images = last["step"] / last["epoch"] * config.train.batch_size
        left = max(0.0, epochs - last["epoch"]) * images / speed
    silent = max(0.0, time.time() - (workdir / METRICS).stat().st_mtime)
    path = workdir / _RESULT
    result = read_json(path) if path.exists() else {}
    # Fewer epochs where it stopped early. Of one that goes on it is the last leg's.
    is_done = bool(result.get("done_flag")) and last["epoch"] < result.get("epochs", epochs) + 0.01
    return Progress(last["epoch"], epochs, speed, left, silent, is_done)


def _speed(lines: Sequence[dict[str, Any]]) -> float | None:
    """Return the images a second of the last lines together; None: not known.

    Alone, a line may be about few steps: the last ones of an epoch.
    """
    told = [line for line in lines if line.get("images_per_s")][-_MEASURED - 1 :]
    if not told:
        return None
    steps = [max(0, b["step"] - a["step"]) for a, b in pairwise(told)] or [1]
    seconds = [n / line["images_per_s"] for n, line in zip(steps, told[-len(steps) :], strict=True)]
    return sum(steps) / sum(seconds) if sum(seconds) > 0 else None
