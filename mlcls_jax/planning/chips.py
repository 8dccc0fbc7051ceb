"""Accelerators as their vendors describe them: what `mlcls plan` and `docs/scaling.md` count with.

Sources, read in November 2026: docs.cloud.google.com/tpu/docs/v5e, /v6e and /v5p; NVIDIA's pages of
A100, H100 and H200 (nvidia.com/en-us/data-center/a100, /h100, /h200), whose bfloat16 peaks with
sparsity are halved here. Both vendors give interconnects for the two directions together; a ring
sends in one of them, so halves stand here.
"""

from dataclasses import dataclass

from mlcls_jax.errors import ConfigError, unknown


@dataclass(frozen=True)
class Chip:
    """One accelerator; all rates are peaks."""

    flops: float  # FLOP/s in bfloat16, without sparsity
    memory: float  # bytes
    memory_rate: float  # bytes/s
    links: float  # bytes/s that it sends to its neighbours
    domain: int  # chips joined by those links
    network: float  # bytes/s a chip beyond them: the hosts' network, shared out among its chips


CHIPS = {
    "v5e": Chip(197e12, 16e9, 819e9, 200e9, 256, 3.1e9),  # 6.4 Tb/s a pod of 256
    "v6e": Chip(918e12, 32e9, 1638e9, 400e9, 256, 12.5e9),  # 25.6 Tb/s a pod of 256
    "v5p": Chip(459e12, 95e9, 2765e9, 600e9, 8960, 6.25e9),  # 50 Gb/s a chip
    "H100": Chip(989e12, 80e9, 3350e9, 450e9, 8, 50e9),  # SXM; 400 Gb/s a chip, as in DGX H100
    "H200": Chip(989e12, 141e9, 4800e9, 450e9, 8, 50e9),  # as in DGX H200
    "A100": Chip(312e12, 80e9, 2039e9, 300e9, 8, 25e9),  # SXM, 80 GB; 200 Gb/s, as in DGX A100
}


def find_chip(kind: str) -> Chip:
    """The chip of that name, upper or lower case.

    Raises:
      ConfigError: it is not in the table; proposes the nearest name.
    """
    names = {name.lower(): name for name in CHIPS}
    if kind.lower() in names:
        return CHIPS[names[kind.lower()]]
    raise ConfigError(unknown(f"--kind={kind}", "chip", kind, CHIPS, cutoff=0.4))
