"""Scoring on a Ray cluster: Ray Data hands the ranges to one actor per device.

Actors write their files themselves, as the local engine does, so that both go on with each other's
work. Bundle, input and output must be at the same paths on all nodes.
"""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from mlcls_jax.errors import UserError, WorkdirError
from mlcls_jax.inference.bundle import read_bundle
from mlcls_jax.inference.predictor import Predictor
from mlcls_jax.ray_cluster import Cluster
from mlcls_jax.scoring.in_process import open_job_input, open_predictor, score_here
from mlcls_jax.scoring.inputs.kind import Read
from mlcls_jax.scoring.job import Engine, Job, read_survey


def ray_engine(cluster: Cluster) -> Engine:
    """Return the engine that computes on a cluster, and disconnects from it."""

    def run(job: Job, ranges: list[int]) -> Iterator[int]:
        if ranges:
            with cluster.connected():
                yield from _run(cluster, job, ranges)

    return run


class ScoreRanges:
    """The actor: called with ranges, it scores them and writes their files."""

    def __init__(self, job: Job) -> None:
        self._job = job

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
        predictor = open_predictor(self._job.request, read_bundle(self._job.request.model_dir))
        return predictor, self._job, open_job_input(self._job)


def _run(cluster: Cluster, job: Job, ranges: list[int]) -> Iterator[int]:
    import ray.data

    ray.data.DataContext.get_current().enable_progress_bars = False  # there is ours

    needs, places = cluster.shares()
    # Paths may be relative to where the command was started, and actors are started elsewhere.
    names = ("model_dir", "input", "output")
    whole = {
        name: value if "://" in value else os.path.abspath(value)
        for name in names
        for value in [getattr(job.request, name)]
    }
    job = replace(job, request=replace(job.request, **whole))
    scored: Any = ray.data.from_items(
        [{"range": number} for number in ranges], override_num_blocks=len(ranges)
    ).map_batches(
        ScoreRanges,
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=min(places, len(ranges))),
        fn_constructor_args=(job,),
        **needs,
    )
    # Closed before Ray is shut down, of which its threads hear too late after an error.
    with contextlib.closing(iter(scored.iter_rows())) as rows:
        for row in rows:
            if row["error"]:
                raise UserError(row["error"], row["hint"] or None)
            yield int(row["images"])
