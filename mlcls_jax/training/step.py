"""The training step: a pure function (state, batch, teacher) → (state, numbers)."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from mlcls_jax import config as schema
from mlcls_jax.data.types import Batch
from mlcls_jax.errors import ConfigError
from mlcls_jax.losses import LOSSES
from mlcls_jax.models.network import Network, Variables
from mlcls_jax.training.distill import Distillation, Outputs, outputs_of
from mlcls_jax.training.mixing import Mix
from mlcls_jax.training.state import TrainState

LossFunction = Callable[..., Float[Array, ""]]

# (parameters, batch statistics, images, key) → outputs, batch statistics afterwards
Forward = Callable[[dict, dict, Array, Array | None], tuple[Outputs, dict]]
Objective = Callable[[Outputs], Float[Array, ""]]  # of the outputs of the whole batch


class Gradient(NamedTuple):
    """What a batch says about the parameters, and what it leaves behind."""

    loss: Float[Array, ""]
    grads: dict[str, Any]  # as the parameters
    stats: dict[str, Any]  # batch statistics afterwards


@dataclass(frozen=True)
class TrainStep:
    """(state, batch, teacher=None) → (state, numbers), of two halves; see `make_train_step`."""

    __name__ = "train_step"  # what profiles call it

    gradient: Callable[..., Gradient]  # of (state, batch, teacher=None)
    update: Callable[[TrainState, Gradient], tuple[TrainState, dict[str, Array]]]

    def __call__(
        self, state: TrainState, batch: Batch, teacher: Variables | None = None
    ) -> tuple[TrainState, dict[str, Array]]:
        return self.update(state, self.gradient(state, batch, teacher))


def make_loss(config: schema.Loss) -> LossFunction:
    """The loss (logits, targets, mask=) that `config` describes.

    Raises:
      ConfigError: there is no such loss.
    """
    options = {
        "asymmetric": {
            "gamma_pos": config.gamma_pos,
            "gamma_neg": config.gamma_neg,
            "clip": config.clip,
            "stop_focal_gradient": config.stop_focal_gradient,
            "reduction": config.reduction,
        },
        "multilabel": {"epsilon": config.label_smoothing, "size_sum": config.size_sum},
        "cross_entropy": {"epsilon": config.label_smoothing},
    }
    if config.name not in LOSSES:
        raise ConfigError(f"loss.name={config.name}: there are {', '.join(LOSSES)}")
    return partial(LOSSES[config.name], **options.get(config.name, {}))


def make_train_step(
    network: Network,
    loss: LossFunction,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    *,
    seed: int,
    ema_decay: float,
    ema_warmup: bool,
    dropout: bool = True,
    mix: Mix | None = None,
    accumulate: int = 1,
    remat: bool = False,
    nonfinite: Literal["stop", "skip", "rollback"] = "stop",
    sam_radius: float = 0.0,
    distill: Distillation | None = None,
    gather: Callable[[dict], dict] | None = None,
    norm: Callable[[dict], Float[Array, ""]] = optax.tree.norm,
) -> TrainStep:
    """The step (state, batch, teacher=None) → (state, numbers); the caller jits it with donation
    and shardings.

    Args:
      network: the model to train.
      loss: of logits, targets and mask; no row's loss may depend on another row's logits.
      optimizer: what turns gradients into updates.
      schedule: the learning rate of each step, for the numbers.
      seed: of mixing and dropout, together with the step.
      ema_decay: of the average, where the state has one.
      ema_warmup: let short runs average less.
      dropout: whether there is any.
      mix: what is done to the batch first.
      accumulate: parts that the batch is worked through in, one after the other; see
        `_gradient_in_parts`.
      remat: compute the backbone's blocks once more for the gradient rather than keep them.
      nonfinite: with "skip" and "rollback", a step whose loss or gradient is not finite changes
        nothing but the count of steps. As the optimizer counts its own steps, its schedule is
        then so many behind. With "rollback" all updates are scaled by the state's `rate_scale`.
      sam_radius: how far uphill the gradient is taken (Foret et al., 2021), in a second pass with
        the same dropout; loss and batch statistics are those of the first. 0: none.
      distill: what a teacher adds to the loss; its `Variables` are then the step's third argument.
      gather: what is done to parameters that are shared out, before a pass uses them.
      norm: of the gradient, for the numbers: `joined_norm` where there is but one CPU.

    The numbers are scalars on the device: `loss` and `grad_norm` before clipping, the
    `learning_rate`, and `finite`, whether both of the former are.
    """
    if remat:
        network = replace(network, remat=True)
    has_features = distill is not None and distill.features > 0

    def forward(params: dict, stats: dict, images: Array, key: Array | None) -> tuple:
        variables = Variables(params if gather is None else gather(params), stats)
        return outputs_of(network, variables, images, features=has_features, train=True, key=key)

    def teach(teacher: Variables | None, images: Array) -> Outputs | None:
        if distill is None:
            return None
        if accumulate == 1:
            return distill.teach(teacher, images)
        return _joined(jax.lax.map(partial(distill.teach, teacher), _parts(images, accumulate)))

    def objective(batch: Batch, taught: Outputs | None, outputs: Outputs) -> Array:
        value = loss(outputs.logits, batch["target"], mask=batch["mask"])
        return value if taught is None else distill.loss(value, outputs, taught, batch["mask"])

    def gradient(state: TrainState, batch: Batch, teacher: Variables | None = None) -> Gradient:
        step_key = jax.random.fold_in(jax.random.key(seed), state.step)
        key = step_key if dropout else None
        if mix is not None:
            batch = mix(batch, step_key)
        images = batch["image"]
        whole = partial(objective, batch, teach(teacher, images))

        def at(params: dict) -> Gradient:
            if accumulate == 1:
                return _gradient(forward, whole, params, state.batch_stats, images, key)
            parts = _parts(images, accumulate)
            return _gradient_in_parts(forward, whole, params, state.batch_stats, parts, key)

        found = at(state.params)
        if sam_radius:
            found = found._replace(grads=at(_uphill(state.params, found.grads, sam_radius)).grads)
        return found

    def update(state: TrainState, found: Gradient) -> tuple[TrainState, dict[str, Array]]:
        value, grads, stats = found
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        rate = schedule(state.step)
        if nonfinite == "rollback":
            rate = rate * state.rate_scale
            updates = jax.tree.map(lambda u: u * state.rate_scale, updates)
        params = optax.apply_updates(state.params, updates)
        ema = state.ema
        if ema is not None:
            decay = _decay(state.step, ema_decay, warmup=ema_warmup)
            ema = _average(ema, Variables(params, stats), decay)
        grad_norm = norm(grads)
        finite = jnp.isfinite(value) & jnp.isfinite(grad_norm)
        new = TrainState(state.step + 1, params, stats, opt_state, ema, state.rate_scale)
        if nonfinite != "stop":
            kept = jax.tree.map(partial(jnp.where, finite), new, state)
            new = replace(kept, step=new.step)
        numbers = {"loss": value, "learning_rate": rate, "grad_norm": grad_norm, "finite": finite}
        return new, numbers

    return TrainStep(gradient, update)


def joined_norm(grads: dict) -> Float[Array, ""]:
    """The norm of all arrays, laid one after the other: one sum, and not one of every shape.

    XLA compiles several kernels for each shape, an eighth of the time that a step takes to compile
    on a CPU. Arrays that devices share out would have to be moved for it.
    """
    return jnp.linalg.norm(jnp.concatenate([array.ravel() for array in jax.tree.leaves(grads)]))


def _gradient(
    forward: Forward,
    objective: Objective,
    params: dict,
    stats: dict,
    images: Array,
    key: Array | None,
) -> Gradient:
    """That of the whole batch at once."""

    def value(params: dict) -> tuple[Array, dict]:
        outputs, new = forward(params, stats, images, key)
        return objective(outputs), new

    (loss, stats), grads = jax.value_and_grad(value, has_aux=True)(params)
    return Gradient(loss, grads, stats)


def _gradient_in_parts(
    forward: Forward,
    objective: Objective,
    params: dict,
    stats: dict,
    parts: Array,
    key: Array | None,
) -> Gradient:
    """The same from images [n, B / n, H, W, 3], with the memory of one part.

    Each part's gradient is that of the whole batch's loss with the other parts' outputs held
    constant: as no row's loss depends on another row's outputs, their sum is the undivided
    gradient, whatever the loss divides by. Of `similarity_loss`, which compares rows, only pairs
    within a part are learnt from. Each part has its own dropout, is normalised by its own batch
    statistics, and updates the running ones in turn.
    """
    count = len(parts)

    def add_part(carry: tuple, numbered: tuple) -> tuple[tuple, Outputs]:
        (stats, total), (number, images) = carry, numbered
        part_key = None if key is None else jax.random.fold_in(key, number)

        def value(params: dict) -> tuple[Array, tuple]:
            outputs, new = forward(params, stats, images, part_key)
            return objective(_placed(outputs, number, count)), (outputs, new)

        grads, (outputs, stats) = jax.grad(value, has_aux=True)(params)
        return (stats, jax.tree.map(jnp.add, total, grads)), outputs

    start = (stats, jax.tree.map(jnp.zeros_like, params))
    (stats, grads), outputs = jax.lax.scan(add_part, start, (jnp.arange(count), parts))
    return Gradient(objective(_joined(outputs)), grads, stats)


def _parts(images: Array, count: int) -> Array:
    """[B, …] → [n, B / n, …]; a part is every n-th row, so that devices share out every part."""
    return jnp.moveaxis(images.reshape(-1, count, *images.shape[1:]), 1, 0)


def _joined(outputs: Any) -> Any:
    """The inverse of `_parts`, for each array."""
    return jax.tree.map(lambda a: jnp.moveaxis(a, 0, 1).reshape(-1, *a.shape[2:]), outputs)


def _placed(outputs: Any, number: Array, count: int) -> Any:
    """One part's outputs [B / n, …] at their rows of [B, …], among zeros."""
    here = (jnp.arange(count) == number)[:, None]  # [n, 1]
    return jax.tree.map(lambda a: jnp.where(here, a[:, None], 0).reshape(-1, *a.shape[1:]), outputs)


def _uphill(params: dict, grads: dict, radius: float) -> dict:
    """The parameters `radius` away in the direction of the gradient."""
    step = radius / jnp.maximum(optax.tree.norm(grads), 1e-12)
    return jax.tree.map(lambda p, g: p + step * g, params, grads)


def _decay(step: Array, decay: float, *, warmup: bool) -> Array | float:
    """With warm-up, short runs are not left with an average that is mostly the initial weights."""
    return jnp.minimum(decay, (1.0 + step) / (10.0 + step)) if warmup else decay


def _average(ema: Variables, new: Variables, decay: Array | float) -> Variables:
    rest = 1 - decay  # not once for every array: each operation takes time to trace
    return jax.tree.map(lambda e, n: decay * e + rest * n, ema, new)
