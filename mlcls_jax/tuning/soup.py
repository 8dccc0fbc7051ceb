"""Several runs as one: the average of their weights, or of their scores.

Weights can be averaged where runs went apart from one start; of others the average means nothing,
as their features are in other orders.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mlcls_jax import config as schema
from mlcls_jax import files
from mlcls_jax.config import Config
from mlcls_jax.errors import ConfigError, WorkdirError
from mlcls_jax.evaluation import to_scores
from mlcls_jax.inference.bundle import DESCRIPTION, model_folder, write_bundle
from mlcls_jax.metrics import MAIN_METRIC, for_json, metrics_of
from mlcls_jax.models.network import Variables, flatten
from mlcls_jax.modes.evaluate import Outputs, run_bundle
from mlcls_jax.modes.evaluate_result import EvaluateResult
from mlcls_jax.modes.running import run_mode
from mlcls_jax.paths import HUB
from mlcls_jax.runs import Run
from mlcls_jax.workdir import AVERAGED, BEST_MODEL, claim


@dataclass(frozen=True, kw_only=True)
class Averaged:
    """The main metric of runs, alone and together, on the validation images of the first."""

    metric: str  # its name
    runs: dict[str, float | None]  # by folder
    members: list[str]  # whose weights are averaged
    weights: float | None  # of the averaged weights; None without them
    scores: float | None  # of the averaged scores
    apart: list[str]  # why the weights cannot be averaged

    def to_json(self) -> dict[str, Any]:
        """Return the content of `average_result.json`."""
        return {"done_flag": True, **vars(self)}


def average(
    runs: Sequence[Run], folder: Path, *, is_greedy: bool, only_scores: bool = False
) -> Averaged:
    """Measure runs alone and together; write the average of their weights as a run, if it is one.

    Args:
      runs: two or more; the validation images are those of the first.
      folder: of the new run.
      is_greedy: begin with the best run, and let another join only where the metric does not fall.
      only_scores: leave the weights alone.

    Raises:
      ConfigError: the runs have other labels or tasks than the first.
      WeightsError: a run has no model, or a damaged one.
    """
    if len({run.folder.resolve() for run in runs}) < max(2, len(runs)):
        raise ConfigError("RUN: name two different runs or more, each once")
    config = _evaluating(runs[0].config)
    outputs = {str(run.folder): _outputs(config, run.folder) for run in runs}
    tasks = {o.bundle.model.network.config.task for o in outputs.values()}
    if len(tasks) > 1:
        raise ConfigError("the runs have one label an image in part, and several in part")
    metric = MAIN_METRIC[config.model.task]
    alone = {name: _metric(config, [o]) for name, o in outputs.items()}
    apart = ["as asked"] if only_scores else list(why_apart(runs, [*outputs.values()]))
    members, weights = [], None
    if not apart:
        claim(folder, runs[0].config)
        members = [*outputs]
        if is_greedy:
            members = _greedy(config, folder, outputs, alone)
        _write(folder, outputs, members)
        weights = _judge(runs[0].config, folder)
    result = Averaged(
        metric=metric,
        runs=for_json(alone),
        members=members,
        weights=weights,
        scores=for_json({metric: _metric(config, [*outputs.values()])})[metric],
        apart=apart,
    )
    files.write_json(folder / AVERAGED, result.to_json())
    return result


def why_apart(runs: Sequence[Run], outputs: Sequence[Outputs]) -> Iterator[str]:
    """Yield what says that the runs did not begin with the same weights, or have other arrays."""
    starts = [_start(run.config) for run in runs]
    for key in starts[0]:
        values = [f"{start.get(key)}" for start in starts]
        if len({*values}) > 1:
            yield f"{key}: {', '.join(values)}"
    shapes = [
        {path: array.shape for path, array in flatten(o.bundle.model.network.abstract).items()}
        for o in outputs
    ]
    if any(other != shapes[0] for other in shapes):
        yield "their networks have arrays of other names or shapes"


def _start(config: Config) -> dict[str, Any]:
    """Return what decides on the initial weights, as far as the configuration says it."""
    weights = config.model.weights
    start = {"model.name": config.model.name, "model.weights": weights}
    is_whole = False  # what the hub has is not fetched for this question
    if weights and not weights.startswith(HUB):
        is_whole = (model_folder(weights) / DESCRIPTION).is_file()
    if not is_whole:  # at least the head is drawn
        start |= {"seed": config.seed, "model.initial": config.model.initial}
    return start


def _evaluating(config: Config) -> Config:
    """Return the configuration of an evaluation of whole runs, without anything that is written."""
    others = {"mode": "evaluate", "evaluate.report": False, "evaluate.thresholds": False}
    return schema.changed(config, others)


def _outputs(config: Config, place: Path) -> Outputs:
    return run_bundle(
        schema.changed(config, {"evaluate.model_dir": str(place)}), place, thresholds=False
    )


def _metric(config: Config, outputs: Sequence[Outputs]) -> float:
    """Return the main metric of the outputs' mean scores; of one alone what `evaluate` finds."""
    task, first = config.model.task, outputs[0]
    if not all(np.array_equal(o.targets, first.targets) for o in outputs):
        raise WorkdirError("some runs could read images that others could not")
    scores = [to_scores(o.logits, task, temperature=o.bundle.temperature) for o in outputs]
    mean = np.asarray(np.mean(scores, axis=0, dtype=np.float64))
    values = metrics_of(
        task,
        mean,
        first.targets,
        threshold=config.evaluate.training_threshold,
        method=config.evaluate.map_type,
        ranking=mean if len(outputs) > 1 else first.logits,
    )
    return values[MAIN_METRIC[task]]


def mean_of(variables: Sequence[Variables]) -> Variables:
    """Return the mean of weights, number by number."""

    def mean(*arrays: np.ndarray) -> np.ndarray:
        return np.mean(arrays, axis=0, dtype=np.float64).astype(arrays[0].dtype)

    return jax.tree.map(mean, *variables)


def _write(folder: Path, outputs: dict[str, Outputs], members: Sequence[str]) -> None:
    """Write the average of the members' weights as the best model of the new run."""
    bundles = [outputs[name].bundle for name in members]
    first = bundles[0]
    threshold = first.threshold if isinstance(first.threshold, float) else 0.5
    write_bundle(
        folder / BEST_MODEL,
        first.model.network.config,
        mean_of([bundle.model.variables for bundle in bundles]),
        labels=first.labels,
        threshold=threshold,
        facts={"weights": f"average of {', '.join(members)}"},
        frame=first.frame,
    )


def _greedy(
    config: Config, folder: Path, outputs: dict[str, Outputs], alone: dict[str, float]
) -> list[str]:
    """Return the runs whose average is the best that this way leads to, the best run first."""
    first, *others = sorted(alone, key=lambda name: -alone[name])
    members, best = [first], alone[first]
    for name in others:
        _write(folder, outputs, [*members, name])
        found = _metric(config, [_outputs(config, folder / BEST_MODEL)])
        if found >= best:
            members, best = [*members, name], found
    return members


def _judge(config: Config, folder: Path) -> float | None:
    """Evaluate the new run, choose its thresholds as the first run's were, and write its report."""
    chooses = config.model.task != "single" and config.train.fit_thresholds == "always"
    result = run_mode(
        schema.changed(config, {"mode": "evaluate", "evaluate.thresholds": chooses}), folder
    )
    assert isinstance(result, EvaluateResult)  # one process is the first one
    return result.metrics[MAIN_METRIC[config.model.task]]
