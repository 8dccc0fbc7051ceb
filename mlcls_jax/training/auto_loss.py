"""loss.name=auto: the form of the asymmetric loss that suits the data, by a linear head.

Some training images are seen once by the network as it begins. On the means of their feature maps a
linear head is trained with each of a few losses, and judged on the images that were held out. That
costs seconds, and is a proxy: heads are linear, and the backbone does not learn.
"""

import logging
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from mlcls_jax import config as schema
from mlcls_jax.data.frame import Frame
from mlcls_jax.data.label_counts import LabelCounts, count_labels
from mlcls_jax.data.pipeline import Reader, eval_batches
from mlcls_jax.data.sources.repeated import Repeated
from mlcls_jax.data.types import Source
from mlcls_jax.metrics import mean_average_precision
from mlcls_jax.models.network import Network, Variables
from mlcls_jax.training.loss import LossFunction, make_loss
from mlcls_jax.workdir import stored_section

log = logging.getLogger(__name__)

AUTO = "auto"
IMAGES = 1_000  # that are looked at
DIVISIONS, HELD_OUT = 3, 0.25
STEPS, RATE, DECAY = 150, 0.01, 1e-2
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
    features, targets = _look(config, source, network, weights, frame)
    targets, counts = targets[:, free], count_labels(source)
    if counts is not None:
        counts = LabelCounts(counts.positives[free], counts.known[free], counts.images)
    found = choose_form(
        options, features, targets, counts, unknown=config.data.unknown, seed=config.seed
    )
    told = counts or LabelCounts.of(targets)
    _tell(told, found.judged, len(features), has_weights=weights is not None)
    seconds = time.perf_counter() - began
    log.info("loss.name=auto: %s, %s; it took %.0f s.", found.name, found.why, seconds)
    return replace(config, loss=found.loss)


class Chosen(NamedTuple):
    """A form of the asymmetric loss."""

    loss: schema.Loss
    name: str
    why: str
    judged: dict[str, np.ndarray]  # mAP [divisions] of each form; none if nothing tells them apart


def choose_form(
    options: schema.Loss,
    features: np.ndarray,  # [n, C]
    targets: np.ndarray,  # [n, K]
    counts: LabelCounts | None,
    *,
    unknown: str,
    seed: int,
) -> Chosen:
    """Return the form of the asymmetric loss that suits these images.

    Args:
      options: of the loss, besides its form.
      features: of each image.
      targets: of each image; -1 is not annotated.
      counts: of all training images; None: they are not known.
      unknown: as `data.unknown`.
      seed: of the divisions.
    """
    spread = features.std(0)
    features = (features - features.mean(0)) / np.where(spread > 0, spread, 1)
    forms = {name: replace(options, gamma_pos=0.0, **form) for name, form in _forms(counts)}
    judged = {}
    if ((targets >= 1) & (targets == 0).any(0)).any():  # present ones alone would tell nothing
        losses = {
            name: make_loss(form, unknown=unknown, counts=counts) for name, form in forms.items()
        }
        judged = {name: _judge(loss, features, targets, seed) for name, loss in losses.items()}
    name, why = _choose(judged)
    return Chosen(forms[name], name, why, judged)


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
    weights: Variables | None,
    frame: Frame,
) -> tuple[np.ndarray, np.ndarray]:
    """Return features [n, C] and targets [n, K] of some training images."""
    rng = np.random.default_rng(config.seed)
    table = np.sort(rng.permutation(len(source))[:IMAGES])
    network = network.on(jax.local_devices()[:1])

    @jax.jit
    def means(variables: Variables, images: Array) -> Array:
        return network.apply(variables, images).features.mean((1, 2), dtype=jnp.float32)

    variables = network.init(config.seed) if weights is None else weights
    reader = Reader(Repeated(source, table), frame, config.data.on_error)
    features, targets = [], []
    for batch in eval_batches(reader, config.data, batch_size=BATCH):
        found = np.asarray(means(variables, jnp.asarray(batch["image"])))
        features.append(found[batch["mask"]])
        targets.append(batch["target"][batch["mask"]])
    return np.concatenate(features), np.concatenate(targets)


def _judge(
    loss: LossFunction, features: np.ndarray, targets: np.ndarray, seed: int
) -> Float[np.ndarray, " divisions"]:
    """Return the mean average precision on the held-out images of each division; 0 if undefined."""
    train = jax.jit(partial(_trained, loss))
    found = []
    for number in range(DIVISIONS):
        order = np.random.default_rng((seed, number)).permutation(len(features))
        held, kept = np.split(order, [max(1, int(HELD_OUT * len(features)))])
        weight, bias = train(features[kept], targets[kept])
        logits = features[held] @ np.asarray(weight) + np.asarray(bias)
        found.append(mean_average_precision(logits, targets[held]))
    return np.nan_to_num(np.array(found))


def _trained(loss: LossFunction, features: Array, targets: Array) -> tuple[Array, Array]:
    """Return weights [C, K] and biases [K] of a linear head."""
    positives, known = (targets >= 1).sum(0), (targets >= 0).sum(0)
    bias = jnp.log((positives + 1) / (known - positives + 1))
    optimizer = optax.adamw(RATE, weight_decay=DECAY)
    head = jnp.zeros((features.shape[1], targets.shape[1])), bias

    def cost(head: tuple[Array, Array]) -> Array:
        return loss(features @ head[0] + head[1], targets, mask=jnp.ones(len(features)))

    def step(carry: tuple[Any, Any], _: None) -> tuple[tuple[Any, Any], None]:
        head, state = carry
        updates, state = optimizer.update(jax.grad(cost)(head), state, head)
        return (optax.apply_updates(head, updates), state), None

    (head, _), _ = jax.lax.scan(step, (head, optimizer.init(head)), length=STEPS)
    return head


def _choose(judged: dict[str, np.ndarray]) -> tuple[str, str]:
    """Return the best loss and why: the usual one, unless another gains more than it varies."""
    if not judged:
        return USUAL, "the usual one, as nothing tells losses apart"
    best = max(judged, key=lambda name: float(judged[name].mean()))
    gains = judged[best] - judged[USUAL]
    if best == USUAL:
        return USUAL, "the usual one, which is the best here"
    if not gains.mean() > gains.std(ddof=1):
        return USUAL, f"the usual one: {best} gains no more than it varies between divisions"
    return best, f"as it gains {gains.mean():.3f} over the usual {USUAL}"


def _tell(
    counts: LabelCounts, judged: dict[str, np.ndarray], images: int, *, has_weights: bool
) -> None:
    """Log the first two lines: the data's statistics, and how each loss did."""
    positives = counts.positives
    log.info(
        "loss.name=auto: %d labels, %.1f an image, the rarest on %s images and the most frequent on"
        " %s; %.0f %% not annotated.",
        len(positives), positives.sum() / max(1, counts.images), f"{positives.min():,}",
        f"{positives.max():,}", 100 * (1 - counts.known.mean() / max(1, counts.images)),
    )  # fmt: skip
    if not judged:
        log.info(
            "loss.name=auto: no label of %s training images is known to be present on some and"
            " absent on others.", f"{images:,}",
        )  # fmt: skip
        return
    told = ", ".join(f"{name} {values.mean():.3f}" for name, values in judged.items())
    log.info(
        "loss.name=auto: mAP of linear heads on features of %s training images%s, a quarter held"
        " out %d times: %s.",
        f"{images:,}", "" if has_weights else " (of random weights: a weak hint)", DIVISIONS, told,
    )  # fmt: skip
