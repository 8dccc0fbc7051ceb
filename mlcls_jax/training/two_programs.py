"""A training step for a single CPU: two programs, compiled side by side."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from mlcls_jax import parallel
from mlcls_jax.data.types import Batch
from mlcls_jax.models.network import Variables
from mlcls_jax.training.state import TrainState
from mlcls_jax.training.step import Gradient, TrainStep


class Halves:
    """What `parallel.jit_step` makes of a step, but ready in less time.

    XLA's passes over a program, and Python's tracing before them, use one core; only the kernels
    are compiled on all of them. So one half's kernels are compiled while the other is traced and
    passed through. Running two programs takes as long as running one; on an accelerator every
    program costs a launch.
    """

    def __init__(self, step: TrainStep, mesh: Mesh, placement: Any) -> None:
        outputs = placement, parallel.replicated(mesh)
        self._gradient = jax.jit(step.gradient)
        self._update = jax.jit(step.update, out_shardings=outputs, donate_argnums=0)
        self._compiled: tuple[jax.stages.Compiled, jax.stages.Compiled] | None = None

    def __call__(
        self, state: TrainState, batch: Batch, teacher: Variables | None = None
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        """One step; the first one compiles."""
        if self._compiled is None:
            self.compile(state, batch, teacher)
        gradient, update = self._compiled
        return update(state, gradient(state, batch, teacher))

    def compile(self, state: TrainState, batch: Batch, teacher: Variables | None = None) -> None:
        """Compile for arguments of these shapes."""
        loss = jax.ShapeDtypeStruct((), jnp.float32)
        found = Gradient(loss, state.params, state.batch_stats)
        with ThreadPoolExecutor(max_workers=1) as beside:
            update = beside.submit(self._update.lower(state, found).compile)
            gradient = self._gradient.lower(state, batch, teacher).compile()
            self._compiled = gradient, update.result()
