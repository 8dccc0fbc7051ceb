"""Devices and processes: the mesh, and what lies where on it. The only file that names its axes."""

import contextlib
import logging
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from mlcls_jax.config import Parallel
from mlcls_jax.errors import ConfigError
from mlcls_jax.lookahead import delayed
from mlcls_jax.trees import map_by_path

log = logging.getLogger(__name__)

Device: TypeAlias = jax.Device  # pyright: ignore[reportInvalidTypeForm] (jaxlib has no stubs)

AXES = ("data", "fsdp", "tensor")
BATCH_AXES = ("data", "fsdp")

# Bytes of gradients that GPUs sum at once, most of them during the backward pass. By default those
# of a small network all wait for the last one.
GPU_OPTIONS = {"xla_gpu_all_reduce_combine_threshold_bytes": 4_000_000}
# Where parameters are divided, TPUs would pass parts of gradients around a ring beside the products
# that they come from: on four, five hops per part where three would do, in more cycles.
FSDP_TPU_OPTIONS = {"xla_jf_spmd_threshold_for_windowed_einsum_mib": 1_000_000}

MIN_SHARDED = 2**14  # smaller arrays are copied: sharing them out would cost more than it saves


@contextlib.contextmanager
def devices(wanted: str | None) -> Iterator[None]:
    """Let JAX compute on `cpu`, `gpu`, `gpu:0,1` or `tpu` alone; None: on all that it finds.

    In the block, which is before any other use of JAX, other processes may be joined.

    Raises:
      ConfigError: there is no such device, or JAX computes on others in this process already.
    """
    if wanted is None:
        yield
        return
    match = re.fullmatch(r"(cpu|tpu|gpu)(?::(\d+(?:,\d+)*))?", wanted)
    if not match or (match[2] and match[1] != "gpu"):
        raise ConfigError(f"--device={wanted}: must be cpu, gpu, gpu:0, gpu:0,1 or tpu")
    kind, indices = match[1], match[2]
    jax.config.update("jax_platforms", {"cpu": "cpu", "gpu": "cuda,cpu", "tpu": "tpu,cpu"}[kind])
    if indices:
        jax.config.update("jax_cuda_visible_devices", indices)
    yield
    try:
        found = jax.local_devices()
    except RuntimeError as error:
        why = str(error).splitlines()[0]
        raise ConfigError(f"--device={wanted}: there is no such device here", why) from error
    count = len(indices.split(",")) if indices else len(found)
    if found[0].platform != kind or len(found) != count:
        there = f"{len(found)} x {found[0].device_kind}"
        raise ConfigError(
            f"--device={wanted}: JAX computes on {there}",
            "Choose existing ones; in Python, before anything else uses JAX.",
        )


def start_hosts(coordinator: str | None, num_processes: int | None, process_id: int | None) -> None:
    """Join the other processes of the run, if there are any; before any other use of JAX.

    They are given, or found by JAX: under Slurm with several tasks and on GKE by themselves, on
    other Cloud TPU slices where `coordinator` is "auto".

    Raises:
      ConfigError: only some of the three are given, or the others cannot be reached.
    """
    given = (coordinator, num_processes, process_id)
    if coordinator == "auto":
        coordinator = None
    elif any(value is not None for value in given):
        if coordinator is None or num_processes is None or process_id is None:
            raise ConfigError(
                "--coordinator, --num_processes and --process_id go together",
                "Every process gets the same HOST:PORT and N, and its own number from 0 to N - 1.",
            )
        if not 0 <= process_id < num_processes:
            raise ConfigError(f"--process_id={process_id}: must be 0 to {num_processes - 1}")
    elif not _is_one_of_many():
        return
    try:
        jax.distributed.initialize(coordinator, num_processes, process_id)
    except (RuntimeError, ValueError) as error:
        raise ConfigError(
            f"the other processes cannot be reached: {error}",
            "Start the program on all hosts, with the same --coordinator=HOST:PORT.",
        ) from error


def _is_one_of_many() -> bool:
    """Return whether the environment describes a cluster: GKE's for TPUs, or Slurm's."""
    hosts = os.environ.get("TPU_PROCESS_ADDRESSES", os.environ.get("TPU_WORKER_HOSTNAMES", ""))
    is_task = "SLURM_STEP_ID" in os.environ and int(os.environ.get("SLURM_NTASKS", "1")) > 1
    return "," in hosts or is_task


def platform() -> str:
    """Return the kind of the devices that compute: cpu, gpu or tpu."""
    return jax.local_devices()[0].platform


def is_lead() -> bool:
    """Return whether this process writes the logs and results."""
    return jax.process_index() == 0


def barrier(name: str) -> None:
    """Wait until all processes are here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def add_up(numbers: np.ndarray) -> np.ndarray:
    """The sums over all processes of uint64 [n], modulo 2^64; all of them get them."""
    if jax.process_count() == 1:
        return numbers
    halves = multihost_utils.process_allgather(numbers.view(np.uint32))  # JAX has no 64 bits
    return np.ascontiguousarray(halves).view(np.uint64).sum(axis=0, dtype=np.uint64)


def all_asked_to_end(step: int) -> bool:
    """Return whether any process received SIGTERM, agreed by all at the same step."""
    return multihost_utils.reached_preemption_sync_point(step)


def make_mesh(layout: Parallel | None = None, devices: Sequence[Any] | None = None) -> Mesh:
    """All devices, or those given, as (data, fsdp, tensor).

    Raises:
      ConfigError: the layout does not fit their number.
    """
    count = jax.device_count() if devices is None else len(devices)
    layout = layout or Parallel()
    sizes = sizes_of(layout, count)
    if sizes is None:
        told = ", ".join(f"parallel.{axis}={getattr(layout, axis)}" for axis in AXES)
        raise ConfigError(
            f"{told}: their product must be the number of devices, {count}",
            "-1 stands for the rest.",
        )
    # Auto, since with explicit axis types the decoder's broadcast queries do not shard.
    types = (AxisType.Auto,) * len(AXES)
    return jax.make_mesh(sizes, AXES, axis_types=types, devices=devices)


def sizes_of(layout: Parallel, devices: int) -> tuple[int, ...] | None:
    """Return the devices along each of `AXES`, -1 being the rest; None: their number is another."""
    sizes = [getattr(layout, axis) for axis in AXES]
    if sizes.count(-1) == 1:
        sizes[sizes.index(-1)] = devices // max(1, -math.prod(sizes))
    return tuple(sizes) if min(sizes) > 0 and math.prod(sizes) == devices else None


def is_one_cpu(mesh: Mesh) -> bool:
    """Return whether one CPU device computes everything."""
    return mesh.devices.size == 1 and mesh.devices.flat[0].platform == "cpu"


def replicated(mesh: Mesh) -> NamedSharding:
    """A whole copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The first axis shared out among the devices of data and fsdp."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def batch_devices(mesh: Mesh) -> int:
    """Return among how many devices, or groups of tensor devices, a batch is shared out."""
    return math.prod(mesh.shape[axis] for axis in BATCH_AXES)


def shardings(tree: Any, mesh: Mesh | AbstractMesh, tensor_axes: Mapping[str, int]) -> Any:
    """Place each array of a model or training state, by its path and shape.

    The axis that the network states for a parameter (`Network.tensor_axes`) is shared among tensor
    devices; then the largest axis that fits among fsdp devices. Optimizer moments and averages have
    paths that end like their parameter's, so they lie where it lies. Small arrays are copied.
    """

    def place(path: str, leaf: Any) -> NamedSharding:
        names = path.split("/")
        ends = ("/".join(names[start:]) for start in range(len(names)))
        axis = next((tensor_axes[end] for end in ends if end in tensor_axes), None)
        return NamedSharding(mesh, _spec(leaf.shape, mesh, axis))

    return map_by_path(place, tree)


def _spec(
    shape: tuple[int, ...], mesh: Mesh | AbstractMesh, tensor_axis: int | None
) -> PartitionSpec:
    if math.prod(shape) < MIN_SHARDED:
        return PartitionSpec()
    axes: list[str | None] = [None] * len(shape)
    tensor, fsdp = mesh.shape["tensor"], mesh.shape["fsdp"]
    if tensor > 1 and tensor_axis is not None and shape[tensor_axis] % tensor == 0:
        axes[tensor_axis] = "tensor"
    free = [i for i, size in enumerate(shape) if axes[i] is None and size % fsdp == 0]
    if fsdp > 1 and free:
        axes[max(free, key=lambda i: (shape[i], i))] = "fsdp"
    return PartitionSpec(*axes)


def gather_params(mesh: Mesh, tensor_axes: Mapping[str, int]) -> Callable[[Any], Any]:
    """Return a function that gathers parameters among fsdp devices, for use in a pass.

    Left to itself, the compiler moves activations to where a part of the parameters lies, which
    are much larger. The gradient lies where the parameters do, so that its sum is scattered.
    """
    if mesh.shape["fsdp"] == 1:
        return lambda params: params

    def place(sharding: NamedSharding) -> NamedSharding:
        kept = (axis if axis == "tensor" else None for axis in sharding.spec)
        return NamedSharding(mesh, PartitionSpec(*kept))

    @jax.custom_vjp  # with autodiff's gradient, every device would have to hold the whole sum
    def gather(params: Any) -> Any:
        places = shardings(params, mesh, tensor_axes)
        return jax.lax.with_sharding_constraint(params, jax.tree.map(place, places))

    def forward(params: Any) -> tuple[Any, None]:
        return gather(params), None

    def scatter(_: None, grads: Any) -> tuple[Any]:
        places = shardings(grads, mesh, tensor_axes)
        return (jax.lax.with_sharding_constraint(grads, places),)

    gather.defvjp(forward, scatter)
    return gather


def describe(tree: Any, placed: Any, mesh: Mesh) -> str:
    """Describe the placement in lines: bytes in total and per device, by kind of placement."""
    totals: dict[str, tuple[int, int, int]] = {}
    pairs = zip(jax.tree.leaves(tree), jax.tree.leaves(placed), strict=True)
    for leaf, sharding in pairs:
        whole = math.prod(leaf.shape) * leaf.dtype.itemsize
        part = math.prod(sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        used = [axis for axis in sharding.spec if axis]
        kind = "shared among " + " and ".join(sorted(used)) if used else "copied"
        arrays, before, after = totals.get(kind, (0, 0, 0))
        totals[kind] = arrays + 1, before + whole, after + part
    sizes = " x ".join(f"{axis} {size}" for axis, size in mesh.shape.items())
    lines = [f"Devices: {sizes}, in {jax.process_count()} process(es)."]
    for kind, (arrays, before, after) in sorted(totals.items()):
        lines.append(
            f"  {arrays} arrays of the training state {kind}:"
            f" {before / 1e6:,.1f} MB, {after / 1e6:,.1f} MB on each device"
        )
    return "\n".join(lines)


def check_batch_size(key: str, batch_size: int, mesh: Mesh, *, parts: int = 1) -> None:
    """Raises ConfigError unless `batch_size` (of option `key`) divides among devices and parts."""
    devices = batch_devices(mesh)
    if batch_size % (devices * parts):
        nearest = max(1, round(batch_size / (devices * parts))) * devices * parts
        among = f"the {devices} devices that share it" + f" and {parts} parts" * (parts > 1)
        raise ConfigError(
            f"{key}={batch_size}: must be a multiple of {among}, {nearest} for instance"
        )


def local_rows(mesh: Mesh, batch_size: int) -> list[int]:
    """The rows of every batch that this process is to read, ascending."""
    places = batch_sharding(mesh).addressable_devices_indices_map((batch_size,))
    rows = {
        row
        for (place,) in filter(None, places.values())
        for row in range(*place.indices(batch_size))
    }
    return sorted(rows)


def put_ahead(batches: Iterable[Any], mesh: Mesh, *, ahead: int = 2) -> Iterator[Any]:
    """The batches on the devices, copied while these still work on earlier ones.

    Each process gives its `local_rows` of every batch.
    """
    return delayed((_put_batch(batch, mesh) for batch in batches), ahead)


def _put_batch(batch: Any, mesh: Mesh) -> Any:
    sharding = batch_sharding(mesh)
    if jax.process_count() == 1:
        return jax.device_put(batch, sharding)
    devices = batch_devices(mesh)
    share = len(local_rows(mesh, devices))  # of so many devices' rows

    def put(array: np.ndarray) -> jax.Array:
        size = len(array) * devices // share
        first_of = {row: i for i, row in enumerate(local_rows(mesh, size))}

        def part(index: Any) -> np.ndarray:  # a slice per axis
            start, stop, _ = index[0].indices(size)
            return array[first_of[start] : first_of[start] + stop - start]

        return jax.make_array_from_callback((size, *array.shape[1:]), sharding, part)

    return jax.tree.map(put, batch)


def put(tree: Any, placed: Any) -> Any:
    """Arrays of the host as global ones; each device copies its part only."""
    return jax.tree.map(
        lambda array, sharding: jax.make_array_from_callback(
            array.shape, sharding, lambda index: np.asarray(array[index])
        ),
        tree,
        placed,
    )


def fetch(tree: Any, *, keep: bool = True) -> Any:
    """Whole arrays on the host, gathered one by one; all processes take part.

    A process that does not `keep` them gets None in their place.
    """

    def whole(array: Any) -> np.ndarray | None:
        if isinstance(array, jax.Array) and not array.is_fully_addressable:
            if not array.is_fully_replicated:
                assert isinstance(array.sharding, NamedSharding)
                everywhere = NamedSharding(array.sharding.mesh, PartitionSpec())
                array = jax.jit(lambda x: x, out_shardings=everywhere)(array)
            array = array.addressable_data(0)
        return np.asarray(array) if keep else None

    return jax.tree.map(whole, tree)


def jit_step(step: Callable[..., Any], mesh: Mesh, state: Any) -> Callable[..., Any]:
    """jit of (state, batch, …) → (state, numbers), the old state's memory reused for the new one.

    `state` holds the shardings that it has before and after.
    """
    return jax.jit(
        step,
        out_shardings=(state, replicated(mesh)),
        donate_argnums=0,
        compiler_options=compiler_options(mesh.devices.flat[0].platform, **mesh.shape),
    )


def compiler_options(platform: str, *, data: int, fsdp: int, tensor: int) -> dict[str, int]:
    """Return the options of XLA for a training step on a mesh of so many devices."""
    if platform in ("gpu", "cuda", "rocm"):
        return GPU_OPTIONS if data * fsdp * tensor > 1 else {}
    return FSDP_TPU_OPTIONS if platform == "tpu" and fsdp > 1 == tensor else {}


def placed(abstract: Any, placement: Any) -> Any:
    """Shapes and types of a state, each with the sharding that it is to have."""
    return jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        abstract,
        placement,
    )
