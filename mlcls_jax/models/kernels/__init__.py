"""Operations that some platforms compute faster in another form, and the forms for given devices.

A network is computed by `PLAIN` unless it is told for which devices: `Network.on(devices)`.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any, Protocol, runtime_checkable

import jax.numpy as jnp
from jaxtyping import Array, Float

from mlcls_jax.models.kernels.attention import attend, attend_by_cudnn
from mlcls_jax.models.kernels.convolution import (
    conv2d,
    conv2d_on_cpus,
    conv2d_on_nvidia,
    conv2d_on_one_cpu,
    conv2d_portable,
)
from mlcls_jax.models.kernels.memory_order import as_it_is, row_major
from mlcls_jax.models.kernels.moments import moments, moments_in_one_pass
from mlcls_jax.models.kernels.pooling import max_pool_by_hand, xla_max_pool
from mlcls_jax.models.kernels.product import matmul_on_cpus
from mlcls_jax.models.kernels.tree_norm import joined_norm, tree_norm


@dataclass(frozen=True)
class Kernels:
    """One form of every operation of which there are several.

    It is hashable, and the modules that compute with it hold it as a static attribute. So it is
    part of the key by which JAX keeps what it has traced: programs for different devices never mix.
    """

    # (x [B, H, W, C], kernel [k, k, C / groups, D], stride=, groups=) → [B, h, w, D]
    conv2d: Callable[..., Float[Array, "B h w D"]]
    # (x [..., I], kernel [I, O]) → [..., O]
    matmul: Callable[[Array, Array], Float[Array, "... O"]]
    # (x [B, H, W, C], size, stride) → [B, h, w, C]
    max_pool: Callable[[Array, int, int], Float[Array, "B h w C"]]
    # (x [..., C], near [C]: a guess of the mean) → mean [C], variance [C]
    moments: Callable[[Array, Array], tuple[Float[Array, " C"], Float[Array, " C"]]]
    # (q [B, Q, heads, d], k, v [B, N, heads, d], drop: of weights, or None) → [B, Q, heads, d]
    attend: Callable[..., Float[Array, "B Q heads d"]]
    # (x [B, N, C]) → x, laid out in memory as its axes say
    rows: Callable[[Array], Float[Array, "B N C"]]
    # (tree of arrays) → the L2 norm of all of them
    norm: Callable[[Any], Float[Array, ""]]


# What XLA makes of each: for exports to other runtimes, and to count operations.
PLAIN = Kernels(
    conv2d=conv2d,
    matmul=jnp.matmul,
    max_pool=xla_max_pool,
    moments=moments,
    attend=attend,
    rows=as_it_is,
    norm=tree_norm,
)
# For one program that is exported for several platforms: each takes its form where it runs.
PORTABLE = replace(PLAIN, conv2d=conv2d_portable)
CPUS = replace(PLAIN, conv2d=conv2d_on_cpus, matmul=matmul_on_cpus, max_pool=max_pool_by_hand)
ONE_CPU = replace(CPUS, conv2d=conv2d_on_one_cpu, norm=joined_norm)
ACCELERATORS = replace(PLAIN, moments=moments_in_one_pass)
NVIDIA = replace(
    ACCELERATORS,
    conv2d=conv2d_on_nvidia,
    max_pool=max_pool_by_hand,
    attend=attend_by_cudnn,
    rows=row_major,
)


@cache  # a partial equals no other, so that the step would be traced anew
def _nvidia(tensor: int) -> Kernels:
    return replace(NVIDIA, attend=partial(attend_by_cudnn, tensor=tensor))


@runtime_checkable
class OfPlatform(Protocol):
    """What is asked of a device, of this host or of a topology that it does not have."""

    @property
    def platform(self) -> str: ...


def choose(devices: Iterable[OfPlatform], *, tensor: int = 1) -> Kernels:
    """Return the kernels that are fastest on `devices`, all of which compute one program.

    `tensor` of them share out the heads of attention.
    """
    devices = list(devices)
    if any(device.platform != "cpu" for device in devices):
        if not all(map(_has_attention, devices)):
            return ACCELERATORS
        return NVIDIA if tensor == 1 else _nvidia(tensor)
    return ONE_CPU if len(devices) == 1 else CPUS


def _has_attention(device: OfPlatform) -> bool:
    """Return whether cuDNN has attention for it: from Ampere on, which is 8.0; AMD says gfx90a."""
    major = str(getattr(device, "compute_capability", "")).partition(".")[0]
    return device.platform == "gpu" and major.isdecimal() and int(major) >= 8
