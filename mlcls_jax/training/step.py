"""The training step: a pure function (state, batch, teacher) → (state, numbers)."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Float

from mlcls_jax import config as schema
from mlcls_jax import parallel
from mlcls_jax.models.network import Network, Variables
from mlcls_jax.training import parts
from mlcls_jax.training.distill import Distillation
from mlcls_jax.training.loss import LossFunction
from mlcls_jax.training.mixing import DeviceBatch, Mix
from mlcls_jax.training.state import TrainState

# (trained parameters, batch statistics, images, key) → predictions, batch statistics afterwards.
# Predictions are the logits [B, K]; with a teacher, what it is compared by.
Forward = Callable[[dict, dict, Array, Array | None], tuple[Any, dict]]
Objective = Callable[[Any], Float[Array, ""]]  # of the predictions for the whole batch


class Gradient(NamedTuple):
    """The gradient of a batch, and the by-products of its forward pass."""

    loss: Float[Array, ""]
    grads: dict[str, Any]  # as the trained parameters
    stats: dict[str, Any]  # batch statistics afterwards


@dataclass(frozen=True, eq=False)  # JAX keys what it traces by identity
class TrainStep:
    """The step (state, batch, teacher=None) → (state, numbers), not compiled yet.

    The numbers are scalars on the device: `loss` and `grad_norm` before clipping, the
    `learning_rate`, and `finite`, whether both of the former are.

    Attributes:
      network: the model to train, in the form for its devices; see `Network.on`.
      loss: of logits, targets and mask; no row's loss may depend on another row's logits.
      optimizer: turns gradients into updates.
      schedule: the learning rate of each step, for the numbers.
      options: `ema_decay` and `ema_warmup` of the average, where the state has one; `accumulate`,
        `remat` and `norm_groups`; `nonfinite`: with "skip" and "rollback", a step whose loss or
        gradient is not finite changes nothing but the count of steps. The optimizer counts its own
        steps, so its schedule then lags behind. With "rollback" all updates are scaled by the
        state's `rate_scale`.
      seed: of mixing and dropout, together with the step.
      mix: applied to the batch first.
      sam_radius: how far uphill the gradient is taken (Foret et al., 2021), in a second pass with
        the same dropout; loss and batch statistics are those of the first. 0: none.
      distill: adds a teacher to the loss; its `Variables` are then the step's third argument.
      gather: makes sharded parameters whole, before a pass uses them.
      dropout: whether there is any.
    """

    network: Network
    loss: LossFunction
    optimizer: optax.GradientTransformation
    schedule: optax.Schedule
    options: schema.Train
    seed: int
    mix: Mix | None = None
    sam_radius: float = 0.0
    distill: Distillation | None = None
    gather: Callable[[dict], dict] = lambda params: params
    dropout: bool = True

    __name__ = "train_step"  # the name in profiles

    def __call__(
        self, state: TrainState, batch: DeviceBatch, teacher: Variables | None = None
    ) -> tuple[TrainState, dict[str, Array]]:
        return self.update(state, self.gradient(state, batch, teacher))

    def gradient(
        self, state: TrainState, batch: DeviceBatch, teacher: Variables | None = None
    ) -> Gradient:
        """Return the gradient at the state's parameters."""
        key = jax.random.fold_in(jax.random.key(self.seed), state.step)
        if self.mix is not None:
            batch = self.mix(batch, key)
        images, mask, count = batch["image"], batch["mask"], self.options.accumulate
        objective = partial(self.loss, targets=batch["target"], mask=mask)
        if self.distill is not None:
            assert teacher is not None
            objective = self.distill.objective(objective, teacher, images, mask, count)
        inputs = state.batch_stats, jnp.asarray(images), key if self.dropout else None
        forward, params = partial(self._forward, state.params), self.network.trained(state.params)
        passes: list[Gradient] = []
        for _ in range(2 if self.sam_radius else 1):
            if passes:
                params = _uphill(params, passes[0].grads, self.sam_radius)
            if count > 1:
                passes.append(_accumulated_gradient(count, forward, objective, params, *inputs))
                continue
            predictions, backward, stats = jax.vjp(
                lambda params: forward(params, *inputs), params, has_aux=True
            )
            loss, cotangents = jax.value_and_grad(objective)(predictions)
            (grads,) = backward(cotangents)
            passes.append(Gradient(loss, grads, stats))
        return passes[0]._replace(grads=passes[-1].grads)

    def _forward(
        self, all_params: dict, params: dict, stats: dict, images: Array, key: Array | None
    ) -> tuple[Any, dict]:
        options, network = self.options, self.network
        if options.remat or options.norm_groups > 1:
            network = replace(network, remat=options.remat, norm_groups=options.norm_groups)
        variables = Variables(self.gather(all_params | params), stats)
        outputs = network.apply(variables, images, train=True, key=key)
        predictions = outputs.logits if self.distill is None else self.distill.compared(outputs)
        return predictions, outputs.batch_stats

    def update(self, state: TrainState, found: Gradient) -> tuple[TrainState, dict[str, Array]]:
        """Return the state after the step, and its numbers."""
        loss, grads, stats = found
        trained = self.network.trained(state.params)
        updates, opt_state = self.optimizer.update(grads, state.opt_state, trained)
        rate = self.schedule(state.step)
        if self.options.nonfinite == "rollback":
            rate = rate * state.rate_scale
            updates = jax.tree.map(lambda u: u * state.rate_scale, updates)
        params: Any = state.params | cast(dict, optax.apply_updates(trained, updates))
        ema = state.ema
        if ema is not None:
            decay = _decay(state.step, self.options.ema_decay, warmup=self.options.ema_warmup)
            ema = self._average(ema, Variables(params, stats), decay)
        norm = self.network.kernels.norm(grads)
        finite = jnp.isfinite(loss) & jnp.isfinite(norm)
        new = TrainState(state.step + 1, params, stats, opt_state, ema, state.rate_scale)
        if self.options.nonfinite != "stop":
            kept = jax.tree.map(partial(jnp.where, finite), new, state)
            new = replace(kept, step=new.step)
        numbers = {"loss": loss, "learning_rate": rate, "grad_norm": norm, "finite": finite}
        return new, numbers

    def _average(self, ema: Variables, new: Variables, decay: Array | float) -> Variables:
        rest = 1 - decay  # not once per array: each operation takes time to trace

        def average(old: dict, new: dict) -> dict:
            # What is not trained would drift by rounding.
            pair = self.network.trained(old), self.network.trained(new)
            return old | jax.tree.map(lambda e, n: decay * e + rest * n, *pair)

        return Variables(*map(average, ema, new))


# (state, batch, teacher=None) → (state, numbers)
CompiledStep = Callable[..., tuple[TrainState, dict[str, Array]]]


def compile_step(step: TrainStep, mesh: Mesh, shardings: TrainState) -> CompiledStep:
    """Return the step as a function that compiles on its first call and donates its state.

    `shardings` are those of the state, before and after.
    """
    if parallel.is_one_cpu(mesh):
        return TwoPrograms(step, mesh, shardings)
    return parallel.jit_step(step, mesh, shardings)


class TwoPrograms:
    """`parallel.jit_step` of a step, but ready in less time on a single CPU.

    XLA's passes over a program, and Python's tracing before them, use one core; only the kernels
    are compiled on all of them. So one half's kernels are compiled while the other is traced and
    passed through. Running two programs takes as long as running one; on an accelerator every
    program costs a launch.
    """

    def __init__(self, step: TrainStep, mesh: Mesh, shardings: TrainState) -> None:
        outputs = shardings, parallel.replicated(mesh)
        self._trained = step.network.trained
        self._gradient = jax.jit(step.gradient)
        self._update = jax.jit(step.update, out_shardings=outputs, donate_argnums=0)
        self._gradients: dict[tuple[int, ...], jax.stages.Compiled] = {}  # by shape of the images
        self._compiled_update: jax.stages.Compiled | None = None

    def __call__(
        self, state: TrainState, batch: DeviceBatch, teacher: Variables | None = None
    ) -> tuple[TrainState, dict[str, Array]]:
        """Take one step; the first one of every size of images compiles."""
        shape = batch["image"].shape
        if self._compiled_update is None:
            loss: Any = jax.ShapeDtypeStruct((), jnp.float32)
            found = Gradient(loss, self._trained(state.params), state.batch_stats)
            with ThreadPoolExecutor(max_workers=1) as beside:
                update = beside.submit(self._update.lower(state, found).compile)
                self._gradients[shape] = self._gradient.lower(state, batch, teacher).compile()
                self._compiled_update = update.result()
        if shape not in self._gradients:
            self._gradients[shape] = self._gradient.lower(state, batch, teacher).compile()
        return self._compiled_update(state, self._gradients[shape](state, batch, teacher))


def _accumulated_gradient(
    count: int,
    forward: Forward,
    objective: Objective,
    params: dict,
    stats: dict,
    images: Array,
    key: Array | None,
) -> Gradient:
    """Return the gradient from `count` parts one after the other, with the memory of one part.

    Each part's gradient is that of the whole batch's loss with the other parts' predictions held
    constant: as no row's loss depends on another row's predictions, their sum is the undivided
    gradient, whatever the loss divides by. Of `similarity_loss`, which compares rows, only pairs
    within a part are learnt from. Each part has its own dropout, is normalised by its own batch
    statistics, and updates the running ones in turn.
    """

    def add_part(carry: tuple, numbered: tuple) -> tuple[tuple, Any]:
        (stats, total), (number, images) = carry, numbered
        part_key = None if key is None else jax.random.fold_in(key, number)
        predictions, backward, stats = jax.vjp(
            lambda params: forward(params, stats, images, part_key), params, has_aux=True
        )
        of_part = jax.grad(lambda part: objective(parts.place(part, number, count)))
        (grads,) = backward(of_part(predictions))
        return (stats, jax.tree.map(jnp.add, total, grads)), predictions

    start = (stats, jax.tree.map(jnp.zeros_like, params))
    numbered = jnp.arange(count), parts.split(images, count)
    (stats, grads), predictions = jax.lax.scan(add_part, start, numbered)
    return Gradient(objective(parts.join(predictions)), grads, stats)


def _uphill(params: dict, grads: dict, radius: float) -> dict:
    """Return the parameters `radius` away in the direction of the gradient."""
    step = radius / jnp.maximum(optax.tree.norm(grads), 1e-12)
    return jax.tree.map(lambda p, g: p + step * g, params, grads)


def _decay(step: Array, decay: float, *, warmup: bool) -> Array | float:
    """With warm-up, short runs are not left with an average that is mostly the initial weights."""
    return jnp.minimum(decay, (1.0 + step) / (10.0 + step)) if warmup else decay
