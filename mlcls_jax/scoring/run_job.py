"""`score`: what is left to do of a job is found, done by an engine, and checked on the disk."""

import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq

from mlcls_jax.bars import progress
from mlcls_jax.errors import DataError, InputError, UserError
from mlcls_jax.inference.backends import BACKENDS, settle_precision
from mlcls_jax.inference.bundle import Bundle, read_bundle
from mlcls_jax.inference.devices import parse_device
from mlcls_jax.inference.precision import settle
from mlcls_jax.inference.predictor import Predictor
from mlcls_jax.lock import locked
from mlcls_jax.scoring.in_process import local_engine, open_predictor
from mlcls_jax.scoring.inputs import find, same_input, survey
from mlcls_jax.scoring.job import (
    Engine,
    Job,
    Request,
    open_job,
    output_folder,
    read_precision,
    read_survey,
)
from mlcls_jax.scoring.writer import count_rows, is_whole, remove_leftovers

log = logging.getLogger(__name__)


class Summary(NamedTuple):
    """Result of a shard's part of the job."""

    job: Job
    images: int  # of the shard
    rows: int  # in its part files: one per image, or one per page of documents
    broken: int  # images and pages that could not be read
    scored: int  # images that this run scored; those before it had the others
    seconds: float  # of this run


def score(
    request: Request,
    engine: Engine | None = None,
    *,
    platform: Callable[[], str] | None = None,
) -> Summary:
    """Score the input into Parquet files, or what is left to do of that; see docs/scoring.md.

    A job that is not divided into shards and in which nothing at all can be read is not done.

    Args:
      request: what is asked for.
      engine: does the ranges; None: this process.
      platform: tells whether the engine computes on cpu, gpu or tpu; asked when a job begins whose
        precision is auto.

    Raises:
      UserError: the bundle, the input, the output or an option cannot be used, or the output folder
        holds another job. An image that cannot be read raises nothing.
      DataError: none of all images can be read.
      WorkdirError: another process does this shard.
    """
    if not 0 <= request.shard < request.shards:
        raise InputError(
            f"shard {request.shard}/{request.shards}: of {request.shards}, the first is 0 and the"
            f" last {request.shards - 1}"
        )
    request = replace(request, input=find(request.input))
    with output_folder(request.output) as output:
        bundle = read_bundle(request.model_dir)
        request = replace(request, precision=_precision(request, output, platform))
        # A cheap one where an engine computes elsewhere: it checks the threshold.
        plain = replace(request, device="cpu", backend="jax", precision="float32")
        predictor = open_predictor(request if engine is None else plain, bundle)
        predictor.views(request.tta)  # refuses what is none
        job = _begin_or_go_on(request, output, _facts(bundle, predictor))
    with locked(output, f".lock-{request.shard:05d}", is_needed=False):
        return _run(job, engine or local_engine(predictor))


def _run(job: Job, engine: Engine) -> Summary:
    started = time.perf_counter()
    missing = _missing_ranges(job)
    images = sum(len(job.images(number)) for number in job.ranges)
    scored = sum(len(job.images(number)) for number in missing)
    if scored < images:
        log.info("%s of %s images were scored before.", f"{images - scored:,}", f"{images:,}")
    if missing:
        job.reopen()
    bar = progress(desc="scoring", total=images, initial=images - scored, unit="image")
    with bar:
        for done in _score_ranges(engine, job, missing):
            bar.update(done)
    seconds = time.perf_counter() - started
    rows, broken = count_rows(job)
    remove_leftovers(job)
    if broken and not rows:
        _tell_nothing_was_read(job, images)
    counts = {"images": images, "rows": rows, "broken": broken}
    if missing or not job.success.exists():
        rate = {"images_per_s": round(scored / seconds, 1), "scored_in_last_run": scored}
        job.finish(counts | rate)
    return Summary(job, scored=scored, seconds=seconds, **counts)


def _precision(request: Request, output: Path, platform: Callable[[], str] | None) -> str:
    """Return the request's precision; instead of auto, one for all machines of the job.

    That is the one that it began with, or else the best where the engine computes.
    """
    if request.precision != "auto":
        return request.precision
    if begun := read_precision(output):
        return begun
    if platform is None:
        return settle_precision("auto", request.backend, request.device)
    name = "jax" if request.backend == "auto" else request.backend
    where = parse_device(request.device).kind if request.device else platform()
    return settle("auto", where, BACKENDS[name].precisions.get(where, ()))


def _begin_or_go_on(request: Request, output: Path, facts: dict[str, Any]) -> Job:
    found = survey(request.input, output, request.columns)
    begun = read_survey(output) or found
    if warning := same_input(begun, found, output):
        log.warning(warning)
    return open_job(request, begun, facts)


def _missing_ranges(job: Job) -> list[int]:
    there = set(os.listdir(job.output))
    missing = [number for number in job.ranges if job.part(number).name not in there]
    return sorted(missing + _damaged(job, set(job.ranges) - set(missing)))


def _score_ranges(engine: Engine, job: Job, missing: list[int]) -> Iterator[int]:
    """Have ranges scored and look at the result; yield the number of each one's images.

    Raises:
      UserError: a file is damaged as soon as it is written.
    """
    if not missing:
        return
    yield from engine(job, missing)
    # All is read once more: a disk may give back other bytes than it got.
    if again := _damaged(job, job.ranges):
        for _ in engine(job, again):
            pass
        if still := _damaged(job, again):
            hint = "Check the disk, or name a folder on another one."
            raise UserError(f"{job.part(still[0])}: is damaged right after writing", hint)


def _tell_nothing_was_read(job: Job, images: int) -> None:
    """Warn for a shard, as others may have gone well; otherwise raise an error.

    Raises:
      DataError: as it says.
    """
    files = (job.errors(number) for number in job.ranges)
    first = next(pq.read_table(file)["error"][0].as_py() for file in files if file.exists())
    told = f"{job.request.input}: none of its {images:,} images could be read; the first: {first}"
    if job.request.shards > 1:
        log.warning("shard %d/%d: %s", job.request.shard, job.request.shards, told)
        return
    hint = f"All reasons are in {job.output}/_errors-*. To try again, delete that folder."
    if job.input.kind == "list":
        hint = (
            "A list has one path or URL per line, relative to its folder; of a .csv or .tsv,"
            f" --image_column names the column. {hint}"
        )
    raise DataError(told, hint)


def _damaged(job: Job, numbers: Iterable[int]) -> list[int]:
    """Return the ranges whose files are not as they were written, and warn of each."""
    damaged = [number for number in sorted(numbers) if not is_whole(job, number)]
    for number in damaged:
        log.warning("%s: is damaged, and scored again.", job.part(number))
    return damaged


def _facts(bundle: Bundle, predictor: Predictor) -> dict[str, Any]:
    """Return what the results say about the model."""
    threshold = predictor.threshold(None)
    return {
        "name": bundle.model.network.config.name,
        "labels": list(bundle.labels),
        "threshold": threshold if threshold is None else np.asarray(threshold).tolist(),
        "temperature": bundle.temperature,
        "image_size": list(bundle.image_size),
        **bundle.frame.describe(),
        "weights_sha256": bundle.weights_sha256,
    }
