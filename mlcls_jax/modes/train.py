"""mode=train: from a configuration to a bundle that predicts."""

import dataclasses
import itertools
import json
import logging
import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from mlcls_jax import config as schema
from mlcls_jax import files, parallel
from mlcls_jax.data.augment import augmentations
from mlcls_jax.data.fingerprint import describe_data
from mlcls_jax.data.pipeline import Reader, eval_batches, train_batches, train_indices
from mlcls_jax.data.sources import DataSplits, open_data
from mlcls_jax.data.sources.single import single_label
from mlcls_jax.errors import (
    ConfigError,
    NonFiniteError,
    WorkdirError,
)
from mlcls_jax.evaluation import Forward, make_forward, score, to_scores
from mlcls_jax.imagenet import MEAN, STD
from mlcls_jax.inference.bundle import read_bundle, write_bundle
from mlcls_jax.metrics import MAIN_METRIC, metrics_of
from mlcls_jax.models import Model, Network
from mlcls_jax.models.network import Variables, flatten
from mlcls_jax.models.weights import load
from mlcls_jax.modes.evaluate import check_labels
from mlcls_jax.modes.train_result import RESULT_FILE, TrainResult
from mlcls_jax.reports.page import count
from mlcls_jax.reports.predictions import write_pictures
from mlcls_jax.training.advice import (
    Advice,
    about_data,
    about_decisions,
    about_plan,
    about_positives,
)
from mlcls_jax.training.cadence import Plan
from mlcls_jax.training.checkpoints import Checkpoints
from mlcls_jax.training.distill import Distillation, make_distillation
from mlcls_jax.training.in_flight import Ahead
from mlcls_jax.training.mixing import make_mix
from mlcls_jax.training.optimizer import make_optimizer, make_schedule, scaled_rate
from mlcls_jax.training.profile import Tracer
from mlcls_jax.training.records import Recorder
from mlcls_jax.training.state import TrainState, init_state
from mlcls_jax.training.step import TrainStep, compile_step, make_loss
from mlcls_jax.training.stop import AskedToEndError, Stop
from mlcls_jax.workdir import (
    BEST_MODEL,
    CHECKPOINTS,
    CONFIG_FILE,
    LAST_MODEL,
    check_data,
    check_owner,
    claim,
    saved_step,
)

log = logging.getLogger(__name__)

PATHS = {
    "checkpoints": CHECKPOINTS,
    "config": CONFIG_FILE,
    "log": "train.log",
    "metrics": "metrics.jsonl",
}


def train(config: schema.Config, workdir: Path) -> TrainResult | None:
    """Train, evaluate, keep the best weights as a bundle; go on where an earlier run stopped.

    With several processes all of them run this, and the first one writes.

    Returns:
      The outcome; None in all processes but the first.

    Raises:
      PreemptedError: the run was asked to end, or its time is over; the same command goes on.
      UserError: the configuration, the data or the workdir is wrong; see its message.
    """
    began = time.perf_counter()
    check_owner(workdir, config)
    augmentations(config.data.augment)  # a wrong name shows before the workdir is taken
    mesh = parallel.make_mesh(config.parallel)
    parts = config.train.accumulate
    parallel.check_batch_size("train.batch_size", config.train.batch_size, mesh, parts=parts)
    parallel.check_batch_size("evaluate.batch_size", config.evaluate.batch_size, mesh)
    data = open_data(config.data)
    if config.model.task == "single":
        data = DataSplits(*(single_label(s, on_error=config.data.on_error) for s in data))
    facts = describe(config, data)
    check_owner(workdir, config, facts)
    metric = MAIN_METRIC[config.model.task]  # decides which weights are the best
    network, weights = initial_weights(config, data.train.labels)
    plan = Plan.of(config.train, epoch_size=config.data.epoch_size or len(data.train))
    distill, teacher = teacher_of(config, data.train.labels, mesh)
    optimizer, train_step = optimizer_and_step(config, network, plan, distill, mesh)
    has_ema = config.train.ema_decay > 0
    lead = parallel.is_lead()
    if lead:
        claim(workdir, config, facts)
    parallel.barrier("workdir claimed")
    if finished := finished_result(workdir, plan, metric):
        return finished

    begin = partial(init_state, optimizer=optimizer, ema=has_ema)
    abstract = jax.eval_shape(begin, network.abstract)
    placement = parallel.shardings(abstract, mesh, network.tensor_axes)
    report_plan(config, network, plan, data, mesh)
    advice = Advice(quiet=not lead)
    advice.tell(*about_plan(config, plan, data), *about_data(data))
    log.info("%s", parallel.describe(abstract, placement, mesh))
    train_step = compile_step(train_step, mesh, placement)
    forward = make_forward(network, mesh)
    sizes = {"batch_size": config.train.batch_size, "seed": config.seed}
    readers = [Reader(source, config.model.image_size, config.data.on_error) for source in data]
    best_model = workdir / BEST_MODEL
    if lead:
        files.recover_folder(best_model)
    save = partial(
        write_bundle,
        config=network.config,
        labels=data.train.labels,
        threshold=config.evaluate.training_threshold,
    )
    save_best = partial(save, best_model)

    def names_of(step: int) -> list[str]:
        indices = train_indices(len(data.train), step=step - 1, **sizes)
        return [data.train.name(index) for index in indices]

    def first_state() -> TrainState:
        variables = first_variables(network, weights, config.seed, mesh)
        return jax.jit(begin, out_shardings=placement)(variables)

    def evaluate(
        state: TrainState, step: int, best: dict[str, Any] | None, recorder: Recorder
    ) -> tuple[dict[str, Any] | None, dict[str, float] | None]:
        """The best evaluation after that of this step, and what the checkpoint is judged by.

        Raises AskedToEndError with nothing done: it is to be done again.
        """
        recorder.pause("evaluating …")
        models = {"raw": state.variables} | ({"ema": state.ema} if has_ema else {})
        results, positives = evaluate_models(forward, models, readers[1], config, mesh, stop)
        if getattr(data.validation, "targets", None) is None:
            advice.tell(about_positives("validation", data.train.labels, positives))
        best = keep_best(best, results, models, metric, plan.epoch(step), step, save_best)
        recorder.evaluation(step, results, best)
        scores = [r[metric] for r in results.values() if not math.isnan(r[metric])]
        return best, {metric: max(scores)} if scores else None

    def train_from(
        state: TrainState, record: dict[str, Any]
    ) -> tuple[TrainState, dict[str, Any] | None, float, Recorder]:
        """All steps after those of `state`: the last one, the best evaluation, seconds, records."""
        best, before, start = record["best"], record["seconds"], int(state.step)
        rows = parallel.local_rows(mesh, config.train.batch_size)
        batches = train_batches(
            readers[0], config.data, start_step=start, end_step=plan.total_steps, rows=rows, **sizes
        )
        is_due = record.get("is_evaluation_due", False)  # it was stopped before
        recorder = Recorder(
            workdir,
            config,
            plan,
            start_step=start,
            names_of=names_of,
            is_evaluation_due=is_due,
            quiet=not lead,
        )
        tracer, ahead = Tracer(config.profile, workdir / "profile"), Ahead()
        with recorder, tracer:
            if is_due:
                best, _ = evaluate(state, start, best, recorder)
            stream = recorder.timed(parallel.put_ahead(batches, mesh))
            for step, batch in enumerate(stream, start=start + 1):
                tracer.before(step)
                state, numbers = train_step(state, batch, teacher)
                stop.underway()
                ahead.sent(numbers)
                tracer.after(step, numbers)
                recorder.train(step, numbers)
                is_over, is_due, metrics = stop.after(step), plan.evaluate_after(step), None
                if is_due:
                    try:
                        best, metrics = evaluate(state, step, best, recorder)
                        is_due = False
                    except AskedToEndError:
                        is_over = True
                if plan.save_after(step) or is_over:
                    recorder.pause()
                    seconds = before + time.perf_counter() - began
                    record = {"best": best, "seconds": seconds, "is_evaluation_due": is_due}
                    checkpoints.save(state, record | {"data": facts}, metrics=metrics)
                if is_over and (is_due or step < plan.total_steps):
                    checkpoints.wait()
                    raise stop.error(step, plan.total_steps)
        return state, best, before + time.perf_counter() - began, recorder

    stop = Stop(config.train.time_limit, saved=partial(saved_step, workdir))
    checkpoints = Checkpoints(
        workdir / CHECKPOINTS, keep=config.train.keep_checkpoints, metric=metric
    )
    with stop, checkpoints:
        scale = 1.0
        for rollbacks in itertools.count(1):
            state, record = begin_or_resume(checkpoints, first_state, abstract, placement, config)
            if "data" in record:
                check_data(workdir, record["data"], facts)
            if state.step:
                log.info("Resumed after step %d.", int(state.step))
            if rollbacks > 1:
                state = with_rate_scale(state, scale, mesh)
            scale = float(state.rate_scale)
            try:
                state, best, seconds, recorder = train_from(state, record)
                break
            except AskedToEndError as error:  # in an evaluation that was due, before any step
                raise stop.error(int(state.step), plan.total_steps) from error
            except NonFiniteError as error:  # of a step, or of the scores in an evaluation
                if config.train.nonfinite != "rollback" or rollbacks > config.train.max_nonfinite:
                    raise
                scale /= 2
                log.warning(
                    "%s. Going back, and on with %g times the learning rate.", error.message, scale
                )

    model = BEST_MODEL if best else LAST_MODEL
    if best is None:  # no evaluation told which is the best
        name, variables = ("ema", state.ema) if has_ema else ("raw", state.variables)
        facts = {"weights": name, "epoch": plan.epochs, "step": plan.total_steps}
        variables = parallel.fetch(variables, keep=lead)
        if lead:
            save(workdir / LAST_MODEL, variables=variables, facts=facts)
    if not lead:
        return None
    if best and config.model.task != "single":
        advice.tell(about_decisions(best.get("metrics", {}), config.evaluate.training_threshold))
    pictures = write_pictures(config.log.pictures, data.validation, workdir / model, workdir)
    paths = {model: model, **PATHS}
    skipped = [message for reader in readers for message in reader.broken.values()]
    return TrainResult(
        main_metric=metric,
        metric=best and best[metric],
        best_epoch=best and best["epoch"],
        best_weights=best and best["weights"],
        epochs=plan.epochs,
        steps=plan.total_steps,
        images_per_s=round(recorder.images_per_second, 1) or None,
        seconds=round(seconds, 1),
        nonfinite_steps=recorder.nonfinite_steps,
        skipped_images=sorted(skipped),
        warnings=advice.told,
        paths={name: str(workdir / path) for name, path in paths.items()} | pictures,
    )


def describe(config: schema.Config, data: DataSplits) -> dict[str, Any]:
    """What a run that goes on must find again: the data, and what makes the network's input."""
    preprocessing = {
        "image_size": list(config.model.image_size),
        "mean": list(MEAN),
        "std": list(STD),
        "train_resize": config.data.train_resize,
        "augment": list(config.data.augment),
        "mixup": config.data.mixup,
        "cutmix": config.data.cutmix,
    }
    return describe_data(data.train, data.validation) | {"preprocessing": preprocessing}


def optimizer_and_step(
    config: schema.Config,
    network: Network,
    plan: Plan,
    distill: Distillation | None,
    mesh: Mesh,
) -> tuple[optax.GradientTransformation, TrainStep]:
    """What `config` says of the optimizer, and the step with it, not compiled yet."""
    rates = scaled_rate(config.optimizer, config.train.batch_size)
    schedule = make_schedule(rates, plan)
    optimizer = make_optimizer(rates, schedule, network)
    step = TrainStep(
        network.on(mesh.devices.flat),
        make_loss(config.loss),
        optimizer,
        schedule,
        config.train,
        seed=config.seed,
        mix=make_mix(config.data),
        sam_radius=config.optimizer.sam_radius,
        distill=distill,
        gather=parallel.gather_params(mesh, network.tensor_axes),
    )
    return optimizer, step


def with_classes(model: schema.Model, labels: tuple[str, ...]) -> schema.Model:
    """The model section with the data's number of labels.

    Raises:
      ConfigError: the configuration asks for another number.
    """
    if model.num_classes not in (None, len(labels)):
        raise ConfigError(
            f"model.num_classes={model.num_classes}: the data has {len(labels)} labels",
            "Leave model.num_classes out: it follows the data.",
        )
    return dataclasses.replace(model, num_classes=len(labels))


def initial_weights(
    config: schema.Config, labels: tuple[str, ...]
) -> tuple[Network, Variables | None]:
    """The network, and what `model.weights` holds for it; None if all of it is to be drawn.

    Weights may bring options of the network along; see `weights.load`.
    """
    network = Network.of(with_classes(config.model, labels))
    if not config.model.weights:
        return network, None
    model = Model(network, network.init(config.seed))
    report = load(model, config.model.weights, strict=config.model.weights_strict)
    log.info("Weights from %s: %s.", config.model.weights, report)
    return model.network, model.variables


def first_variables(
    network: Network, weights: Variables | None, seed: int, mesh: Mesh
) -> Variables:
    """The weights, or those drawn from the seed, on the devices; each host keeps its part only."""
    placement = parallel.shardings(network.abstract, mesh, network.tensor_axes)
    if weights is not None:
        return parallel.put(weights, placement)
    places = flatten(placement)
    return network.init(seed, lambda path, array: parallel.put(array, places[path]))


def teacher_of(
    config: schema.Config, labels: tuple[str, ...], mesh: Mesh
) -> tuple[Distillation | None, Variables | None]:
    """What `distill.teacher` adds to the step, and its numbers on the devices.

    Raises:
      WeightsError: the bundle is missing or damaged.
      ConfigError: it has other labels, or another task.
    """
    if config.distill.teacher is None:
        return None, None
    folder = Path(config.distill.teacher)
    bundle = read_bundle(folder)
    check_labels(folder, bundle.labels, labels)
    network, variables = bundle.model.network, bundle.model.variables
    if network.config.task != config.model.task:
        raise ConfigError(
            f"distill.teacher={folder}: was trained with model.task={network.config.task},"
            f" not {config.model.task}"
        )
    log.info("Teacher: %s, with a weight of %g.", folder, config.distill.weight)
    placed = parallel.put(variables, parallel.shardings(variables, mesh, network.tensor_axes))
    teacher = network.on(mesh.devices.flat)
    return make_distillation(config.distill, config.loss, teacher), placed


def begin_or_resume(
    checkpoints: Checkpoints,
    first_state: Callable[[], TrainState],
    abstract: TrainState,
    placement: Any,
    config: schema.Config,
) -> tuple[TrainState, dict[str, Any]]:
    """The state to start from, and the record of the run so far: best evaluation, seconds.

    Raises:
      WorkdirError: there is a run to go on with, but `train.resume` is off.
    """
    if checkpoints.steps and not config.train.resume:
        raise WorkdirError(
            f"the workdir holds a run that stopped after step {checkpoints.steps[0]}, and"
            " train.resume=false",
            "Choose another --workdir, or drop train.resume=false to go on.",
        )
    restored = checkpoints.restore(parallel.placed(abstract, placement))
    if restored is None:
        return first_state(), {"best": None, "seconds": 0.0}
    return restored


def with_rate_scale(state: TrainState, scale: float, mesh: Mesh) -> TrainState:
    """The state with its learning rate scaled anew."""
    value = parallel.put(np.float32(scale), parallel.replicated(mesh))
    return dataclasses.replace(state, rate_scale=value)


def evaluate_models(
    forward: Forward,
    models: dict[str, Variables],
    reader: Reader,
    config: schema.Config,
    mesh: Mesh,
    stop: Stop,
) -> tuple[dict[str, dict[str, float]], np.ndarray]:
    """Metrics of each of `models` over all images of `reader`, and the number of positives [K].

    Raises what `stop` does.
    """
    size = config.evaluate.batch_size
    rows = parallel.local_rows(mesh, size)
    batches = eval_batches(reader, config.data, batch_size=size, rows=rows)
    logits, targets = score(forward, models, stop.unless_asked(batches), mesh)
    options = {"threshold": config.evaluate.training_threshold, "method": config.evaluate.map_type}
    task = config.model.task
    metrics = {
        name: metrics_of(task, to_scores(z, task), targets, ranking=z, **options)
        for name, z in logits.items()
    }
    return metrics, (targets >= 1).sum(0)


def keep_best(
    best: dict[str, Any] | None,
    results: dict[str, dict[str, float]],
    models: dict[str, Variables],
    metric: str,
    epoch: int,
    step: int,
    save: Callable[..., None],
) -> dict[str, Any] | None:
    """The better of the best so far and the best of `results`; a new best is saved.

    Without a defined metric there is none.
    """
    defined = [name for name in results if not math.isnan(results[name][metric])]
    if not defined:
        return best
    weights = max(defined, key=lambda name: results[name][metric])
    if best is not None and results[weights][metric] <= best[metric]:
        return best
    facts = {"weights": weights, "epoch": epoch, "step": step, "metrics": results[weights]}
    best = {metric: results[weights][metric]} | facts
    variables = parallel.fetch(models[weights], keep=parallel.is_lead())
    if parallel.is_lead():
        save(variables=variables, facts=facts)
    return best


def finished_result(workdir: Path, plan: Plan, metric: str) -> TrainResult | None:
    """The result of the run in `workdir` if it is complete."""
    path = workdir / RESULT_FILE
    if not path.exists() or not any((workdir / m).exists() for m in (BEST_MODEL, LAST_MODEL)):
        return None
    result = json.loads(path.read_text(encoding="utf-8"))
    if not result.get("done_flag") or result.get("steps") != plan.total_steps:
        return None
    log.info("This run is complete; nothing to do. A new one needs another --workdir.")
    return TrainResult.from_json(result, metric)


def report_plan(
    config: schema.Config, network: Network, plan: Plan, data: DataSplits, mesh: Mesh
) -> None:
    """Log what is about to be done, on what."""
    device = mesh.devices.flat[0]
    parameters = sum(leaf.size for leaf in jax.tree.leaves(network.abstract.params))
    height, width = config.model.image_size
    log.info(
        "Model: %s, %s parameters, %d labels, images %d x %d, %s.",
        config.model.name, f"{parameters:,}", len(data.train.labels), height, width,
        config.model.dtype,
    )  # fmt: skip
    log.info(
        "Data: %s, %s images to train on, %s to validate.",
        config.data.source, f"{len(data.train):,}", f"{len(data.validation):,}",
    )  # fmt: skip
    log.info(
        "Plan: %s of %s of %s, on %d x %s.",
        count(plan.epochs, "epoch"), count(plan.steps_per_epoch, "step"),
        count(config.train.batch_size, "image"), mesh.devices.size, device.device_kind,
    )  # fmt: skip
