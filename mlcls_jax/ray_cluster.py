"""A Ray cluster, and the share of it that each piece of work gets: one device."""

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

from mlcls_jax import lazy
from mlcls_jax.errors import InputError

# What a piece of work needs of Ray, by the kind of accelerator that it has for itself.
ACCELERATORS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("GPU", {"num_gpus": 1, "num_cpus": 1}),
    ("TPU", {"resources": {"TPU": 1}, "num_cpus": 1}),
)


class Cluster:
    """A Ray cluster, which is connected to at the first use.

    Args:
      address: of the cluster, `auto` for that of this node, `local` for one that lasts as long as
        the work, on this machine; None: `auto` if there is one, else `local`.
      cpus: of each piece of work, if the cluster has no accelerators; None: those of the
        smallest node.

    Raises:
      InputError: Ray is not installed; at the first use, there is no such cluster.
    """

    def __init__(self, address: str | None, cpus: int | None) -> None:
        with lazy.optional("Ray is not installed", extra="ray", kind=InputError):
            import ray
        self.ray, self._address, self._cpus = ray, address, cpus
        self._is_ours = False

    @contextlib.contextmanager
    def connected(self) -> Iterator[None]:
        """Connect, and disconnect after the block unless others had connected."""
        try:
            self._connect()
            yield
        finally:
            if self._is_ours:
                self.ray.shutdown()
                self._is_ours = False

    def platform(self) -> str:
        """Return where the work is done: cpu, gpu or tpu."""
        self._connect()
        kinds = (kind for kind, _ in ACCELERATORS if self._count(kind))
        return next(kinds, "cpu").lower()

    def shares(self) -> tuple[dict[str, Any], int]:
        """Return what a piece of work asks Ray for, and how many there can be at once.

        Raises:
          InputError: no node has so many CPUs.
        """
        for kind, needs in ACCELERATORS:
            if devices := self._count(kind):
                return needs, devices
        nodes = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        counts = [int(node["CPU"]) for node in nodes if node.get("CPU", 0) >= 1]
        cpus = self._cpus or min(counts, default=1)
        places = sum(count // cpus for count in counts)
        if places == 0:
            told = f"no node of the Ray cluster has {cpus} CPUs"
            raise InputError(told, f"They have: {', '.join(map(str, counts))}.")
        return {"num_cpus": cpus}, places

    def _connect(self) -> None:
        if self.ray.is_initialized():
            return
        try:
            self.ray.init(self._address, logging_level=logging.ERROR, log_to_driver=False)
        except ConnectionError as error:
            hint = "Start it: launch/ray_score.sh, or `ray start --head`."
            raise InputError(f"{self._address}: no Ray cluster: {error}", hint) from error
        self._is_ours = True

    def _count(self, kind: str) -> int:
        nodes = self.ray.nodes()
        return int(sum(node["Resources"].get(kind, 0) for node in nodes if node["Alive"]))
