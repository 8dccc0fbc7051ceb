"""Our training step for benchmarks, as `training/run.py` makes it, with random images."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks.timing import CLASSES
from mlcls_jax import config as schema
from mlcls_jax import parallel
from mlcls_jax.models import Network
from mlcls_jax.training.cadence import Plan
from mlcls_jax.training.loss import make_loss
from mlcls_jax.training.run import first_variables, optimizer_and_step
from mlcls_jax.training.state import TrainState, init_state
from mlcls_jax.training.step import compile_step

PRESENT = 0.04  # share of labels that an image has, about as in COCO


class Case(NamedTuple):
    """What is trained."""

    model: str
    batch: int
    size: int  # side of the images
    dtype: str  # of the computation


class Step(NamedTuple):
    """Our step, compiled, with what it begins from."""

    compiled: Callable[..., Any]
    state: TrainState
    batch: dict[str, jax.Array]
    seconds: float  # of tracing and compiling


def make_batch(case: Case) -> dict[str, np.ndarray]:
    """Random images uint8 [B, H, W, 3] and targets [B, K], as the pipeline hands them on."""
    rng = np.random.default_rng(0)
    return {
        "image": rng.integers(0, 256, (case.batch, case.size, case.size, 3), np.uint8),
        "target": (rng.random((case.batch, CLASSES)) < PRESENT).astype(np.float32),
        "mask": np.ones(case.batch, np.bool_),
        "index": np.arange(case.batch, dtype=np.int32),
    }


def make_step(case: Case, *, whole: bool = False) -> Step:
    """Our step as `training/run.py` makes it, for the defaults of its configuration.

    With `whole`, it is one program on every device, and can be asked for its text.
    """
    model = schema.Model(
        name=case.model,
        num_classes=CLASSES,
        image_size=(case.size, case.size),
        dtype=case.dtype,
    )
    config = schema.Config(model=model)
    network, mesh = Network.of(model), parallel.make_mesh(devices=jax.devices()[:1])
    plan = Plan.of(config.train, epoch_size=80_000)
    loss = make_loss(config.loss)
    optimizer, step = optimizer_and_step(config, network, plan, loss, None, mesh)

    def begin(variables: Any) -> TrainState:
        return init_state(variables, optimizer=optimizer, ema=True)

    placement = parallel.shardings(
        jax.eval_shape(begin, network.abstract), mesh, network.tensor_axes
    )
    variables = first_variables(network, None, config.seed, mesh)
    state = jax.jit(begin, out_shardings=placement)(variables)
    batch = jax.device_put(make_batch(case), parallel.batch_sharding(mesh))
    began = time.perf_counter()
    if whole or not parallel.is_one_cpu(mesh):
        compiled = parallel.jit_step(step, mesh, placement).lower(state, batch).compile()
        return Step(compiled, state, batch, time.perf_counter() - began)
    compiled, seconds = compile_step(step, mesh, placement), []
    for _ in range(2):  # the first step compiles
        began = time.perf_counter()
        state, _ = jax.block_until_ready(compiled(state, batch))
        seconds.append(time.perf_counter() - began)
    return Step(compiled, state, batch, seconds[0] - seconds[1])
