"""mode=train: from a configuration to a bundle that predicts."""

import dataclasses
import json
import logging
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from mlcls_jax import config as schema
from mlcls_jax import files, parallel
from mlcls_jax.data.augment import augmentations
from mlcls_jax.data.pipeline import Reader, eval_batches, train_batches
from mlcls_jax.data.sources import DataSplits, open_data
from mlcls_jax.errors import ConfigError, WorkdirError
from mlcls_jax.evaluation import Forward, make_forward, score
from mlcls_jax.inference.bundle import size_of, write_bundle
from mlcls_jax.metrics import multilabel_metrics
from mlcls_jax.models import Model, Network
from mlcls_jax.models.network import Variables
from mlcls_jax.models.weights import load
from mlcls_jax.modes.pictures import write_pictures
from mlcls_jax.modes.workdir import CONFIG_FILE, check_owner, claim
from mlcls_jax.training.checkpoints import Checkpoints
from mlcls_jax.training.mixing import make_mix
from mlcls_jax.training.optimizer import make_optimizer, make_schedule
from mlcls_jax.training.plan import Plan
from mlcls_jax.training.records import Recorder
from mlcls_jax.training.state import TrainState, init_state
from mlcls_jax.training.step import make_loss, make_train_step

log = logging.getLogger(__name__)

METRIC = "MultiLabelMAP"  # decides which weights are the best
RESULT_FILE = "train_result.json"
PATHS = {
    "best_model": "best_model",
    "checkpoints": "checkpoints",
    "config": CONFIG_FILE,
    "log": "train.log",
    "metrics": "metrics.jsonl",
}


def train(config: schema.Config, workdir: Path) -> dict[str, Any]:
    """Train, evaluate, keep the best weights as a bundle; go on where an earlier run stopped.

    Returns:
      The content of `train_result.json`.

    Raises:
      UserError: the configuration, the data or the workdir is wrong; see its message.
    """
    began = time.perf_counter()
    check_owner(workdir, config)
    augmentations(config.data.augment)  # a wrong name shows before the workdir is taken
    mesh = parallel.make_mesh()
    parallel.check_batch_size("train.batch_size", config.train.batch_size, mesh)
    parallel.check_batch_size("evaluate.batch_size", config.evaluate.batch_size, mesh)
    data = open_data(config.data)
    model = initial_model(config, data.train.labels)
    network = model.network
    plan = Plan.of(config.train, epoch_size=config.data.epoch_size or len(data.train))
    schedule = make_schedule(config.optimizer, plan)
    optimizer = make_optimizer(config.optimizer, schedule, network.abstract.params, network.frozen)
    train_step = make_train_step(
        network,
        make_loss(config.loss),
        optimizer,
        schedule,
        seed=config.seed,
        ema_decay=config.train.ema_decay,
        ema_warmup=config.train.ema_warmup,
        mix=make_mix(config.data),
    )
    has_ema = config.train.ema_decay > 0
    claim(workdir, config)
    if finished := finished_result(workdir, plan):
        return finished
    report_plan(config, network, plan, data, mesh)

    train_step = parallel.jit_step(train_step, mesh)
    forward = make_forward(network, mesh)
    begin = parallel.jit_replicated(partial(init_state, optimizer=optimizer, ema=has_ema), mesh)
    readers = [Reader(source, size_of(config.model), config.data.on_error) for source in data]
    best_model = workdir / "best_model"
    files.recover_folder(best_model)
    save_best = partial(
        write_bundle,
        best_model,
        network.config,
        labels=data.train.labels,
        threshold=config.evaluate.threshold,
    )

    with Checkpoints(
        workdir / "checkpoints", keep=config.train.keep_checkpoints, metric=METRIC
    ) as checkpoints:
        state, record = begin_or_resume(checkpoints, begin, model.variables, config, mesh)
        best, start = record["best"], int(state.step)
        batches = train_batches(
            readers[0],
            config.data,
            batch_size=config.train.batch_size,
            seed=config.seed,
            start_step=start,
            end_step=plan.total_steps,
        )
        with Recorder(workdir, config, plan, start_step=start) as recorder:
            stream = recorder.timed(parallel.put_ahead(batches, mesh))
            for step, batch in enumerate(stream, start=start + 1):
                state, numbers = train_step(state, batch)
                recorder.train(step, numbers)
                results = None
                if plan.evaluate_after(step):
                    recorder.pause()
                    models = {"raw": state.variables} | ({"ema": state.ema} if has_ema else {})
                    results = evaluate_models(forward, models, readers[1], config, mesh)
                    best = keep_best(best, results, models, plan.epoch(step), step, save_best)
                    recorder.evaluation(step, results, best)
                if plan.save_after(step):
                    recorder.pause()
                    seconds = record["seconds"] + time.perf_counter() - began
                    metrics = results and {METRIC: max(r[METRIC] for r in results.values())}
                    checkpoints.save(state, {"best": best, "seconds": seconds}, metrics=metrics)

    pictures = write_pictures(config.log.pictures, data.validation, best_model, workdir)
    skipped = [message for reader in readers for message in reader.broken.values()]
    return {
        METRIC: best[METRIC],
        "best_epoch": best["epoch"],
        "best_weights": best["weights"],
        "epochs": plan.epochs,
        "steps": plan.total_steps,
        "images_per_s": round(recorder.images_per_second, 1),
        "seconds": round(record["seconds"] + time.perf_counter() - began, 1),
        "skipped_images": sorted(skipped),
        "paths": {name: str(workdir / path) for name, path in PATHS.items()} | pictures,
    }


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


def initial_model(config: schema.Config, labels: tuple[str, ...]) -> Model:
    """The model before training: drawn from the seed, or `model.weights` where those fit."""
    network = Network.of(with_classes(config.model, labels))
    model = Model(network, network.init(config.seed))
    if config.model.weights:
        report = load(model, config.model.weights, strict=config.model.weights_strict)
        log.info("Weights from %s: %s.", config.model.weights, report)
    return model


def begin_or_resume(
    checkpoints: Checkpoints,
    begin: Callable[[Variables], TrainState],
    variables: Variables,
    config: schema.Config,
    mesh: Mesh,
) -> tuple[TrainState, dict[str, Any]]:
    """The state to start from, and the record of the run so far: best evaluation, seconds.

    Raises:
      WorkdirError: there is a run to go on with, but `train.resume` is off.
    """
    step = checkpoints.latest_step
    if step is None:
        return begin(variables), {"best": None, "seconds": 0.0}
    if not config.train.resume:
        raise WorkdirError(
            f"the workdir holds a run that stopped after step {step}, and train.resume=false",
            "Choose another --workdir, or drop train.resume=false to go on.",
        )
    state, record = checkpoints.restore(parallel.placed(jax.eval_shape(begin, variables), mesh))
    log.info("Resumed after step %d.", step)
    return state, record


def evaluate_models(
    forward: Forward,
    models: dict[str, Variables],
    reader: Reader,
    config: schema.Config,
    mesh: Mesh,
) -> dict[str, dict[str, float]]:
    """Metrics of each of `models` over all images of `reader`."""
    batches = eval_batches(reader, config.data, batch_size=config.evaluate.batch_size)
    scores, targets = score(forward, models, batches, mesh)
    options = {"threshold": config.evaluate.threshold, "method": config.evaluate.map_type}
    return {name: multilabel_metrics(s, targets, **options) for name, s in scores.items()}


def keep_best(
    best: dict[str, Any] | None,
    results: dict[str, dict[str, float]],
    models: dict[str, Variables],
    epoch: int,
    step: int,
    save: Callable[..., None],
) -> dict[str, Any]:
    """The better of the best so far and the best of `results`; a new best is saved."""
    weights = max(results, key=lambda name: results[name][METRIC])
    if best is not None and results[weights][METRIC] <= best[METRIC]:
        return best
    best = {METRIC: results[weights][METRIC], "epoch": epoch, "step": step, "weights": weights}
    facts = {"weights": weights, "epoch": epoch, "step": step, "metrics": results[weights]}
    save(jax.device_get(models[weights]), facts=facts)
    return best


def finished_result(workdir: Path, plan: Plan) -> dict[str, Any] | None:
    """The result of the run in `workdir` if it is complete."""
    path = workdir / RESULT_FILE
    if not path.exists() or not (workdir / "best_model").exists():
        return None
    result = json.loads(path.read_text(encoding="utf-8"))
    if not result.get("done_flag") or result.get("steps") != plan.total_steps:
        return None
    log.info("This run is complete; nothing to do. A new one needs another --workdir.")
    return result


def report_plan(
    config: schema.Config, network: Network, plan: Plan, data: DataSplits, mesh: Mesh
) -> None:
    """Log what is about to be done, on what."""
    device = mesh.devices.flat[0]
    parameters = sum(leaf.size for leaf in jax.tree.leaves(network.abstract.params))
    height, width = size_of(config.model)
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
        "Plan: %d epochs of %d steps of %d images, on %d x %s.",
        plan.epochs, plan.steps_per_epoch, config.train.batch_size, mesh.devices.size,
        device.device_kind,
    )  # fmt: skip
