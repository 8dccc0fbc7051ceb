"""Everything that training changes, as one pytree of plain dicts."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from mlcls_jax.models.network import Variables


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["step", "params", "batch_stats", "opt_state", "ema", "rate_scale"],
    meta_fields=[],
)
@dataclass(frozen=True)
class TrainState:
    """The state of a run, saved and restored whole; data and randomness follow from `step`."""

    step: Int[Array, ""]  # steps done
    params: dict[str, Any]
    batch_stats: dict[str, Any]
    opt_state: optax.OptState
    ema: Variables | None  # average of parameters and batch statistics
    rate_scale: Float[Array, ""]  # of every update; below 1 after train.nonfinite=rollback

    @property
    def variables(self) -> Variables:
        return Variables(self.params, self.batch_stats)


def init_state(
    variables: Variables,
    *,
    optimizer: optax.GradientTransformation,
    ema: bool,
    trained: Callable[[dict], dict] = lambda params: params,
) -> TrainState:
    """Return the state before the first step; to be jitted.

    `trained` picks the parameters that the optimizer is for; see `Network.trained`.
    """
    # Copies, since the step donates its state: no two fields may share a buffer.
    copy = partial(jax.tree.map, jnp.copy)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=copy(variables.params),
        batch_stats=copy(variables.batch_stats),
        opt_state=optimizer.init(trained(variables.params)),
        ema=copy(variables) if ema else None,
        rate_scale=jnp.ones((), jnp.float32),
    )
