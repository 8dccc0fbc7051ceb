"""Going on in a new workdir from an epoch that an earlier run kept: `train.resume_from`."""

import dataclasses
import logging
import os
from pathlib import Path

from mlcls_jax import files, parallel, paths
from mlcls_jax.errors import ConfigError, WeightsError, WorkdirError
from mlcls_jax.inference.bundle import Bundle, copy_bundle, read_bundle
from mlcls_jax.training.checkpoints import Checkpoints
from mlcls_jax.training.progress import Best, Progress
from mlcls_jax.training.run import Run
from mlcls_jax.training.state import TrainState
from mlcls_jax.workdir import BEST_MODEL, CHECKPOINTS, METRICS, check_data, epoch_model

log = logging.getLogger(__name__)


def begin_from(run: Run, given: str) -> tuple[TrainState, Progress]:
    """Return state and progress after a kept epoch of another run, which is only read.

    The metrics so far and the best model so far are copied into the workdir of `run`.

    Args:
      run: about to take its first step.
      given: workdir and epoch, `runs/a/epoch_5`.

    Raises:
      WorkdirError: that run is this one, has other data, or has not kept the epoch.
      ConfigError: the epoch is not before the end of this run.
      CheckpointError: it is of another model, or damaged.
    """
    found = paths.kept_epoch(given)
    assert found, "the configuration was checked"
    (workdir, epoch), told = found, f"train.resume_from={given}"
    if workdir.resolve() == run.workdir.resolve():
        raise WorkdirError(
            f"{told}: is of this workdir, where later epochs would be lost",
            "Choose another --workdir to go on from there.",
        )
    if epoch >= run.plan.epochs:
        raise ConfigError(f"{told}: train.epochs={run.plan.epochs} must be more than that")
    step = epoch * run.plan.steps_per_epoch
    if not (workdir / CHECKPOINTS).is_dir():
        raise WorkdirError(f"{told}: {workdir / CHECKPOINTS}: there is no such folder")
    with Checkpoints(workdir / CHECKPOINTS, metric=run.metric, read_only=True) as earlier:
        if step not in earlier.steps:
            raise WorkdirError(
                f"{told}: there is no checkpoint after step {step};"
                f" {_those_there(earlier.steps, run.plan.steps_per_epoch)}",
                "train.keep_epochs=True keeps every epoch of a run.",
            )
        state, record = earlier.read(step, parallel.placed(run.abstract, run.shardings))
    if (steps := record.get("steps_per_epoch", run.plan.steps_per_epoch)) != (
        run.plan.steps_per_epoch
    ):
        raise WorkdirError(
            f"{told}: an epoch had {steps} steps there, and has {run.plan.steps_per_epoch} here",
            "Keep train.batch_size, data.epoch_size and the number of training images.",
        )
    data = record.get("data", run.facts)
    check_data(workdir, {k: v for k, v in data.items() if k != "preprocessing"}, run.facts)
    progress = Progress.from_json(record, run.metric)
    if progress.best:
        progress = dataclasses.replace(progress, best=_take_best(run, workdir, progress.best))
    if parallel.is_lead() and (workdir / METRICS).exists():
        files.write_bytes(run.workdir / METRICS, (workdir / METRICS).read_bytes())
    parallel.barrier("the earlier run is copied")
    log.info("Going on after epoch %d of %s, step %d.", epoch, workdir, step)
    return state, progress


def _those_there(steps: list[int], steps_per_epoch: int) -> str:
    if not steps:
        return "there is none at all"
    there = (
        f"{step // steps_per_epoch}" if step % steps_per_epoch == 0 else f"after step {step}"
        for step in reversed(steps)
    )
    return f"epochs that there are, of {steps_per_epoch} steps each: {', '.join(there)}"


def _take_best(run: Run, workdir: Path, best: Best) -> Best | None:
    """Copy the best model so far; None, with a warning, if that run has it no more."""
    for name in (epoch_model(best.epoch), BEST_MODEL):
        bundle = _bundle_of(workdir / name, best)
        if bundle is not None:
            if parallel.is_lead():
                copy_bundle(bundle, workdir / name, run.workdir / BEST_MODEL)
            return best
    run.advice.tell(
        f"{workdir}: has no longer the best weights up to there, those of epoch {best.epoch}"
        f" ({run.metric} {best.score:.4f}): the best are sought among the epochs from here on."
        " train.keep_epochs=True keeps those of every epoch."
    )
    return None


def _bundle_of(folder: Path, best: Best) -> Bundle | None:
    if not os.path.isdir(folder):
        return None
    try:
        bundle = read_bundle(folder)
    except WeightsError as error:
        log.warning("%s", error.message)
        return None
    facts = bundle.facts
    is_same = (facts.get("step"), facts.get("weights")) == (best.step, best.weights)
    return bundle if is_same else None
