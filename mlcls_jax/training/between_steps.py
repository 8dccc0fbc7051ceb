"""What happens between the steps of a run: numbers, evaluations, and the way to a checkpoint."""

import dataclasses
import logging
import math
from collections.abc import Iterable

import numpy as np

from mlcls_jax import files, parallel
from mlcls_jax.data.types import Batch
from mlcls_jax.errors import NonFiniteError, WorkdirError
from mlcls_jax.evaluation import mean_loss, score, to_scores
from mlcls_jax.metrics import metrics_of
from mlcls_jax.models.network import Variables
from mlcls_jax.training.advice import about_positives
from mlcls_jax.training.checkpoints import Checkpoints
from mlcls_jax.training.earlier_run import begin_from
from mlcls_jax.training.in_flight import InFlight
from mlcls_jax.training.nonfinite import Verdict, as_text
from mlcls_jax.training.progress import Best, Progress
from mlcls_jax.training.records import NONFINITE_FILE, Recorder
from mlcls_jax.training.run import Run
from mlcls_jax.training.state import TrainState
from mlcls_jax.training.stop import AskedToEndError, Stop
from mlcls_jax.workdir import BEST_MODEL, check_data, epoch_model

log = logging.getLogger(__name__)


def write_numbers(
    run: Run, in_flight: InFlight, recorder: Recorder, *, before: float = math.inf
) -> None:
    """Write down the numbers of the steps up to `before`.

    Raises:
      NonFiniteError: they are not finite, and the step is not to be left out.
    """
    for step, numbers in in_flight.read(before=before):
        earlier = len(recorder.nonfinite_steps)
        verdict = run.policy.judge(numbers, earlier=earlier)
        del numbers["finite"]
        if verdict is Verdict.KEEP:
            recorder.train(step, numbers)
            continue
        recorder.nonfinite(step, numbers, run.names_of(step))
        told = as_text(step, numbers)
        if verdict is Verdict.LEAVE_OUT:
            log.warning("%s: the step is left out.", told)
            continue
        raise NonFiniteError(
            told + (f"; there were {earlier} such steps before it" if earlier else ""),
            "Lower optimizer.learning_rate, or set optimizer.clip_norm=1.0. The step's images are"
            f" in {run.workdir / NONFINITE_FILE}.",
        )


def evaluate(
    run: Run,
    state: TrainState,
    validation: Iterable[Batch],
    best: Best | None,
    recorder: Recorder,
    stop: Stop,
) -> tuple[Best | None, dict[str, float] | None]:
    """Return the best evaluation after that of this state, and what its checkpoint is ranked by.

    Raises:
      AskedToEndError: the evaluation is to be done again; nothing has been written.
    """
    recorder.pause("evaluating …")
    step = int(state.step)
    models = {"raw": state.variables} | ({} if state.ema is None else {"ema": state.ema})
    logits, targets = score(run.forward, models, stop.unless_asked(validation), run.mesh)
    results = {name: _metrics(run, values, targets) for name, values in logits.items()}
    if getattr(run.data.validation, "targets", None) is None:
        positives = (targets >= 1).sum(0)
        run.advice.tell(about_positives("validation", run.data.train.labels, positives))
    best = keep_best(run, best, results, models, step)
    if run.config.train.keep_epochs:
        keep_epoch(run, results, models, step)
    size = run.config.train.batch_size
    losses = {n: mean_loss(run.loss, v, targets, batch_size=size) for n, v in logits.items()}
    recorder.evaluation(step, results, best, losses)
    shown = max(results, key=lambda name: results[name][run.metric])
    scores = to_scores(logits[shown], run.config.model.task)
    if run.config.model.task != "single":
        recorder.curves(step, scores, targets, run.data.train.labels)
    if run.show and parallel.is_lead():
        run.show(scores, targets)
    found = [r[run.metric] for r in results.values() if not math.isnan(r[run.metric])]
    return best, {run.metric: max(found)} if found else None


def evaluate_due(
    run: Run, state: TrainState, best: Best | None, recorder: Recorder, stop: Stop
) -> tuple[Best | None, dict[str, float] | None]:
    """Do the evaluation before which an earlier run was stopped; see `evaluate`.

    Raises:
      PreemptedError: the run was asked to end again.
    """
    try:
        return evaluate(run, state, run.validation_batches(), best, recorder, stop)
    except AskedToEndError as error:
        raise stop.error(int(state.step), run.plan.total_steps) from error


def _metrics(run: Run, logits: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    task, options = run.config.model.task, run.config.evaluate
    return metrics_of(
        task,
        to_scores(logits, task),
        targets,
        ranking=logits,
        threshold=options.training_threshold,
        method=options.map_type,
    )


def keep_best(
    run: Run,
    best: Best | None,
    results: dict[str, dict[str, float]],
    models: dict[str, Variables],
    step: int,
) -> Best | None:
    """Return the better of the best so far and the best of `results`; save a new one's weights.

    Without a defined metric there is none.
    """
    new = better_of(run, results, step)
    if new is None or (best is not None and new.score <= best.score):
        return best
    run.save(BEST_MODEL, models[new.weights], new.facts())
    return new


def keep_epoch(
    run: Run, results: dict[str, dict[str, float]], models: dict[str, Variables], step: int
) -> None:
    """Save the better weights after this epoch, or else the average, under the epoch's number."""
    better, epoch = better_of(run, results, step), run.plan.epoch(step)
    name = better.weights if better else [*models][-1]
    facts = better.facts() if better else {"weights": name, "epoch": epoch, "step": step}
    run.save(epoch_model(epoch), models[name], facts)


def better_of(run: Run, results: dict[str, dict[str, float]], step: int) -> Best | None:
    """Return the best of one evaluation; None if the metric is undefined."""
    scores = {name: metrics[run.metric] for name, metrics in results.items()}
    defined = [name for name, value in scores.items() if not math.isnan(value)]
    if not defined:
        return None
    name = max(defined, key=lambda name: scores[name])
    return Best(scores[name], name, run.plan.epoch(step), step, results[name])


def begin_or_resume(run: Run, checkpoints: Checkpoints) -> tuple[TrainState, Progress]:
    """Return the state to start from, and how far the run has come.

    That is the newest checkpoint of the workdir, or else `train.resume_from`.

    Raises:
      WorkdirError: there is a run to go on with, but `train.resume` is off, or its data differ.
    """
    if checkpoints.steps and not run.config.train.resume:
        raise WorkdirError(
            f"the workdir holds a run that stopped after step {checkpoints.steps[0]}, and"
            " train.resume=false",
            "Choose another --workdir, or drop train.resume=false to go on.",
        )
    if parallel.is_lead():
        files.recover_folder(run.workdir / BEST_MODEL)
    restored = checkpoints.restore(parallel.placed(run.abstract, run.shardings))
    if restored is None and run.config.train.resume_from:
        return begin_from(run, run.config.train.resume_from)
    if restored is None:
        return run.first_state(), Progress()
    state, record = restored
    if "data" in record:
        check_data(run.workdir, record["data"], run.facts)
    log.info("Resumed after step %d.", int(state.step))
    return state, Progress.from_json(record, run.metric)


def go_back(
    run: Run, checkpoints: Checkpoints, progress: Progress, scale: float, error: NonFiniteError
) -> tuple[TrainState, Progress]:
    """Return the newest checkpoint, or the start, to go on from with the learning rate scaled.

    The time since `progress`, from which training began, counts as well.
    """
    log.warning("%s. Going back, and on with %g times the learning rate.", error.message, scale)
    state, restored = begin_or_resume(run, checkpoints)
    rate_scale = parallel.put(np.float32(scale), parallel.replicated(run.mesh))
    state = dataclasses.replace(state, rate_scale=rate_scale)
    return state, dataclasses.replace(restored, seconds=progress.seconds)
