"""The compiler's numbers for a training step.

Run as a program, since the number of virtual devices is fixed when JAX starts.

Nothing is allocated: the step is lowered and compiled for shapes alone.
"""

import dataclasses
import json
import math
import os
import re
import subprocess
import sys
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mlcls_jax import config as schema
from mlcls_jax import parallel
from mlcls_jax.models import Network
from mlcls_jax.planning.costs import Layout, optimizer_and_state
from mlcls_jax.training.step import TrainStep, make_loss


class Collective(NamedTuple):
    """One exchange in a compiled program."""

    kind: str  # all-reduce, all-gather, reduce-scatter, all-to-all, collective-permute
    sent: float  # bytes that a device sends if it runs as a ring
    devices: int  # that take part together


class Report(NamedTuple):
    """Numbers of the program of one device."""

    flops: float
    bytes_accessed: float
    argument_bytes: int  # state and batch
    temporary_bytes: int
    collectives: list[Collective]


def compile_step(model: schema.Model, layout: Layout, batch: int) -> Report:
    """Compile the training step for virtual CPU devices, in a process of its own.

    Args:
      model: with `num_classes`.
      layout: at most a handful of devices; more take long.
      batch: images over all devices.

    Raises:
      RuntimeError: the other process failed; holds what it said.
    """
    request = json.dumps([dataclasses.asdict(model), layout, batch])
    count = math.prod(layout)
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={count}",
    }
    done = subprocess.run(
        [sys.executable, "-m", __name__, request], env=environment, capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"the step could not be compiled:\n{done.stderr}")
    *numbers, collectives = json.loads(done.stdout.splitlines()[-1])
    return Report(*numbers, [Collective(*one) for one in collectives])


def report(model: schema.Model, layout: Layout, batch: int) -> Report:
    """`compile_step` in this process, whose devices must be as many as the layout's."""
    config = schema.Config(model=model)
    mesh = parallel.make_mesh(schema.Parallel(**layout._asdict()))
    network = Network.of(model).on(mesh.devices.flat)
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
    compiled = jitted.lower(parallel.placed(state, places), images).compile()
    cost, memory = compiled.cost_analysis(), compiled.memory_analysis()
    return Report(
        flops=cost["flops"],
        bytes_accessed=cost["bytes accessed"],
        argument_bytes=memory.argument_size_in_bytes,
        temporary_bytes=memory.temp_size_in_bytes,
        collectives=find_collectives(compiled.as_text()),
    )


KINDS = "all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute"
LINE = re.compile(rf" = (.*?) ({KINDS})(?:-start)?\((.*)")
SHAPE = re.compile(r"\b(pred|[suf]\d+|bf16)\[([\d,]*)\]")
# Who takes part is told in one of three ways: {{0,1},{2,3}}, [2,2]<=[4], or, by axes of a mesh that
# the compiler makes, mesh['a'=2,'b'=2] {'b'}, where 'b':(1)2 would be a part of an axis.
LISTED = re.compile(r"replica_groups=\{\{([\d,]*)\}")
IOTA = re.compile(r"replica_groups=\[\d+,(\d+)\]")
AXES = re.compile(r"replica_groups=mesh\[(.*?)\] \{(.*?)\}")


def find_collectives(text: str) -> list[Collective]:
    """The exchanges in the text of a compiled program (HLO), with ring-sized traffic."""
    found = []
    for line in text.splitlines():
        if match := LINE.search(line):
            result, kind, rest = match.groups()
            size = sum(_bytes(*shape) for shape in SHAPE.findall(result))
            devices = _devices(rest)
            others = (devices - 1) / devices
            sent = {
                "all-reduce": 2 * size * others,
                "reduce-scatter": size * (devices - 1),  # the result is a part
                "collective-permute": float(size),
            }.get(kind, size * others)
            found.append(Collective(kind, sent, devices))
    return found


def _devices(line: str) -> int:
    """Return the number of devices per group."""
    if listed := LISTED.search(line):
        return listed[1].count(",") + 1
    if iota := IOTA.search(line):
        return int(iota[1])
    if axes := AXES.search(line):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", axes[1]))
        parts = re.findall(r"'(\w+)'(?::\(\d+\)(\d+))?", axes[2])
        return math.prod(int(part or sizes[axis]) for axis, part in parts)
    return 2  # a permutation: from one to another


def _bytes(dtype: str, shape: str) -> int:
    bits = 8 if dtype == "pred" else int(dtype.lstrip("sufb"))
    return bits // 8 * math.prod(int(side) for side in shape.split(",") if side)


if __name__ == "__main__":
    _model, _layout, _batch = json.loads(sys.argv[1])
    sys.stdout.write(json.dumps(report(schema.Model(**_model), Layout(*_layout), _batch)) + "\n")
