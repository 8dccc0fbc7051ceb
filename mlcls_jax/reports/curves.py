"""Curves of trainings, of the lines that runs write into `metrics.jsonl`."""

import json
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mlcls_jax.reports.charts import Chart, Curve, line_chart

_POINTS = 300  # of a curve


class History(NamedTuple):
    """A run's name, and the lines of its `metrics.jsonl`."""

    name: str
    lines: list[dict[str, Any]]


def read_history(path: Path, name: str) -> History:
    """Return the lines of a file that a run may be writing to; without a file, none."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return History(name, [])
    lines = []
    for line in text.splitlines():
        try:
            lines.append(json.loads(line))
        except (ValueError, RecursionError):  # half of it is written
            continue
    return History(name, [line for line in lines if isinstance(line, dict) and "epoch" in line])


def charts_of(runs: Sequence[History], metric: str) -> list[Chart]:
    """Draw the losses of trainings and validations, and a metric of the latter, by epoch.

    A chart without a curve is left out. Of one run the raw and the averaged weights are drawn, and
    its losses in one chart; of several runs the better weights.
    """
    training = [_curve(run, run.name, "loss") for run in runs]
    told = [
        (training, "loss", "Loss of the training, averaged over neighbouring steps."),
        (_judged(runs, "loss", min), "validation loss", "Loss on the validation images."),
        (_judged(runs, metric, max), metric, "On the validation images, after each epoch."),
    ]
    if len(runs) == 1:
        both = [training[0]._replace(name="training")]
        both += [curve._replace(name=f"validation, {curve.name}") for curve in told[1][0]]
        caption = "Of the steps, averaged over neighbours, and of the validation images."
        told[:2] = [(both, "loss", caption)]
    made = []
    for curves, label, caption in told:
        if curves := [curve for curve in curves if len(curve.x)]:
            made.append(
                line_chart(curves, x_label="epoch", y_label=label, caption=caption, scaled=True)
            )
    return made


def _judged(
    runs: Sequence[History], metric: str, better: Callable[[Iterable[float]], float]
) -> list[Curve]:
    """Return the curves of a metric of validations, by kind of weights if there is one run."""
    kinds = ("raw", "ema")
    if len(runs) == 1:
        return [_curve(runs[0], f"{kind} weights", f"{kind}/{metric}") for kind in kinds]
    keys = [f"{kind}/{metric}" for kind in kinds]
    return [_curve(run, run.name, *keys, better=better) for run in runs]


def _curve(
    run: History, name: str, *keys: str, better: Callable[[Iterable[float]], float] = max
) -> Curve:
    """Return the better of some numbers by epoch, thinned by averaging neighbours."""
    points = []
    for line in run.lines:
        values = [line[key] for key in keys if _is_number(line.get(key))]
        if values and _is_number(line["epoch"]):
            points.append((line["epoch"], better(values)))
    x, y = np.array(points, float).reshape(-1, 2).T
    if len(x) > _POINTS:
        parts = np.array_split(np.arange(len(x)), _POINTS)
        x, y = (np.array([values[part].mean() for part in parts]) for values in (x, y))
    return Curve(name, x, y)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
