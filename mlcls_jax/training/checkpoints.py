"""Training checkpoints with Orbax: the latest ones and the best, written in the background.

The only file that imports Orbax.
"""

import logging
from pathlib import Path
from typing import Any, Self

import jax
from orbax.checkpoint import v1 as ocp

from mlcls_jax import parallel
from mlcls_jax.errors import CheckpointError
from mlcls_jax.training.state import TrainState

log = logging.getLogger(__name__)


class Checkpoints:
    """The checkpoints of one run, each a `TrainState` and a JSON record of the run so far.

    With several processes all of them take part in everything.
    """

    def __init__(self, folder: Path, *, keep: int, metric: str) -> None:
        self._folder, self._keep, self._metric = folder, keep, metric
        self._open()

    def _open(self) -> None:
        policies = ocp.training.preservation_policies
        best = policies.BestN(
            get_metric_fn=lambda metrics: metrics[self._metric],
            n=1,
            keep_checkpoints_without_metrics=False,
        )
        latest = policies.LatestN(self._keep)
        self._checkpointer = ocp.training.Checkpointer(
            self._folder.absolute(),
            preservation_policy=policies.AnyPreservationPolicy([latest, best]),
            cleanup_tmp_directories=True,  # what a killed run was still writing
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, failure: type[BaseException] | None, *_: object) -> None:
        try:
            self._checkpointer.close()  # waits for the save in flight
        except Exception as error:
            if failure is None:
                raise self._unsaved(error) from error
            log.error("%s", self._unsaved(error).message)  # beside what ends the run anyway

    @property
    def steps(self) -> list[int]:
        """Steps of the complete checkpoints, the newest first."""
        return sorted((found.step for found in self._checkpointer.checkpoints), reverse=True)

    def restore(self, abstract: TrainState) -> tuple[TrainState, dict[str, Any]] | None:
        """The newest checkpoint that can be read, and its record; None if there never was one.

        Damaged ones are set aside as `<step>.damaged`.

        Args:
          abstract: shapes, types and shardings that the state is to have.

        Raises:
          CheckpointError: it belongs to another model, or all of them are damaged.
        """
        self.wait()  # what is still being written would look damaged
        steps = self.steps
        for step in steps:
            try:
                return self._load(step, abstract)
            except CheckpointError:
                raise
            except Exception as error:  # noqa: BLE001 (Orbax raises many kinds)
                cause = str(error).strip().splitlines() or [type(error).__name__]
                log.error("%s/%d: is damaged and set aside: %s", self._folder, step, cause[0])
                self._set_aside(step)
        if steps:
            raise CheckpointError(
                f"{self._folder}: all {len(steps)} checkpoints are damaged",
                "Begin again in another --workdir, with model.weights=<workdir>/best_model if"
                " that is there.",
            )
        return None

    def _load(self, step: int, abstract: TrainState) -> tuple[TrainState, dict[str, Any]]:
        stored = _shapes(self._checkpointer.metadata(step).metadata)
        wanted = _shapes(abstract)
        if not stored:
            raise ValueError("its metadata are missing")
        faults = [f"missing {p}" for p in wanted.keys() - stored.keys()]
        faults += [f"unexpected {p}" for p in stored.keys() - wanted.keys()]
        shared = wanted.keys() & stored.keys()
        faults += [f"{p} {stored[p]}, not {wanted[p]}" for p in shared if stored[p] != wanted[p]]
        if faults:
            more = f" and {len(faults) - 5} more" if len(faults) > 5 else ""
            raise CheckpointError(
                f"{self._folder}/{step}: is of another model:"
                f" {'; '.join(sorted(faults)[:5])}{more}",
                "Use another --workdir, or the configuration that the run began with.",
            )
        record = self._checkpointer.metadata(step).custom_metadata
        if not isinstance(record, dict) or "best" not in record:
            raise ValueError("its record is missing")
        return self._checkpointer.load(step, abstract), record

    def _set_aside(self, step: int) -> None:
        self._checkpointer.close()
        if parallel.is_lead():
            here, number = self._folder / str(step), 0
            while (there := self._folder / f"{step}.damaged{number or ''}").exists():
                number += 1
            here.rename(there)
        parallel.barrier(f"{step} is set aside")
        self._open()

    def _unsaved(self, error: Exception) -> CheckpointError:
        cause = str(error).strip().splitlines() or [type(error).__name__]
        return CheckpointError(
            f"{self._folder}: a checkpoint could not be written: {cause[0]}",
            "Make room, or mend the permissions, and run the same command again: it goes on from"
            " the checkpoint before.",
        )

    def wait(self) -> None:
        """Until the save in flight is on disk.

        Raises:
          CheckpointError: it could not be written; the ones before it are intact.
        """
        try:
            self._checkpointer.wait()
        except Exception as error:
            raise self._unsaved(error) from error

    def save(
        self, state: TrainState, record: dict[str, Any], *, metrics: dict[str, float] | None
    ) -> None:
        """Begin to write a checkpoint; waits only for the copy to the host.

        Args:
          state: saved under its step.
          record: JSON that comes back from `restore`.
          metrics: the evaluation after this step, by which the best is kept.

        Raises:
          CheckpointError: this one or the one before could not be written.
        """
        step = int(state.step)
        if step in self.steps:
            return
        try:
            self._checkpointer.save_async(
                step, state, force=True, metrics=metrics, custom_metadata=record
            )
        except Exception as error:
            raise self._unsaved(error) from error


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    """Shape of every array by its path."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="/"): x.shape for path, x in leaves}
