"""AdamW with its schedule, decay mask, frozen parameters and learning-rate multipliers."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import traverse_util

from mlcls_jax.config import Optimizer
from mlcls_jax.errors import ConfigError
from mlcls_jax.training.plan import Plan


def make_schedule(config: Optimizer, plan: Plan) -> optax.Schedule:
    """Learning rate of each step, from 0; as in PaddleClas, stepped every iteration."""
    return {"cosine": _cosine, "onecycle": _onecycle, "constant": _constant}[config.schedule](
        config, plan
    )


def make_optimizer(
    config: Optimizer, schedule: optax.Schedule, params: Any, frozen: frozenset[str]
) -> optax.GradientTransformation:
    """AdamW for everything but the `frozen` paths; parameters of rank one are not decayed.

    Raises:
      ConfigError: a pattern of `lr_multipliers` matches no parameter.
    """
    multipliers = _multipliers(config.lr_multipliers, params, frozen)
    adamw = optax.chain(
        optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity(),
        optax.scale_by_adam(config.beta1, config.beta2, config.epsilon),
        optax.add_decayed_weights(config.weight_decay, mask=_decayed),
        optax.scale_by_learning_rate(schedule),
        optax.stateless(lambda updates, _: _scale(updates, multipliers)),
    )
    return optax.partition(
        {"trained": adamw, "frozen": optax.set_to_zero()},
        _by_path(params, lambda path: "frozen" if path in frozen else "trained"),
    )


def _cosine(config: Optimizer, plan: Plan) -> optax.Schedule:
    low, peak = config.end_learning_rate, config.learning_rate
    warmup = _warmup_steps(config, plan)
    length = max(1, plan.total_steps - warmup)

    def schedule(step: jax.Array) -> jax.Array:
        cosine = low + (peak - low) * (1 + jnp.cos(jnp.pi * (step - warmup) / length)) / 2
        return jnp.where(step < warmup, _rise(config, step, warmup), cosine)

    return schedule


def _constant(config: Optimizer, plan: Plan) -> optax.Schedule:
    warmup = _warmup_steps(config, plan)
    return lambda step: jnp.where(step < warmup, _rise(config, step, warmup), config.learning_rate)


def _onecycle(config: Optimizer, plan: Plan) -> optax.Schedule:
    low, peak = config.end_learning_rate, config.learning_rate
    first = peak / config.divide_factor
    turn = max(
        config.peak_fraction * plan.total_steps - 1, 1e-9
    )  # not a whole number, as in Paddle
    end = max(plan.total_steps - 1, turn + 1e-9)

    def schedule(step: jax.Array) -> jax.Array:
        up = _anneal(first, peak, step / turn)
        return jnp.where(step <= turn, up, _anneal(peak, low, (step - turn) / (end - turn)))

    return schedule


def _anneal(start: float, end: float, fraction: jax.Array) -> jax.Array:
    return end + (start - end) / 2 * (1 + jnp.cos(jnp.pi * fraction))


def _rise(config: Optimizer, step: jax.Array, warmup: int) -> jax.Array:
    start = config.warmup_start
    return start + (config.learning_rate - start) * step / max(1, warmup)


def _warmup_steps(config: Optimizer, plan: Plan) -> int:
    """Never longer than the run: the original clips in the same way."""
    return min(round(config.warmup_epochs * plan.steps_per_epoch), plan.total_steps)


def _decayed(params: Any) -> Any:
    return jax.tree.map(lambda p: p.ndim > 1, params)


def _multipliers(texts: tuple[str, ...], params: Any, frozen: frozenset[str]) -> dict[str, float]:
    """Factor by path, for the trained parameters whose factor is not 1."""
    rules = [(re.compile(p), float(f)) for p, _, f in (t.rpartition("=") for t in texts)]
    paths = traverse_util.flatten_dict(params, sep="/")
    for pattern, _ in rules:
        if not any(pattern.search(path) for path in paths):
            raise ConfigError(
                f"optimizer.lr_multipliers: {pattern.pattern!r} matches no parameter",
                f"Paths look like {next(iter(paths))}.",
            )
    found = {path: next((f for p, f in rules if p.search(path)), 1.0) for path in paths}
    return {path: f for path, f in found.items() if f != 1.0 and path not in frozen}


def _scale(updates: Any, multipliers: dict[str, float]) -> Any:
    if not multipliers:
        return updates
    flat = traverse_util.flatten_dict(updates, sep="/")
    # Frozen parameters have no multiplier: here they appear as optax.MaskedNode.
    scaled = {path: u * multipliers[path] if path in multipliers else u for path, u in flat.items()}
    return traverse_util.unflatten_dict(scaled, sep="/")


def _by_path(params: Any, choose: Any) -> Any:
    paths = traverse_util.flatten_dict(params, sep="/")
    return traverse_util.unflatten_dict({path: choose(path) for path in paths}, sep="/")
