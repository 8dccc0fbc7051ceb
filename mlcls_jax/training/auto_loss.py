"""loss.name=auto: the form of the asymmetric loss that suits the data, by the head to be trained.

The network as it begins sees some training images once. On the feature maps of one half of them the
configured head is trained with each of a few losses, as the run would train it but shortly, and
judged on the other half; then the halves change places for those losses that may still be the best.
It is a proxy all the same: the backbone does not learn.
"""

import logging
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mlcls_jax import config as schema
from mlcls_jax.data.frame import Frame
from mlcls_jax.data.label_counts import LabelCounts, count_labels
from mlcls_jax.data.pipeline import Reader, eval_batches
from mlcls_jax.data.sources.repeated import Repeated
from mlcls_jax.data.types import Source
from mlcls_jax.metrics import average_precision
from mlcls_jax.models.network import Network, Variables
from mlcls_jax.training.cadence import Plan
from mlcls_jax.training.loss import LossFunction, make_loss
from mlcls_jax.training.mixing import DeviceBatch
from mlcls_jax.training.optimizer import make_optimizer, make_schedule, scaled_rate
from mlcls_jax.training.state import TrainState, init_state
from mlcls_jax.training.step import TrainStep
from mlcls_jax.workdir import stored_section

log = logging.getLogger(__name__)

AUTO = "auto"
IMAGES = 1_000  # that are looked at
EPOCHS = 8
BEYOND = 2  # standard errors of a gain, as it differs between labels
UNEVEN = 10  # times as many images of the most frequent label as of the rarest
BATCH = 32

USUAL = "gamma_neg=4"
FORMS: dict[str, dict[str, Any]] = {
    USUAL: {"gamma_neg": 4.0, "clip": 0.05},
    "gamma_neg=2": {"gamma_neg": 2.0, "clip": 0.05},
    "cross-entropy": {"gamma_neg": 0.0, "clip": 0.0},
}
RARE = {"class_weights": "effective"}  # tried besides where labels are uneven


def recall_loss(config: schema.Config, workdir: Path) -> schema.Config:
    """Return the configuration with the loss that the run in the workdir has chosen, if it has."""
    if config.loss.name != AUTO:
        return config
    chosen = stored_section(workdir, "loss")
    if not (chosen and chosen.get("auto")):
        return config
    return schema.changed(config, {f"loss.{key}": value for key, value in chosen.items()})


def settle_loss(
    config: schema.Config,
    source: Source,
    network: Network,
    weights: Variables | None,
    frame: Frame,
) -> schema.Config:
    """Return the configuration with a loss instead of "auto", and log why it is this one.

    The same seed, data and weights give the same loss.

    Args:
      config: of the run.
      source: the training images.
      network: as it begins.
      weights: of it; None: they are drawn from the seed.
      frame: how pictures become images.
    """
    if config.loss.name != AUTO:
        return config
    began, options = time.perf_counter(), replace(config.loss, name="asymmetric", auto=True)
    # For labels in exclusive groups, loss.name says nothing.
    free = np.flatnonzero(~network.groups.is_grouped(len(source.labels)))
    if not free.size:
        log.info("loss.name=auto: all labels exclude others, and cost a cross-entropy.")
        return replace(config, loss=options)
    if weights is None:
        log.info("loss.name=auto: the usual %s, as random weights cannot tell losses apart.", USUAL)
        return replace(config, loss=replace(options, gamma_pos=0.0, **FORMS[USUAL]))
    maps, targets = _look(config, source, network, weights, frame)
    counts = count_labels(source)
    known = counts or LabelCounts.of(targets)
    known = LabelCounts(known.positives[free], known.known[free], known.images)
    _tell(known, len(maps))
    forms = {
        name: replace(options, gamma_pos=0.0, **form)
        for name, form in _forms(known if counts else None)
    }
    judged = {}
    mine = targets[:, free]
    if ((mine >= 1) & (mine == 0).any(0)).any():  # present ones alone would tell nothing
        losses = {
            name: make_loss(
                form,
                unknown=config.data.unknown,
                labels=source.labels,
                counts=counts,
                groups=network.groups,
            )
            for name, form in forms.items()
        }
        judged = _judge(config, losses, network, weights, maps, targets, free)
        behind = [name for name in losses if name not in judged]
        log.info(
            "loss.name=auto: mAP of the head on one half of them, after a short training on"
            " features of the other: %s%s.",
            ", ".join(f"{name} {_mean(values):.3f}" for name, values in judged.items()),
            "; far behind: " * bool(behind) + ", ".join(behind),
        )
    name, why = _choose(judged)
    seconds = time.perf_counter() - began
    log.info("loss.name=auto: %s, %s; it took %.0f s.", name, why, seconds)
    return replace(config, loss=forms[name])


def _forms(counts: LabelCounts | None) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the losses to try."""
    yield from FORMS.items()
    if counts is None or counts.positives.max() < UNEVEN * max(1, counts.positives.min()):
        return
    for name in (USUAL, "cross-entropy"):
        yield f"{name} and class_weights=effective", FORMS[name] | RARE


def _look(
    config: schema.Config,
    source: Source,
    network: Network,
    weights: Variables,
    frame: Frame,
) -> tuple[np.ndarray, np.ndarray]:
    """Return feature maps [n, h, w, C] and targets [n, K] of some training images."""
    rng = np.random.default_rng(config.seed)
    table = np.sort(rng.permutation(len(source))[:IMAGES])
    network = network.on(jax.local_devices()[:1])

    @jax.jit
    def features_of(variables: Variables, images: Array) -> Array:
        return network.apply(variables, images).features

    reader = Reader(Repeated(source, table), frame, config.data.on_error)
    maps, targets = [], []
    for batch in eval_batches(reader, config.data, batch_size=BATCH):
        found = np.asarray(features_of(weights, jnp.asarray(batch["image"])))
        maps.append(found[batch["mask"]])
        targets.append(batch["target"][batch["mask"]])
    return np.concatenate(maps), np.concatenate(targets)


def _judge(
    config: schema.Config,
    losses: dict[str, LossFunction],
    network: Network,
    weights: Variables,
    maps: np.ndarray,  # [n, h, w, C]
    targets: np.ndarray,  # [n, K]
    labels: np.ndarray,  # [L], that are judged
) -> dict[str, Float[np.ndarray, " 2*L"]]:
    """Return the average precision of each label on one half of the images, then on the other.

    The head that is judged on one half was trained on the other. Losses that are behind by more
    than chance on the first half that is judged are left out.
    """
    network = replace(
        network.on(jax.local_devices()[:1]), frozen_backbone=True, reads_features=True
    )
    train = replace(config.train, epochs=EPOCHS, accumulate=1)
    size = min(train.batch_size, len(maps) // 2)
    plan = Plan.of(replace(train, batch_size=size), epoch_size=len(maps) // 2)
    rates = scaled_rate(config.optimizer, train.batch_size)
    share = train.epochs / config.train.epochs
    schedule = make_schedule(replace(rates, warmup_epochs=rates.warmup_epochs * share), plan)
    optimizer = make_optimizer(rates, schedule, network)

    # One program for all losses: compiling the head's gradient takes longer than running it.
    @jax.jit
    def take(which: int, state: TrainState, batch: DeviceBatch) -> TrainState:
        def loss(logits: Array, targets: Array, mask: Array) -> Array:
            return jax.lax.switch(which, branches, logits, targets, mask)

        step = TrainStep(network, loss, optimizer, schedule, train, seed=config.seed)
        return step(state, batch)[0]

    branches = [_by_position(loss) for loss in losses.values()]
    logits_of = jax.jit(lambda variables, maps: network.apply(variables, maps).logits)

    def reached(name: str, kept: np.ndarray, held: np.ndarray) -> Float[np.ndarray, " L"]:
        which, rng = [*losses].index(name), np.random.default_rng(config.seed)
        passes = -(-plan.total_steps * size // len(kept))
        order = np.concatenate([rng.permutation(kept) for _ in range(passes)])
        state = init_state(weights, optimizer=optimizer, ema=False, trained=network.trained)
        for step in range(plan.total_steps):
            rows = order[step * size : (step + 1) * size]
            batch = {"image": maps[rows], "target": targets[rows], "mask": np.ones(size, bool)}
            state = take(which, state, batch)
        logits = np.asarray(logits_of(state.variables, maps[held]), np.float32)
        return average_precision(logits[:, labels], targets[held][:, labels])

    one, other = np.array_split(np.random.default_rng(config.seed).permutation(len(maps)), 2)
    found = {name: reached(name, one, other) for name in losses}
    best = max(found.values(), key=_mean)
    likely = [name for name in losses if name == USUAL or not _is_gain(best - found[name])]
    return {n: np.concatenate([found[n], reached(n, other, one)]) for n in likely}


def _by_position(loss: LossFunction) -> LossFunction:
    return lambda logits, targets, mask: loss(logits, targets, mask=mask).astype(jnp.float32)


def _choose(judged: dict[str, Float[np.ndarray, " N"]]) -> tuple[str, str]:
    """Return the best loss and why: the usual one, unless another's gain is beyond chance.

    `judged` has what `_judge` returns; NaN where it is undefined.
    """
    told = {name: _mean(values) for name, values in judged.items()}
    if not told or np.isnan(told[USUAL]):
        return USUAL, "the usual one, as nothing tells losses apart"
    best = max(told, key=lambda name: told[name])
    if told[best] == told[USUAL]:
        return USUAL, "the usual one, which is the best here"
    gains = judged[best] - judged[USUAL]
    if not _is_gain(gains):
        return USUAL, f"the usual one: the gain of {best} may be chance"
    return best, f"as it gains {_mean(gains):.3f} over the usual {USUAL}"


def _is_gain(gains: Float[np.ndarray, " N"]) -> bool:
    """Return whether labels gain by more than chance; NaN where it is undefined."""
    known = gains[~np.isnan(gains)]
    return bool(known.size and known.mean() > BEYOND * known.std() / np.sqrt(known.size))


def _mean(values: Float[np.ndarray, " N"]) -> float:
    """Return the mean of what is defined; NaN if nothing is."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")


def _tell(counts: LabelCounts, images: int) -> None:
    """Log the first line: what the data are like."""
    positives = counts.positives
    log.info(
        "loss.name=auto: %d labels, %.1f an image, the rarest on %s images and the most frequent on"
        " %s; %.0f %% not annotated. Judged by %s training images.",
        len(positives), positives.sum() / max(1, counts.images), f"{positives.min():,}",
        f"{positives.max():,}", 100 * (1 - counts.known.mean() / max(1, counts.images)),
        f"{images:,}",
    )  # fmt: skip
