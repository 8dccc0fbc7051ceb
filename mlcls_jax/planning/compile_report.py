"""The compiler's numbers for a training step.

Run as a program, since the number of virtual devices and the compiler are fixed when JAX starts.

Nothing is allocated: the step is lowered and compiled for shapes alone.
"""

import dataclasses
import json
import math
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mlcls_jax import config as schema
from mlcls_jax import parallel
from mlcls_jax.models import Network
from mlcls_jax.planning import hlo, topologies
from mlcls_jax.planning.chips import CHIPS
from mlcls_jax.planning.costs import Layout, optimizer_and_state
from mlcls_jax.planning.hlo import Collective
from mlcls_jax.training.loss import make_loss
from mlcls_jax.training.step import TrainStep

TICK = 5.0  # seconds between signs of life


class Report(NamedTuple):
    """Numbers of the program of one device."""

    flops: float | None  # None where the compiler does not count
    bytes_accessed: float | None  # as well
    argument_bytes: int  # state and batch
    temporary_bytes: int
    peak_bytes: int  # with the program itself, which lies there too
    cycles: int | None  # the TPU compiler's estimate, without exchanges
    padding: float  # bytes of large arrays as they are laid out / their own
    state_arrays: int
    donated: int  # of them; their memory is that of the new state
    float64: int  # how often such an array is named
    callbacks: int  # how often the host is waited for
    collectives: list[Collective]


class Refusal(NamedTuple):
    """The compiler's words about a program that does not fit into the memory."""

    words: str


def compile_step(
    model: schema.Model,
    layout: Layout,
    batch: int,
    *,
    train: schema.Train | None = None,
    kind: str | None = None,
    tick: Callable[[], Any] = lambda: None,
    program: Path | None = None,
) -> Report | Refusal:
    """Compile the training step in a process of its own.

    Args:
      model: with `num_classes`.
      layout: of virtual CPUs at most a handful; more take long.
      batch: images over all devices.
      train: whether the step recomputes or accumulates; None: neither.
      kind: of the chips, by their own compiler, which must be installed; None: virtual CPUs.
      tick: called every few seconds meanwhile.
      program: where to write the compiled program.

    Raises:
      RuntimeError: the other process failed; holds what it said.
    """
    sections = [dataclasses.asdict(section) for section in (model, train or schema.Train())]
    request = json.dumps([*sections, layout, batch, kind, program and str(program)])
    with subprocess.Popen(
        [sys.executable, "-m", __name__, request, str(os.getpid())],
        env=_environment(kind, math.prod(layout)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            while True:
                try:
                    stdout, stderr = process.communicate(timeout=TICK)
                    break
                except subprocess.TimeoutExpired:
                    tick()
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        raise RuntimeError(f"the step could not be compiled:\n{stderr}")
    answer = json.loads(stdout.splitlines()[-1])
    if isinstance(answer, str):
        return Refusal(answer)
    *numbers, collectives = answer
    return Report._make([*numbers, [Collective(*one) for one in collectives]])


def _environment(kind: str | None, devices: int) -> dict[str, str]:
    """Return the variables of a process that compiles."""
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    if kind is None:
        flags = f"--xla_force_host_platform_device_count={devices}"
        return environment | {"XLA_FLAGS": flags}
    environment.pop("JAX_DISABLE_MOST_OPTIMIZATIONS", None)  # of tests
    # A program from the cache tells less, and cannot be loaded for chips that are not here.
    environment["JAX_ENABLE_COMPILATION_CACHE"] = "false"
    return environment | topologies.COMPILERS[CHIPS[kind].platform].environment


def report(
    model: schema.Model,
    layout: Layout,
    batch: int,
    *,
    train: schema.Train | None = None,
    devices: Sequence[Any] | None = None,
    program: str | None = None,
) -> Report | Refusal:
    """`compile_step` in this process, for its own devices, as many as the layout's, or for those.

    Returns:
      A refusal if the compiler finds that the program does not fit.
    """
    config = schema.Config(model=model, train=train or schema.Train())
    mesh = parallel.make_mesh(schema.Parallel(**layout._asdict()), devices=devices)
    network = Network.of(model).on(mesh.devices.flat, tensor=mesh.shape["tensor"])
    optimizer, state = optimizer_and_state(network)
    step = TrainStep(
        network,
        make_loss(config.loss),
        optimizer,
        lambda _: config.optimizer.learning_rate,
        config.train,
        seed=0,
        gather=parallel.gather_params(mesh, network.tensor_axes),
    )
    places = parallel.shardings(state, mesh, network.tensor_axes)
    by_image = parallel.batch_sharding(mesh)
    shapes = {
        "image": jax.ShapeDtypeStruct((batch, *model.image_size, 3), jnp.uint8),
        "target": jax.ShapeDtypeStruct((batch, model.num_classes), jnp.float32),
        "mask": jax.ShapeDtypeStruct((batch,), jnp.bool_),
        "index": jax.ShapeDtypeStruct((batch,), jnp.int32),
    }
    images = parallel.placed(shapes, dict.fromkeys(shapes, by_image))
    jitted = parallel.jit_step(step, mesh, places)
    lowered = jitted.lower(parallel.placed(state, places), images)
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return Refusal(str(error).partition("\n")[0])
    text = compiled.as_text()
    if program:
        Path(program).write_text(text, encoding="utf-8")
    return _numbers(compiled, text, state)


def _numbers(compiled: Any, text: str, state: Any) -> Report:
    memory = compiled.memory_analysis()
    cost = compiled.cost_analysis() or {}  # of CUDA there is none
    held = memory.argument_size_in_bytes + memory.temp_size_in_bytes
    return Report(
        flops=cost.get("flops"),
        bytes_accessed=cost.get("bytes accessed"),
        argument_bytes=memory.argument_size_in_bytes,
        temporary_bytes=memory.temp_size_in_bytes,
        peak_bytes=getattr(memory, "peak_memory_in_bytes", 0) or held,
        cycles=hlo.estimated_cycles(text),
        padding=hlo.padding(text),
        state_arrays=len(jax.tree.leaves(state)),
        donated=hlo.count_donated(text),
        float64=hlo.count_float64(text),
        callbacks=hlo.count_callbacks(text),
        collectives=hlo.find_collectives(text),
    )


def main(request: str) -> str:
    """Answer a request of `compile_step`: the numbers in JSON, or the compiler's refusal."""
    model, train, layout, batch, kind, program = json.loads(request)
    shape = Layout(*layout)
    chips = kind and math.prod(shape) // CHIPS[kind].devices
    devices = topologies.devices(kind, chips) if kind else None
    sections = schema.Model(**model), schema.Train(**train)
    found = report(sections[0], shape, batch, train=sections[1], devices=devices, program=program)
    return json.dumps(found.words if isinstance(found, Refusal) else found)


def _end_with(parent: int) -> None:
    """End this process once its parent has ended, even by a kill: nobody waits for the answer."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=_end_with, args=(int(sys.argv[2]),), daemon=True).start()
    sys.stdout.write(main(sys.argv[1]) + "\n")
