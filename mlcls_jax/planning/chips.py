"""Accelerators as their vendors describe them: what `mlcls plan` and `docs/scaling.md` count with.

Sources, read in November 2026: docs.cloud.google.com/tpu/docs/v4, /v5e, /v6e, /v5p and /tpu7x;
NVIDIA's pages of A100, H100, H200 and DGX B200 (nvidia.com/en-us/data-center), whose bfloat16 peaks
with sparsity are halved here. Both vendors give interconnects for the two directions together; a
ring sends in one of them, so halves stand here. What programs may use of a TPU's memory is what
libtpu 0.0.42.1 says; memory sizes of GPUs are those of XLA's descriptions of them.
"""

from dataclasses import dataclass
from typing import Literal

from mlcls_jax.errors import ConfigError, unknown

GIB = 2**30
MFU = 0.4  # share of the peak that convolutions and matrix products reach; but
TPU_MFU = 0.2  # networks of convolutions on TPUs, by the compiler's estimate
TPU_IMAGES = 128  # a chip: with fewer, arrays are padded to the 128 lanes; see docs/scaling.md
IMAGES = 32  # a chip of any other kind
GPU_SHARE = 0.9  # of a GPU's memory; the rest is the driver's and lost between arrays


@dataclass(frozen=True)
class Chip:
    """One accelerator, as JAX counts devices; all rates are peaks."""

    platform: Literal["tpu", "gpu"]
    flops: float  # FLOP/s in bfloat16, without sparsity
    memory: float  # bytes
    usable: float  # bytes of them that a program gets
    memory_rate: float  # bytes/s
    links: float  # bytes/s that it sends to its neighbours
    domain: int  # chips joined by those links
    network: float  # bytes/s a chip beyond them: the hosts' network, shared out among its chips
    clock: float | None = None  # Hz, in which the TPU compiler counts cycles
    devices: int = 1  # that JAX sees in a chip


def _tpu(
    flops: float,
    gib: float,
    usable_gib: float,
    memory_rate: float,
    links: float,
    domain: int,
    network: float,
    clock: float,
    devices: int = 1,
) -> Chip:
    memory, usable = gib * GIB, usable_gib * GIB
    return Chip(
        "tpu", flops, memory, usable, memory_rate, links, domain, network, clock, devices
    )  # fmt: skip


def _gpu(
    flops: float, memory: float, memory_rate: float, links: float, domain: int, network: float
) -> Chip:
    return Chip("gpu", flops, memory, GPU_SHARE * memory, memory_rate, links, domain, network)


# Clocks are peaks divided by what the matrix units do in a cycle, 2 x 128 x 128 or 2 x 256 x 256.
CHIPS = {
    "v4": _tpu(275e12, 32, 30.75, 1200e9, 150e9, 4096, 3.1e9, 1.05e9),
    "v5e": _tpu(197e12, 16, 15.75, 819e9, 200e9, 256, 3.1e9, 1.5e9),  # 6.4 Tb/s a pod of 256
    "v6e": _tpu(918e12, 32, 31.25, 1638e9, 400e9, 256, 12.5e9, 1.75e9),  # 25.6 Tb/s a pod of 256
    "v5p": _tpu(459e12, 96, 95.74, 2765e9, 600e9, 8960, 6.25e9, 1.75e9),  # 50 Gb/s a chip
    # A chip is two devices, with half of everything each.
    "tpu7x": _tpu(1153.5e12, 96, 94.75, 3690e9, 300e9, 18432, 6.25e9, 2.2e9, devices=2),
    "A100": _gpu(312e12, 85.1e9, 2039e9, 300e9, 8, 25e9),  # SXM, 80 GB; 200 Gb/s, as in DGX A100
    "H100": _gpu(989e12, 84.9e9, 3350e9, 450e9, 8, 50e9),  # SXM; 400 Gb/s a chip, as in DGX H100
    "H200": _gpu(989e12, 151.4e9, 4800e9, 450e9, 8, 50e9),  # as in DGX H200
    "B200": _gpu(2250e12, 191.5e9, 7672e9, 900e9, 8, 50e9),  # as in DGX B200
}

# Dollars an hour for a chip on demand in us-central1 (Google Cloud), as SkyPilot's catalogue of
# prices had them in November 2026. Other regions take up to half as much again; spot costs less.
PRICES = {"v5e": 1.20, "v5p": 4.20, "v6e": 2.70}


def name_of(kind: str) -> str:
    """Return the name of a chip, in upper or lower case, as the table spells it.

    Raises:
      ConfigError: it is not in the table; proposes the nearest name.
    """
    names = {name.lower(): name for name in CHIPS}
    if kind.lower() in names:
        return names[kind.lower()]
    raise ConfigError(unknown(f"--kind={kind}", "chip", kind, CHIPS, cutoff=0.4))
