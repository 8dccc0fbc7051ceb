"""A run and its parts: everything that stays the same from the first step to the last."""

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from mlcls_jax import config as schema
from mlcls_jax import parallel
from mlcls_jax.data.augment import augmentations
from mlcls_jax.data.fingerprint import describe_data
from mlcls_jax.data.frame import Frame
from mlcls_jax.data.label_counts import count_labels
from mlcls_jax.data.pipeline import AnyReader, Reader, eval_batches, train_batches, train_indices
from mlcls_jax.data.sources import DataSplits, open_data
from mlcls_jax.data.sources.repeated import repeat_rare
from mlcls_jax.data.sources.single import single_label
from mlcls_jax.data.types import Batch
from mlcls_jax.errors import ConfigError
from mlcls_jax.evaluation import Forward, make_forward
from mlcls_jax.groups import NO_GROUPS, Groups
from mlcls_jax.inference.bundle import check_labels, model_folder, read_bundle, write_bundle
from mlcls_jax.metrics import MAIN_METRIC
from mlcls_jax.models import Model, Network
from mlcls_jax.models.network import Variables, flatten
from mlcls_jax.models.registry import pixels, stride
from mlcls_jax.models.relabel import with_embeddings
from mlcls_jax.models.texts import with_text
from mlcls_jax.models.weights import load
from mlcls_jax.models.weights.sources import NONE, find, name_for, sources
from mlcls_jax.training.advice import Advice
from mlcls_jax.training.auto_loss import settle_loss
from mlcls_jax.training.cadence import Plan
from mlcls_jax.training.distill import Distillation, make_distillation
from mlcls_jax.training.loss import LossFunction, make_loss
from mlcls_jax.training.mixing import make_mix
from mlcls_jax.training.nonfinite import Policy
from mlcls_jax.training.optimizer import make_optimizer, make_schedule, scaled_rate
from mlcls_jax.training.state import TrainState, init_state
from mlcls_jax.training.step import CompiledStep, TrainStep, compile_step
from mlcls_jax.workdir import CONFIG_FILE, check_owner

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """A prepared run; see `prepare`."""

    config: schema.Config
    workdir: Path
    began: float  # by `time.perf_counter`
    mesh: Mesh
    data: DataSplits
    readers: tuple[AnyReader, AnyReader]  # of the images to train on and to validate
    facts: dict[str, Any]  # what a run that is resumed must find again; see `describe`
    plan: Plan
    policy: Policy
    network: Network
    weights: Variables | None  # to begin with; None: they are drawn
    begin: Callable[[Variables], TrainState]
    abstract: TrainState  # shapes and types of the state
    shardings: TrainState
    loss: LossFunction
    step: CompiledStep
    teacher: Variables | None
    forward: Forward
    advice: Advice
    listen: Callable[[dict[str, Any]], None] | None = None  # to every line of metrics.jsonl
    # Shown scores and targets [N, K] of each evaluation, where this is the first process.
    show: Callable[[np.ndarray, np.ndarray], None] | None = None

    @property
    def metric(self) -> str:
        """The main metric, which decides which weights are the best."""
        return MAIN_METRIC[self.config.model.task]

    @property
    def record(self) -> dict[str, Any]:
        """Return what checkpoints tell besides the progress."""
        return {"data": self.facts, "steps_per_epoch": self.plan.steps_per_epoch}

    def first_state(self) -> TrainState:
        """Return the state before the first step, on the devices."""
        seed, network = self.config.seed, self.network
        variables = first_variables(network, self.weights, seed, self.mesh)
        return jax.jit(self.begin, out_shardings=self.shardings)(variables)

    def train_batches(self, start: int) -> Iterator[Batch]:
        """Return the batches of this process for all steps after step `start`."""
        size = self.config.train.batch_size
        return train_batches(
            self.readers[0],
            self.config.data,
            start_step=start,
            end_step=self.plan.total_steps,
            rows=parallel.local_rows(self.mesh, size),
            batch_size=size,
            seed=self.config.seed,
            frames=train_frames(self.config),
        )

    def validation_batches(self) -> Iterator[Batch]:
        """Return the batches of this process for one evaluation."""
        size = self.config.evaluate.batch_size
        rows = parallel.local_rows(self.mesh, size)
        return eval_batches(self.readers[1], self.config.data, batch_size=size, rows=rows)

    def names_of(self, step: int) -> list[str]:
        """Return the names of the images of a step, counted from 1."""
        source, size = self.readers[0].source, self.config.train.batch_size
        indices = train_indices(len(source), step=step - 1, batch_size=size, seed=self.config.seed)
        return [source.name(index) for index in indices]

    def save(self, name: str, variables: Variables, facts: dict[str, Any]) -> None:
        """Write a bundle into the workdir; all processes take part."""
        whole = parallel.fetch(variables, keep=parallel.is_lead())
        if parallel.is_lead():
            write_bundle(
                self.workdir / name,
                self.network.config,
                whole,
                labels=self.data.train.labels,
                threshold=self.config.evaluate.training_threshold,
                facts=facts,
                frame=self.readers[1].frame,
            )


def prepare(config: schema.Config, workdir: Path, *, schedule: optax.Schedule | None = None) -> Run:
    """Return the run that `config` describes; nothing is written and no weight is drawn yet.

    `schedule` replaces that of the configuration.

    Raises:
      UserError: the configuration or the data is wrong, or the workdir belongs to another run.
    """
    began = time.perf_counter()
    train_frames(config)
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
    groups = getattr(data.train, "groups", NO_GROUPS)
    network, weights = initial_weights(config, data.train.labels, groups)
    config = settle_loss(config, data.train, network, weights, frame_of(config))
    network = replace(
        network,
        frozen_backbone=config.train.frozen_backbone,
        reads_features=config.data.feature_views > 0,
    )
    source = repeat_rare(data.train, config.data.repeat_below, seed=config.seed)
    plan = Plan.of(config.train, epoch_size=config.data.epoch_size or len(source))
    distill, teacher = teacher_of(config, data.train.labels, mesh)
    loss = make_loss(
        config.loss,
        unknown=config.data.unknown,
        labels=data.train.labels,
        counts=count_labels(data.train),
        groups=network.groups,
    )
    optimizer, step = optimizer_and_step(config, network, plan, loss, distill, mesh, schedule)
    has_ema = config.train.ema_decay > 0
    begin = partial(init_state, optimizer=optimizer, ema=has_ema, trained=network.trained)
    abstract = jax.eval_shape(begin, network.abstract)
    shardings = parallel.shardings(abstract, mesh, network.tensor_axes)
    frame, on_error = frame_of(config), config.data.on_error
    return Run(
        config=config,
        workdir=workdir,
        began=began,
        mesh=mesh,
        data=data,
        readers=(Reader(source, frame, on_error), Reader(data.validation, frame, on_error)),
        facts=facts,
        plan=plan,
        policy=Policy(config.train),
        network=network,
        weights=weights,
        begin=begin,
        abstract=abstract,
        shardings=shardings,
        loss=loss,
        step=compile_step(step, mesh, shardings),
        teacher=teacher,
        forward=make_forward(network, mesh),
        advice=Advice(quiet=not parallel.is_lead()),
    )


def frame_of(config: schema.Config) -> Frame:
    """Return how pictures become images of the network's size."""
    return Frame(config.model.image_size, config.data.fit, config.data.resize_short)


def train_frames(config: schema.Config) -> tuple[Frame, ...]:
    """Return the sizes of training images that `data.train_scales` asks for, if it does.

    Raises:
      ConfigError: two factors come to the same size.
    """
    step = stride(config.model.name)
    frames = tuple(frame_of(config).scaled(scale, step) for scale in config.data.train_scales)
    sizes = [frame.size for frame in frames]
    if len({*sizes}) < len(sizes):
        told = ", ".join(f"{height} x {width}" for height, width in sizes)
        raise ConfigError(
            f"data.train_scales={config.data.train_scales}: come to {told}: one of them twice",
            f"Sides are multiples of {step} pixels: take factors further apart.",
        )
    return frames


def describe(config: schema.Config, data: DataSplits) -> dict[str, Any]:
    """Return what a resumed run must find again: the data, and what makes the network's input."""
    statistics = pixels(name_for(config.model.name, config.model.weights or ""))
    preprocessing = {
        "image_size": list(config.model.image_size),
        "fit": config.data.fit,
        "resize_short": config.data.resize_short,
        "mean": list(statistics.mean),
        "std": list(statistics.std),
        "train_scales": list(config.data.train_scales),
        "train_resize": config.data.train_resize,
        "repeat_below": config.data.repeat_below,
        "augment": list(config.data.augment),
        "mixup": config.data.mixup,
        "cutmix": config.data.cutmix,
    }
    return describe_data(data.train, data.validation) | {"preprocessing": preprocessing}


def with_classes(
    model: schema.Model, labels: tuple[str, ...], groups: Groups = NO_GROUPS
) -> schema.Model:
    """Return the model section with the data's number of labels, groups, and embedded names.

    Raises:
      ConfigError: the configuration asks for another number, or for texts without an ML-Decoder.
      WeightsError: the text tower cannot be read.
    """
    if model.num_classes not in (None, len(labels)):
        raise ConfigError(
            f"model.num_classes={model.num_classes}: the data has {len(labels)} labels",
            "Leave model.num_classes out: it follows the data.",
        )
    if groups and model.task != "single" and not (model.parents or model.exclusive):
        model = replace(model, parents=groups.parents, exclusive=groups.exclusive)
    return with_text(replace(model, num_classes=len(labels)), labels)


def initial_weights(
    config: schema.Config, labels: tuple[str, ...], groups: Groups = NO_GROUPS
) -> tuple[Network, Variables | None]:
    """Return the network, and its weights from `model.weights`; None if all are to be drawn.

    Weights may bring options of the network along; see `weights.load`.
    """
    network, given = Network.of(with_classes(config.model, labels, groups)), config.model.weights
    if given is None and sources(config.model.name):
        log.warning(
            "The network starts from random weights; model.weights=auto loads published ones."
        )
    if given in (None, NONE):
        return network, None
    if (Path(given) / CONFIG_FILE).is_file():  # a run
        given = str(model_folder(given))
    model = Model(network, network.init(config.seed))
    published = find(given, config.model.name)
    report = load(model, given, strict=config.model.weights_strict)
    log.info(
        "Weights from %s: %s.", f"{given}, {published.address}" if published else given, report
    )
    if network.config.text_embeddings is None:
        return model.network, model.variables
    return model.network, with_embeddings(model, np.load(network.config.text_embeddings)).variables


def first_variables(
    network: Network, weights: Variables | None, seed: int, mesh: Mesh
) -> Variables:
    """Return the weights, or else those drawn from the seed, on the devices."""
    shardings = parallel.shardings(network.abstract, mesh, network.tensor_axes)
    if weights is not None:
        return parallel.put(weights, shardings)
    by_path = flatten(shardings)
    return network.init(seed, lambda path, array: parallel.put(array, by_path[path]))


def teacher_of(
    config: schema.Config, labels: tuple[str, ...], mesh: Mesh
) -> tuple[Distillation | None, Variables | None]:
    """Return what `distill.teacher` adds to the step, and its numbers on the devices.

    Raises:
      WeightsError: the bundle is missing or damaged.
      ConfigError: it has other labels, or another task.
    """
    if (folder := config.distill.teacher) is None:
        return None, None
    bundle = read_bundle(folder)
    check_labels(folder, bundle.labels, labels)
    network, variables = bundle.model.network, bundle.model.variables
    if network.config.task != config.model.task:
        raise ConfigError(
            f"distill.teacher={folder}: was trained with model.task={network.config.task},"
            f" not {config.model.task}"
        )
    log.info("Teacher: %s, with a weight of %g.", folder, config.distill.weight)
    shardings = parallel.shardings(variables, mesh, network.tensor_axes)
    teacher = network.on(mesh.devices.flat, tensor=mesh.shape["tensor"])
    distill = make_distillation(config.distill, config.loss, teacher)
    return distill, parallel.put(variables, shardings)


def optimizer_and_step(
    config: schema.Config,
    network: Network,
    plan: Plan,
    loss: LossFunction,
    distill: Distillation | None,
    mesh: Mesh,
    schedule: optax.Schedule | None = None,
) -> tuple[optax.GradientTransformation, TrainStep]:
    """Return the optimizer of `config`, and the step with it, not compiled yet."""
    rates = scaled_rate(config.optimizer, config.train.batch_size)
    schedule = schedule or make_schedule(rates, plan)
    optimizer = make_optimizer(rates, schedule, network)
    step = TrainStep(
        network.on(mesh.devices.flat, tensor=mesh.shape["tensor"]),
        loss,
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
