"""AdamW, SGD and Lion: schedules, decay mask, frozen parameters, learning-rate multipliers."""

import math
import re
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import optax

from mlcls_jax.config import Optimizer
from mlcls_jax.errors import ConfigError
from mlcls_jax.models.network import Network
from mlcls_jax.training.cadence import Plan
from mlcls_jax.trees import by_path, map_by_path

_Rate = Callable[[jax.Array], jax.Array]  # of the steps done, a float scalar


def scaled_rate(config: Optimizer, batch_size: int) -> Optimizer:
    """Return the options with the peak `learning_rate` that `rate_scaling` gives this batch size.

    "linear": in proportion to batch_size / base_batch_size (Goyal et al., 2017); "sqrt": to its
    root, as suits Adam (Malladi et al., 2022). The rates that warm-up begins with and the schedule
    ends at stay as they are.
    """
    growth = batch_size / config.base_batch_size
    factor = {"none": 1.0, "linear": growth, "sqrt": math.sqrt(growth)}[config.rate_scaling]
    return replace(config, learning_rate=config.learning_rate * factor)


def make_schedule(config: Optimizer, plan: Plan) -> optax.Schedule:
    """Return the learning rate of each step, from 0, as PaddleClas computes it.

    Every schedule but onecycle begins with `warmup_epochs` of linear warm-up.
    """
    rate = SCHEDULES[config.schedule](config, plan)
    unit = plan.steps_per_epoch if config.by_epoch else 1
    return lambda step: rate(jnp.asarray(jnp.asarray(step) // unit * unit, jnp.result_type(float)))


def make_optimizer(
    config: Optimizer, schedule: optax.Schedule, network: Network
) -> optax.GradientTransformation:
    """Return the optimizer `config.name` for `network.trained` of the parameters.

    Vectors and numbers are not decayed. Rates are scaled by `lr_multipliers` and, once per block
    between a parameter and the head, by `layer_decay` (Bao et al., 2021); where both apply, by the
    product.

    Raises:
      ConfigError: a pattern of `lr_multipliers` matches no parameter.
    """
    multipliers = _multipliers(config, network)
    decay = optax.add_decayed_weights(config.weight_decay, mask=_decayed)
    adam = optax.scale_by_adam(config.beta1, config.beta2, config.epsilon)
    steps = {
        "adamw": (adam, decay),  # decay beside the gradient
        "momentum": (decay, optax.trace(config.momentum)),  # L2 as part of it
        "lion": (optax.scale_by_lion(config.beta1, config.beta2), decay),  # Chen et al., 2023
    }
    trained = optax.chain(
        optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity(),
        *steps[config.name],
        optax.scale_by_learning_rate(schedule),
        optax.stateless(lambda updates, _: _scale(updates, multipliers)),
    )
    return optax.partition(
        {"trained": trained, "frozen": optax.set_to_zero()},
        map_by_path(
            lambda path, _: "frozen" if path in network.frozen else "trained",
            network.trained(network.abstract.params),
        ),
    )


def _falling(config: Optimizer, plan: Plan) -> _Rate:
    """Cosine or linear, from the end of warm-up to the end of the run."""
    first, last = config.learning_rate, config.end_learning_rate
    return _after_warmup(
        config, plan, lambda step, length: _anneal(first, last, step / length, config.schedule)
    )


def _constant(config: Optimizer, plan: Plan) -> _Rate:
    return _after_warmup(config, plan, lambda *_: config.learning_rate)


def _step(config: Optimizer, plan: Plan) -> _Rate:
    """`decay_epochs` count from the end of warm-up, as in the original."""
    ends = jnp.array([epoch * plan.steps_per_epoch for epoch in config.decay_epochs])

    def after(step: jax.Array, _: int) -> jax.Array:
        return config.learning_rate * config.decay_factor ** (step >= ends).sum()

    return _after_warmup(config, plan, after)


def _onecycle(config: Optimizer, plan: Plan) -> _Rate:
    first = config.learning_rate / config.divide_factor
    # Where phases end is not a whole number of steps, as in Paddle.
    ends = [config.peak_fraction * plan.total_steps - 1, plan.total_steps - 1]
    rates = [first, config.learning_rate, config.end_learning_rate]
    if config.three_phase:
        ends.insert(1, 2 * config.peak_fraction * plan.total_steps - 2)
        rates.insert(2, first)

    def schedule(step: jax.Array) -> jax.Array:
        rate, start = jnp.asarray(rates[0], jnp.result_type(float)), 0.0
        for end, (low, high) in zip(ends, pairwise(rates), strict=True):
            fraction = jnp.clip((step - start) / max(end - start, 1e-9), 0.0, 1.0)
            rate = jnp.where(step > start, _anneal(low, high, fraction, config.anneal), rate)
            start = end
        return rate

    return schedule


SCHEDULES = {
    "cosine": _falling,
    "linear": _falling,
    "step": _step,
    "onecycle": _onecycle,
    "constant": _constant,
}


def _after_warmup(
    config: Optimizer, plan: Plan, rate: Callable[[jax.Array, int], jax.Array | float]
) -> _Rate:
    """Warm-up, then `rate(steps since, steps in all)`."""
    # Never longer than the run: the original clips in the same way.
    warmup = min(round(config.warmup_epochs * plan.steps_per_epoch), plan.total_steps)
    length = max(1, plan.total_steps - warmup)
    start, peak = config.warmup_start, config.learning_rate

    def schedule(step: jax.Array) -> jax.Array:
        rising = start + (peak - start) * step / max(1, warmup)
        return jnp.where(step < warmup, rising, rate(step - warmup, length))

    return schedule


def _anneal(start: float, end: float, fraction: jax.Array, shape: str) -> jax.Array:
    if shape == "linear":
        return start + (end - start) * fraction
    return end + (start - end) / 2 * (1 + jnp.cos(jnp.pi * fraction))


def _decayed(params: Any) -> Any:
    return jax.tree.map(lambda p: p.ndim > 1, params)


def _multipliers(config: Optimizer, network: Network) -> dict[str, float]:
    """Return the factor by path, for the trained parameters whose factor is not 1."""
    paths = list(by_path(network.abstract.params))
    rules = _rules(config.lr_multipliers, paths)
    found = {
        path: next((f for p, f in rules if p.search(path)), 1.0)
        * config.layer_decay ** network.depths.get(path, 0)
        for path in paths
    }
    return {path: f for path, f in found.items() if f != 1.0 and path not in network.frozen}


def _rules(texts: tuple[str, ...], paths: list[str]) -> list[tuple[re.Pattern[str], float]]:
    rules = [(re.compile(p), float(f)) for p, _, f in (t.rpartition("=") for t in texts)]
    for pattern, _ in rules:
        if not any(pattern.search(path) for path in paths):
            raise ConfigError(
                f"optimizer.lr_multipliers: {pattern.pattern!r} matches no parameter",
                f"Paths look like {paths[0]}.",
            )
    return rules


def _scale(updates: Any, multipliers: dict[str, float]) -> Any:
    if not multipliers:
        return updates
    # Frozen parameters are no leaves here: they appear as optax.MaskedNode.
    return map_by_path(lambda path, u: u * multipliers[path] if path in multipliers else u, updates)
