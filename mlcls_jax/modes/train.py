"""mode=train: from a configuration to a bundle that predicts."""

import dataclasses
import itertools
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax

from mlcls_jax import config as schema
from mlcls_jax import files, parallel
from mlcls_jax.errors import NonFiniteError
from mlcls_jax.modes.train_result import RESULT_FILE, TrainResult
from mlcls_jax.reports.page import count
from mlcls_jax.reports.predictions import current_pictures, write_pictures
from mlcls_jax.training.advice import (
    about_data,
    about_lanes,
    about_map,
    about_plan,
    about_start,
)
from mlcls_jax.training.auto_loss import recall_loss
from mlcls_jax.training.between_steps import (
    begin_or_resume,
    evaluate,
    evaluate_due,
    go_back,
    write_numbers,
)
from mlcls_jax.training.checkpoints import Checkpoints
from mlcls_jax.training.feature_cache import with_features
from mlcls_jax.training.in_flight import InFlight
from mlcls_jax.training.last_thresholds import fit_at_end
from mlcls_jax.training.nonfinite import Verdict
from mlcls_jax.training.profile import Tracer
from mlcls_jax.training.progress import Best, Progress
from mlcls_jax.training.records import Recorder
from mlcls_jax.training.run import Run, prepare, train_frames
from mlcls_jax.training.state import TrainState
from mlcls_jax.training.stop import AskedToEndError, Stop
from mlcls_jax.training.trackers.tensorboard import write_outcome
from mlcls_jax.workdir import (
    BEST_MODEL,
    CHECKPOINTS,
    CONFIG_FILE,
    LAST_MODEL,
    METRICS,
    check_owner,
    claim,
    saved_step,
)

log = logging.getLogger(__name__)

PATHS = {
    "checkpoints": CHECKPOINTS,
    "config": CONFIG_FILE,
    "log": "train.log",
    "metrics": METRICS,
}


def train(
    config: schema.Config,
    workdir: Path,
    *,
    listen: Callable[[dict[str, Any]], None] | None = None,
) -> TrainResult | None:
    """Train, evaluate, keep the best weights as a bundle; go on where an earlier run stopped.

    With several processes all of them run this, and the first one writes.

    Args:
      config: of the run.
      workdir: its folder.
      listen: called with every line of `metrics.jsonl` as it is written.

    Returns:
      The outcome; None in all processes but the first.

    Raises:
      PreemptedError: the run was asked to end, or its time is over; the same command goes on.
      UserError: the configuration, the data or the workdir is wrong; see its message.
    """
    config = recall_loss(config, workdir)
    check_owner(workdir, config)
    run = prepare(config, workdir)
    threshold = None if config.model.task == "single" else config.evaluate.training_threshold
    show = current_pictures(config.log.pictures, run.data.validation, threshold, workdir)
    run = dataclasses.replace(run, listen=listen, show=show)
    if parallel.is_lead():
        claim(workdir, run.config, run.facts)
    parallel.barrier("workdir claimed")
    if finished := finished_result(run):
        return finished
    announce(run)
    run = with_features(run)

    keep, saved = config.train.keep_checkpoints, partial(saved_step, workdir)
    every = run.plan.steps_per_epoch if config.train.keep_epochs else None
    with (
        Stop(config.train.time_limit, saved) as stop,
        Checkpoints(
            workdir / CHECKPOINTS, metric=run.metric, keep=keep, every=every
        ) as checkpoints,
    ):
        state, progress = begin_or_resume(run, checkpoints)
        rate_scale = float(state.rate_scale)
        for rollbacks in itertools.count(1):
            try:
                fitted = fit(run, state, progress, stop, checkpoints)
                break
            except NonFiniteError as error:  # of a step, or of the scores in an evaluation
                if run.policy.about_nonfinite(rollbacks) is not Verdict.GO_BACK:
                    raise
                rate_scale /= 2
                state, progress = go_back(run, checkpoints, progress, rate_scale, error)
    return finish(run, fitted)


@dataclass(frozen=True)
class Fitted:
    """A run after its last step."""

    state: TrainState
    best: Best | None
    seconds: float
    images_per_s: float
    nonfinite_steps: list[int]


def fit(
    run: Run, state: TrainState, progress: Progress, stop: Stop, checkpoints: Checkpoints
) -> Fitted:
    """Take the steps after that of `state`; evaluate, save and end early as the plan says.

    Raises:
      PreemptedError: the run was asked to end, or its time is over; the last step is saved.
      NonFiniteError: of a step that is not to be left out, or of the scores in an evaluation.
    """
    start, plan, began = int(state.step), run.plan, run.began - progress.seconds
    best, is_due = progress.best, progress.is_evaluation_due
    in_flight, tracer = InFlight(), Tracer(run.config.profile, run.workdir / "profile")
    with Recorder(run.workdir, run.config, plan, start_step=start, is_evaluation_due=is_due,
                  quiet=not parallel.is_lead(), listen=run.listen) as recorder, tracer:  # fmt: skip
        if is_due:
            best, _ = evaluate_due(run, state, best, recorder, stop)
        is_enough = plan.gives_up_after(start, best and best.epoch)
        ahead = () if is_enough else run.train_batches(start)
        batches = recorder.timed(parallel.put_ahead(ahead, run.mesh))
        for step, batch in enumerate(batches, start=start + 1):
            is_due = plan.evaluate_after(step)
            # Begun here, they are read while this step is computed.
            validation = run.validation_batches() if is_due else iter(())
            tracer.before(step)
            state, numbers = run.step(state, batch, run.teacher)
            stop.underway()
            in_flight.sent(step, numbers)
            tracer.after(step, numbers)
            recorder.sent(numbers)
            if plan.log_after(step):
                write_numbers(run, in_flight, recorder, before=step - plan.log_steps)

            is_over, metrics = stop.after(step), None
            if is_due or plan.save_after(step) or is_over:
                write_numbers(run, in_flight, recorder)
            if is_due:
                try:
                    best, metrics = evaluate(run, state, validation, best, recorder, stop)
                    is_due, is_enough = False, plan.gives_up_after(step, best and best.epoch)
                except AskedToEndError:
                    is_over = True
            if plan.save_after(step) or is_over or is_enough:
                recorder.pause()
                progress = Progress(best, time.perf_counter() - began, is_due)
                record = progress.to_json(run.metric) | run.record
                checkpoints.save(state, record, metrics=metrics)
            if is_enough:
                log.info(
                    "No better weights in %d evaluations: training ends after epoch %d.",
                    plan.patience, plan.epoch(step),
                )  # fmt: skip
                break
            if is_over and (is_due or step < plan.total_steps):
                checkpoints.wait()
                raise stop.error(step, plan.total_steps)
    seconds = time.perf_counter() - began
    return Fitted(state, best, seconds, recorder.images_per_second, recorder.nonfinite_steps)


def finished_result(run: Run) -> TrainResult | None:
    """Return the result of the run in the workdir if it is complete."""
    path = run.workdir / RESULT_FILE
    if not path.exists() or not any((run.workdir / m).exists() for m in (BEST_MODEL, LAST_MODEL)):
        return None
    result = files.read_json(path)
    steps, best_epoch = result.get("steps"), result.get("best_epoch")
    is_whole = steps == run.plan.total_steps or (
        steps and run.plan.gives_up_after(steps, best_epoch)
    )
    if not result.get("done_flag") or not is_whole:
        return None
    log.info("This run is complete; nothing to do. A new run needs another --workdir.")
    return TrainResult.from_json(result, run.metric)


def announce(run: Run) -> None:
    """Log what is about to be done, on what, and what is unwise about it."""
    config, data, plan = run.config, run.data, run.plan
    parameters = sum(leaf.size for leaf in jax.tree.leaves(run.network.abstract.params))
    height, width = config.model.image_size
    log.info(
        "Model: %s, %s parameters, %d labels, images %d x %d, %s.",
        config.model.name, f"{parameters:,}", len(data.train.labels), height, width,
        config.model.dtype,
    )  # fmt: skip
    if frames := train_frames(config):
        log.info(
            "Training images: %s, one size per step; the first step of each compiles.",
            ", ".join(f"{height} x {width}" for height, width in (f.size for f in frames)),
        )
    log.info(
        "Data: %s, %s images to train on%s, %s to validate.",
        config.data.source, f"{len(data.train):,}",
        f" ({config.data.epoch_size:,} an epoch)" if config.data.epoch_size else "",
        f"{len(data.validation):,}",
    )  # fmt: skip
    if (images := len(run.readers[0].source)) != len(data.train):
        log.info("Images with rare labels repeat: %s in a pass.", f"{images:,}")
    log.info(
        "Plan: %s of %s of %s, on %d x %s.",
        count(plan.epochs, "epoch"), count(plan.steps_per_epoch, "step"),
        count(config.train.batch_size, "image"), run.mesh.devices.size,
        run.mesh.devices.flat[0].device_kind,
    )  # fmt: skip
    platform, sharers = run.mesh.devices.flat[0].platform, parallel.batch_devices(run.mesh)
    lanes = about_lanes(config.train, run.network, platform=platform, devices=sharers)
    start = about_start(config, data, has_weights=run.weights is not None)
    run.advice.tell(*about_plan(config, plan, data), lanes, start, about_map(run.network))
    run.advice.tell(*about_data(data))
    if run.mesh.size > 1:
        log.info("%s", parallel.describe(run.abstract, run.shardings, run.mesh))


def finish(run: Run, fitted: Fitted) -> TrainResult | None:
    """Keep the last weights if none are the best, choose thresholds, and return the outcome."""
    best, plan, workdir = fitted.best, run.plan, run.workdir
    model = BEST_MODEL if best else LAST_MODEL
    if best is None:
        ema, variables = fitted.state.ema, fitted.state.variables
        facts = {"weights": "raw" if ema is None else "ema"}
        facts |= {"epoch": plan.epochs, "step": plan.total_steps}
        run.save(LAST_MODEL, variables if ema is None else ema, facts)
    thresholds = fit_at_end(run, best)
    if not parallel.is_lead():
        return None
    pictures = write_pictures(
        run.config.log.pictures, run.data.validation, workdir / model, workdir
    )
    if run.config.log.tensorboard:
        picture = pictures.get("predictions")
        write_outcome(
            workdir, run.config, int(fitted.state.step), best.metrics if best else {},
            Path(picture) if picture else None,
        )  # fmt: skip
    paths = {name: str(workdir / path) for name, path in {model: model, **PATHS}.items()}
    return TrainResult(
        main_metric=run.metric,
        metric=best and best.score,
        best_epoch=best and best.epoch,
        best_weights=best and best.weights,
        epochs=plan.epoch(int(fitted.state.step)),
        steps=int(fitted.state.step),
        images_per_s=round(fitted.images_per_s, 1) or None,
        seconds=round(fitted.seconds, 1),
        nonfinite_steps=fitted.nonfinite_steps,
        skipped_images=sorted(text for r in run.readers for text in r.broken.values()),
        warnings=run.advice.told,
        thresholds=thresholds,
        paths=paths | pictures,
    )
