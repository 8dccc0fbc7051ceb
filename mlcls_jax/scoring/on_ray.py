"""Scoring on a Ray cluster: Ray Data hands the ranges to one actor per device.

Actors write their files themselves, as the local engine does, so that both go on with each other's
work. Bundle, input and output must be at the same paths on all nodes.
"""

import contextlib
import logging
import os
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from mlcls_jax import lazy
from mlcls_jax.errors import InputError, UserError, WorkdirError
from mlcls_jax.inference.bundle import read_bundle
from mlcls_jax.inference.predictor import Predictor
from mlcls_jax.scoring.in_process import open_job_input, open_predictor, score_here
from mlcls_jax.scoring.inputs.kind import Read
from mlcls_jax.scoring.job import Job, Request, read_survey

# What an actor needs of Ray, by the kind of accelerator that it has for itself.
ACCELERATORS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("GPU", {"num_gpus": 1, "num_cpus": 1}),
    ("TPU", {"resources": {"TPU": 1}, "num_cpus": 1}),
)


class Cluster:
    """A Ray cluster, which is connected to at the first use.

    Args:
      address: of the cluster, `auto` for the one of this node; None: one that lasts as long as the
        job, on this machine.
      cpus_per_actor: where the cluster has no accelerators; None: those of the smallest node.

    Raises:
      InputError: Ray is not installed; at the first use, there is no such cluster.
    """

    def __init__(self, address: str | None, cpus_per_actor: int | None) -> None:
        with lazy.optional("Ray is not installed", extra="ray", kind=InputError):
            import ray
        self._ray, self._address, self._cpus = ray, address, cpus_per_actor
        self._is_ours = False

    def engine(self, request: Request, job: Job, ranges: list[int]) -> Iterator[int]:
        """Score ranges, as the engine of `score`, and disconnect."""
        try:
            if ranges:
                self._connect()
                yield from _run(self._ray, request, job, ranges, self._cpus)
        finally:
            if self._is_ours:
                self._ray.shutdown()
                self._is_ours = False

    def platform(self) -> str:
        """Return where the actors compute: cpu, gpu or tpu."""
        self._connect()
        kinds = (kind for kind, _ in ACCELERATORS if _count(self._ray, kind))
        return next(kinds, "cpu").lower()

    def _connect(self) -> None:
        if self._ray.is_initialized():
            return
        try:
            self._ray.init(self._address, logging_level=logging.WARNING)
        except ConnectionError as error:
            hint = "Start it: launch/ray_score.sh, or `ray start --head`."
            raise InputError(f"--address={self._address}: no Ray cluster: {error}", hint) from error
        self._is_ours = True


class ScoreRanges:
    """The actor: called with ranges, it scores them and writes their files."""

    def __init__(self, request: Request, job: Job) -> None:
        self._request, self._job = request, job

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """`range` [n], numbers of ranges → `images` [1] scored; `error` and `hint` [1], or empty.

        Errors of the user are handed on as values: Ray would wrap them, or try again.
        """
        error, hint, images = "", "", 0
        try:
            images = sum(score_here(*self._opened, batch["range"].tolist()))
        except UserError as told:
            error, hint = told.message, told.hint or ""
        return {
            name: np.array([v])
            for name, v in {"images": images, "error": error, "hint": hint}.items()
        }

    @cached_property
    def _opened(self) -> tuple[Predictor, Job, Read]:
        if read_survey(self._job.output) != self._job.input:
            told = f"{self._job.output}: the job is not there on {os.uname().nodename}"
            raise WorkdirError(told, "The output must be a folder that all nodes share.")
        predictor = open_predictor(self._request, read_bundle(self._request.model_dir))
        return predictor, self._job, open_job_input(self._request, self._job)


def _run(
    ray: Any, request: Request, job: Job, ranges: list[int], cpus_per_actor: int | None
) -> Iterator[int]:
    import ray.data

    ray.data.DataContext.get_current().enable_progress_bars = False  # there is ours

    needs, actors = _actors(ray, cpus_per_actor, len(ranges))
    # Paths may be relative to where the command was started, and actors are started elsewhere.
    names = ("model_dir", "input", "output")
    whole = {
        name: value if "://" in value else os.path.abspath(value)
        for name in names
        for value in [getattr(request, name)]
    }
    job = replace(job, output=Path(whole["output"]))
    scored = ray.data.from_items(
        [{"range": number} for number in ranges], override_num_blocks=len(ranges)
    ).map_batches(
        ScoreRanges,
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=actors),
        fn_constructor_args=(replace(request, **whole), job),
        **needs,
    )
    # Closed before Ray is shut down, of which its threads hear too late after an error.
    with contextlib.closing(iter(scored.iter_rows())) as rows:
        for row in rows:
            if row["error"]:
                raise UserError(row["error"], row["hint"] or None)
            yield int(row["images"])


def _actors(ray: Any, cpus: int | None, ranges: int) -> tuple[dict[str, Any], int]:
    """Return what an actor needs, and how many there are at most: one per device."""
    for kind, needs in ACCELERATORS:
        if devices := _count(ray, kind):
            return needs, min(devices, ranges)
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    counts = [int(node["CPU"]) for node in nodes if node.get("CPU", 0) >= 1]
    cpus = cpus or min(counts, default=1)
    actors = sum(count // cpus for count in counts)
    if actors == 0:
        told = f"--cpus_per_actor={cpus}: no node of the cluster has so many"
        raise InputError(told, f"They have: {', '.join(map(str, counts))}.")
    return {"num_cpus": cpus}, min(actors, ranges)


def _count(ray: Any, kind: str) -> int:
    return int(sum(node["Resources"].get(kind, 0) for node in ray.nodes() if node["Alive"]))
