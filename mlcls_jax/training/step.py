"""The training step: a pure function (state, batch) → (state, numbers)."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from mlcls_jax import config as schema
from mlcls_jax.data.types import Batch
from mlcls_jax.errors import ConfigError
from mlcls_jax.losses import LOSSES
from mlcls_jax.models.network import Network, Variables
from mlcls_jax.training.mixing import Mix
from mlcls_jax.training.state import TrainState

LossFunction = Callable[..., Float[Array, ""]]
TrainStep = Callable[[TrainState, Batch], tuple[TrainState, dict[str, Array]]]


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
) -> TrainStep:
    """The step; the caller jits it with donation and shardings."""

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, Array]]:
        step_key = jax.random.fold_in(jax.random.key(seed), state.step)
        key = step_key if dropout else None
        if mix is not None:
            batch = mix(batch, step_key)

        def objective(params: dict) -> tuple[Array, dict]:
            variables = Variables(params, state.batch_stats)
            logits, stats = network.apply(variables, batch["image"], train=True, key=key)
            return loss(logits, batch["target"], mask=batch["mask"]), stats

        (value, stats), grads = jax.value_and_grad(objective, has_aux=True)(state.params)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        ema = state.ema
        if ema is not None:
            decay = _decay(state.step, ema_decay, warmup=ema_warmup)
            ema = _average(ema, Variables(params, stats), decay)
        numbers = {
            "loss": value,
            "learning_rate": schedule(state.step),
            "grad_norm": optax.tree.norm(grads),
        }
        return TrainState(state.step + 1, params, stats, opt_state, ema), numbers

    return train_step


def _decay(step: Array, decay: float, *, warmup: bool) -> Array | float:
    """With warm-up, short runs are not left with an average that is mostly the initial weights."""
    return jnp.minimum(decay, (1.0 + step) / (10.0 + step)) if warmup else decay


def _average(ema: Variables, new: Variables, decay: Array | float) -> Variables:
    return jax.tree.map(lambda e, n: decay * e + (1 - decay) * n, ema, new)
