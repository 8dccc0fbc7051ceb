"""Training checkpoints with Orbax: the latest ones and the best, written in the background.

The only file that imports Orbax.
"""

import logging
from pathlib import Path
from typing import Any, Self

import jax
from orbax.checkpoint import v1 as ocp

from mlcls_jax.errors import CheckpointError
from mlcls_jax.training.state import TrainState

log = logging.getLogger(__name__)


class Checkpoints:
    """The checkpoints of one run, each a `TrainState` and a JSON record of the run so far."""

    def __init__(self, folder: Path, *, keep: int, metric: str) -> None:
        policies = ocp.training.preservation_policies
        best = policies.BestN(
            get_metric_fn=lambda metrics: metrics[metric],
            n=1,
            keep_checkpoints_without_metrics=False,
        )
        self._checkpointer = ocp.training.Checkpointer(
            folder.absolute(),
            preservation_policy=policies.AnyPreservationPolicy([policies.LatestN(keep), best]),
            cleanup_tmp_directories=True,  # what a killed run was still writing
        )
        self._folder = folder

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._checkpointer.close()  # waits for the save in flight

    @property
    def latest_step(self) -> int | None:
        """Step of the newest complete checkpoint."""
        latest = self._checkpointer.latest
        return None if latest is None else latest.step

    def restore(self, abstract: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """The newest checkpoint and its record.

        Args:
          abstract: shapes, types and shardings that the state is to have.

        Raises:
          CheckpointError: it belongs to another model, or is damaged.
        """
        step = self.latest_step
        where = f"{self._folder}/{step}"
        stored = _shapes(self._checkpointer.metadata(step).metadata)
        wanted = _shapes(abstract)
        faults = [f"missing {p}" for p in wanted.keys() - stored.keys()]
        faults += [f"unexpected {p}" for p in stored.keys() - wanted.keys()]
        shared = wanted.keys() & stored.keys()
        faults += [f"{p} {stored[p]}, not {wanted[p]}" for p in shared if stored[p] != wanted[p]]
        if faults:
            more = f" and {len(faults) - 5} more" if len(faults) > 5 else ""
            raise CheckpointError(
                f"{where}: is of another model: {'; '.join(sorted(faults)[:5])}{more}",
                "Use another --workdir, or the configuration that the run began with.",
            )
        try:
            state = self._checkpointer.load(step, abstract)
        except Exception as error:  # Orbax raises many kinds for a damaged file
            raise CheckpointError(
                f"{where}: cannot be read: {error}",
                "Delete that folder to go on from the checkpoint before it.",
            ) from error
        return state, self._checkpointer.metadata(step).custom_metadata

    def save(
        self, state: TrainState, record: dict[str, Any], *, metrics: dict[str, float] | None
    ) -> None:
        """Begin to write a checkpoint; waits only for the copy to the host.

        Args:
          state: saved under its step.
          record: JSON that comes back from `restore`.
          metrics: the evaluation after this step, by which the best is kept.
        """
        self._checkpointer.save_async(
            int(state.step), state, force=True, metrics=metrics, custom_metadata=record
        )


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    """Shape of every array by its path."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="/"): x.shape for path, x in leaves}
