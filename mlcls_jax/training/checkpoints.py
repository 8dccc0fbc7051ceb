"""Training checkpoints with Orbax: the latest ones and the best, written in the background.

The only file that imports Orbax, which does not notice when a byte of what it wrote changes: our
record of a checkpoint holds checksums of all that comes back.
"""

import hashlib
import json
import logging
import math
import os
import re
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from mlcls_jax import parallel
from mlcls_jax.errors import CheckpointError
from mlcls_jax.training.checksums import checksums
from mlcls_jax.training.state import TrainState
from mlcls_jax.trees import by_path

log = logging.getLogger(__name__)

CHECKSUMS = "checksums"  # where they are in a checkpoint's record


class Checkpoints:
    """The checkpoints of one run, each a `TrainState` and a JSON record of the run so far.

    With several processes all of them take part in everything.
    """

    def __init__(
        self,
        folder: Path,
        *,
        metric: str,
        keep: int = 1,
        every: int | None = None,
        read_only: bool = False,
    ) -> None:
        """Open the folder, which is made if need be.

        Args:
          folder: of the checkpoints.
          metric: the name of what the best is kept by.
          keep: how many of the latest to keep.
          every: keep those after multiples of so many steps, too; None: none of them.
          read_only: leave the folder as it is, which belongs to another run; see `read`.
        """
        self._read_only = read_only
        self._folder, self._metric = folder, metric
        self._keep, self._every = keep, every
        self._thread = ThreadPoolExecutor(1)
        self._begun: Future[None] | None = None  # our part of the save in flight
        self._open()

    def _open(self) -> None:
        policies = ocp.training.preservation_policies
        best = policies.BestN(
            get_metric_fn=self._rank,
            n=1,
            keep_checkpoints_without_metrics=False,
        )
        kept = [policies.LatestN(self._keep), best]
        kept += [policies.EveryNSteps(self._every)] if self._every else []
        try:
            if not self._read_only:
                self._set_aside_without_metrics()
            self._checkpointer = ocp.training.Checkpointer(
                str(self._folder.absolute()),
                # Orbax's own policies name a parameter otherwise than its protocol.
                preservation_policy=policies.AnyPreservationPolicy(  # pyright: ignore[reportArgumentType]
                    kept
                ),
                # What a killed run was still writing.
                cleanup_tmp_directories=not self._read_only,
            )
        except Exception as error:
            raise CheckpointError(
                f"{self._folder}: cannot be opened: {_first_line(error)}",
                "Correct the permissions, or move the named step out of the folder.",
            ) from error

    def _rank(self, metrics: dict[str, Any]) -> float:
        score = metrics.get(self._metric)
        return score if isinstance(score, int | float) and math.isfinite(score) else -math.inf

    def _set_aside_without_metrics(self) -> None:
        """Set damaged metrics aside: Orbax stops at a bad file as it opens the folder."""
        if parallel.is_lead():
            for file in self._folder.glob("*/metrics/metrics"):
                step, content = file.parts[-3], file.read_bytes()
                try:
                    if step.isdigit() and self._metric not in json.loads(content):
                        raise ValueError(f"{self._metric} is not in its metrics")
                except (ValueError, TypeError) as error:  # no JSON, or a number
                    self._tell_damage(int(step), error)
                    self._rename_aside(int(step))
        parallel.barrier("metrics are read")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, failure: type[BaseException] | None, *_: object) -> None:
        try:
            with self._checkpointer, self._thread:
                self._finish_save()
        except Exception as error:
            if failure is None:
                raise self._unsaved(error) from error
            log.error("%s", self._unsaved(error).message)  # beside what ends the run anyway

    @property
    def steps(self) -> list[int]:
        """The steps of the complete checkpoints, the newest first."""
        return sorted((found.step for found in self._checkpointer.checkpoints), reverse=True)

    def restore(self, abstract: TrainState) -> tuple[TrainState, dict[str, Any]] | None:
        """Return the newest readable checkpoint and its record; None if there never was one.

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
                self._tell_damage(step, error)
                self._set_aside(step)
        if damaged := len(list(self._folder.glob("*.damaged*"))):
            raise CheckpointError(
                f"{self._folder}: all {damaged} checkpoints are damaged",
                "Start again in another --workdir, with model.weights=<workdir>/best_model if"
                " that is there.",
            )
        return None

    def read(self, step: int, abstract: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """Return one checkpoint and its record; nothing is set aside.

        Args:
          step: one of `steps`.
          abstract: as for `restore`.

        Raises:
          CheckpointError: it belongs to another model, or is damaged.
        """
        try:
            return self._load(step, abstract)
        except CheckpointError:
            raise
        except Exception as error:
            raise CheckpointError(
                f"{self._folder}/{step}: is damaged: {_first_line(error)}", "Take another epoch."
            ) from error

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
        record: Any = self._checkpointer.metadata(step).custom_metadata
        if not isinstance(record, dict) or "best" not in record:
            raise ValueError("its record is missing")
        written = record.pop(CHECKSUMS, None)
        if written is None:
            log.warning(
                "%s/%d: was written by a version without checksums: damage would not be noticed.",
                self._folder, step,
            )  # fmt: skip
            return self._checkpointer.load(step, abstract), record
        metrics = next(one.metrics for one in self._checkpointer.checkpoints if one.step == step)
        if written["record"] != _checksum_of(record, metrics):
            raise ValueError("its record or its metrics have changed")
        state = self._load_together(step, abstract)
        found = checksums(state)
        if changed := [path for path, value in found.items() if written["arrays"][path] != value]:
            more = f" and {len(changed) - 1} other arrays" if len(changed) > 1 else ""
            raise ValueError(f"the numbers of {changed[0]}{more} have changed")
        return state, record

    def _load_together(self, step: int, abstract: TrainState) -> TrainState:
        """Return the state; raise in every process if one of them cannot read its part."""
        failure = None
        try:
            state = self._checkpointer.load(step, abstract)
        except Exception as error:  # noqa: BLE001 (raised below)
            failure = error
        failures = int(parallel.add_up(np.array([failure is not None], np.uint64))[0])
        if failure is not None:
            raise failure
        if failures:
            raise ValueError(f"{failures} other processes cannot read it")
        return state

    def _tell_damage(self, step: int, error: Exception) -> None:
        log.error("%s/%d: is damaged and set aside: %s", self._folder, step, _first_line(error))

    def _set_aside(self, step: int) -> None:
        self._checkpointer.close()
        if parallel.is_lead():
            self._rename_aside(step)
        parallel.barrier(f"{step} is set aside")
        self._open()

    def _rename_aside(self, step: int) -> None:
        number = 0
        while (there := self._folder / f"{step}.damaged{number or ''}").exists():
            number += 1
        (self._folder / str(step)).rename(there)

    def _unsaved(self, error: Exception) -> CheckpointError:
        return CheckpointError(
            f"{self._folder}: a checkpoint could not be written: {_reason(error)}",
            "Free some space, or correct the permissions, and run the same command again: it"
            " resumes from the previous checkpoint.",
        )

    def wait(self) -> None:
        """Wait until the save in flight is on disk.

        Raises:
          CheckpointError: it could not be written; the ones before it are intact.
        """
        try:
            self._finish_save()
        except Exception as error:
            raise self._unsaved(error) from error

    def _finish_save(self) -> None:
        begun, self._begun = self._begun, None
        if begun is not None:
            begun.result()
        self._checkpointer.wait()

    def save(
        self, state: TrainState, record: dict[str, Any], *, metrics: dict[str, Any] | None
    ) -> None:
        """Begin to write a checkpoint, once the one before is written.

        Waits for a copy of the state on the host only, since the next step reuses its memory. Of
        several processes, whose parts of the state make up one checkpoint together, it waits until
        their checksums are added up and Orbax has copied them.

        Args:
          state: saved under its step.
          record: JSON that comes back from `restore`.
          metrics: the evaluation after this step, by which the best is kept.

        Raises:
          CheckpointError: this one or the one before could not be written.
        """
        self.wait()
        step = int(state.step)
        if step in self.steps:
            return
        if jax.process_count() == 1:
            for array in jax.tree.leaves(state):
                array.copy_to_host_async()
            state = jax.tree.map(np.array, state)
            self._begun = self._thread.submit(self._write, step, state, record, metrics)
            return
        try:
            self._write(step, state, record, metrics)
        except Exception as error:
            raise self._unsaved(error) from error

    def _write(
        self, step: int, state: Any, record: dict[str, Any], metrics: dict[str, Any] | None
    ) -> None:
        """Let Orbax begin to write a state of arrays on the host or on the devices."""
        written = {"record": _checksum_of(record, metrics), "arrays": checksums(state)}
        self._checkpointer.save_async(
            step,
            state,
            force=True,
            metrics=metrics,
            custom_metadata=record | {CHECKSUMS: written},
        )


def _checksum_of(record: dict[str, Any], metrics: Any) -> str:
    return hashlib.sha256(json.dumps([record, metrics], sort_keys=True).encode()).hexdigest()


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _reason(error: Exception) -> str:
    """Return why a file could not be written: what the system says, where Orbax tells its code."""
    code = re.search(r"os_error_code='(\d+)'", str(error))
    return os.strerror(int(code[1])) if code else _first_line(error)


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    """Return the shape of every array by its path."""
    return {path: leaf.shape for path, leaf in by_path(tree).items()}
