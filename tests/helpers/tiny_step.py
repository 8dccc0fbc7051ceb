"""A training step of one layer, which is compiled in a moment."""

from dataclasses import replace
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mlcls_jax.config import Loss, Train
from mlcls_jax.models.network import Network, Outputs, Variables
from mlcls_jax.training.loss import make_loss
from mlcls_jax.training.state import TrainState, init_state
from mlcls_jax.training.step import TrainStep

RATE = 0.1
LOSSES = {
    "sum": Loss(),
    "mean": Loss(reduction="mean"),
    "multilabel": Loss(name="multilabel", label_smoothing=0.1),
    "size_sum": Loss(name="multilabel", size_sum=True),
    "cross_entropy": Loss(name="cross_entropy"),
}


class Colours(Network):
    """One layer on the mean colour, with dropout; its statistic follows the mean of the logits."""

    def __init__(self):
        """Leave out what a step does not ask for."""

    def trained(self, tree):
        return tree

    def apply(self, variables, images, *, train, key):
        colours = images.mean((1, 2)) / 255  # [B, 3]
        if key is not None:
            colours = colours * jax.random.bernoulli(key, 0.5, colours.shape)
        logits = colours @ variables.params["kernel"]
        old = variables.batch_stats["mean"]
        return Outputs(logits, {"mean": 0.9 * old + 0.1 * logits.mean(0)}, colours)


def some_batch(size: int = 12) -> dict[str, np.ndarray]:
    """Known and padded rows, and -1 entries, differ from part to part."""
    rng = np.random.default_rng(0)
    target = rng.integers(0, 2, (size, 5)).astype(np.float32)
    target[[0, 3, 3, 4], [1, 0, 2, 4]] = -1
    mask = np.ones(size, bool)
    mask[[1, 4, 7]] = False
    images = rng.integers(0, 256, (size, 4, 4, 3)).astype(np.float32)
    return {"image": images, "target": target, "mask": mask}


def begin(*, ema: bool = False) -> TrainState:
    kernel = np.random.default_rng(1).normal(size=(3, 5)).astype(np.float32)
    variables = Variables({"kernel": jnp.asarray(kernel)}, {"mean": jnp.zeros(5)})
    return init_state(variables, optimizer=OPTIMIZER, ema=ema)


OPTIMIZER = optax.sgd(RATE, momentum=0.9)
MAKE = partial(
    TrainStep,
    Colours(),
    optimizer=OPTIMIZER,
    schedule=optax.constant_schedule(RATE),
    options=Train(ema_decay=0.9, ema_warmup=False),
    seed=5,
)


@cache  # one compilation for each
def step_of(loss: str = "multilabel", *, sam_radius=0.0, dropout=False, **train):
    options = replace(MAKE.keywords["options"], **train)
    return jax.jit(
        MAKE(loss=make_loss(LOSSES[loss]), options=options, sam_radius=sam_radius, dropout=dropout)
    )


def kernel(state: TrainState) -> np.ndarray:
    return np.asarray(state.params["kernel"])
