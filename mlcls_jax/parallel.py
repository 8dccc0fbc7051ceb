"""Devices: the mesh, and what is placed where on it. The only file that names mesh axes."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from mlcls_jax.errors import ConfigError


def make_mesh() -> Mesh:
    """All devices in a row: the batch is shared out among them, everything else is copied."""
    # Auto, since with explicit axis types the decoder's broadcast queries do not shard.
    return jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """A whole copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The first axis shared out among the devices."""
    return NamedSharding(mesh, PartitionSpec("data"))


def check_batch_size(key: str, batch_size: int, mesh: Mesh) -> None:
    """Raises ConfigError unless `batch_size` (of option `key`) divides among the devices."""
    devices = mesh.devices.size
    if batch_size % devices:
        nearest = max(1, round(batch_size / devices)) * devices
        raise ConfigError(
            f"{key}={batch_size}: must be a multiple of the {devices} devices,"
            f" {nearest} for instance"
        )


def put_ahead(batches: Iterable[Any], mesh: Mesh, *, ahead: int = 2) -> Iterator[Any]:
    """The batches on the devices, copied while the device still works on earlier ones."""
    sharding = batch_sharding(mesh)
    waiting: deque[Any] = deque()
    for batch in batches:
        waiting.append(jax.device_put(batch, sharding))
        if len(waiting) > ahead:
            yield waiting.popleft()
    yield from waiting


def jit_step(step: Callable[..., Any], mesh: Mesh) -> Callable[..., Any]:
    """jit of (state, batch) → (state, numbers), the old state's memory reused for the new one."""
    everywhere = replicated(mesh)
    shardings = (everywhere, batch_sharding(mesh))
    return jax.jit(step, in_shardings=shardings, out_shardings=everywhere, donate_argnums=0)


def jit_replicated(function: Callable[..., Any], mesh: Mesh) -> Callable[..., Any]:
    """jit with the result copied to every device."""
    return jax.jit(function, out_shardings=replicated(mesh))


def placed(abstract: Any, mesh: Mesh) -> Any:
    """Shapes and types of a state, each with the sharding that it is to have."""
    sharding = replicated(mesh)
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), abstract
    )
