"""Scoring: images are read, decoded, computed and written at the same time, range after range."""

import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import groupby, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
from tqdm import tqdm

from mlcls_jax.errors import DataError, InputError, UserError
from mlcls_jax.inference.bundle import Bundle, read_bundle
from mlcls_jax.inference.file_names import readable
from mlcls_jax.inference.image_stream import read as read_pictures
from mlcls_jax.inference.predictor import Predictor
from mlcls_jax.lookahead import map_ahead
from mlcls_jax.scoring.inputs import (
    Columns,
    Item,
    Read,
    find,
    load,
    open_input,
    same_input,
    survey,
)
from mlcls_jax.scoring.job import Job, Request, check_output, open_job, read_survey
from mlcls_jax.scoring.writer import Rows, count_rows, is_whole, remove_leftovers, write_range

log = logging.getLogger(__name__)

# Does the given ranges of the job; yields the number of each one's images as it is done.
Engine = Callable[[Request, Job, list[int]], Iterator[int]]


class Summary(NamedTuple):
    """What a shard's part of the job came to."""

    job: Job
    images: int  # of the shard
    rows: int  # in its part files: one an image, or one a page of documents
    broken: int  # images and pages that could not be read
    scored: int  # images that this run scored; those before it had the others
    seconds: float  # of this run


def score(request: Request, engine: Engine | None = None) -> Summary:
    """Score the input into Parquet files, or what is left to do of that; see docs/scoring.md.

    A job that is not divided into shards and in which nothing at all can be read is not done.

    Args:
      request: what is asked for.
      engine: does the ranges; None: this process.

    Raises:
      UserError: the bundle, the input, the output or an option cannot be used, or the output folder
        holds another job. An image that cannot be read raises nothing.
      DataError: none of all images can be read.
    """
    if not 0 <= request.shard < request.shards:
        raise InputError(
            f"shard {request.shard}/{request.shards}: of {request.shards}, the first is 0 and the"
            f" last {request.shards - 1}"
        )
    request = replace(request, input=find(request.input))
    output = check_output(request.output)
    bundle = read_bundle(Path(request.model_dir))
    # A cheap one where an engine computes elsewhere: it checks the threshold.
    predictor = open_predictor(request if engine is None else _as_plain(request), bundle)
    found = survey(request.input, output, columns_of(request))
    begun = read_survey(output) or found
    if warning := same_input(begun, found, output):
        log.warning(warning)
    job = open_job(request, begun, _facts(request, bundle, predictor))
    started = time.perf_counter()
    there = set(os.listdir(output))
    missing = [number for number in job.ranges if job.part(number).name not in there]
    missing = sorted(missing + _damaged(job, set(job.ranges) - set(missing)))
    images = sum(len(job.images(number)) for number in job.ranges)
    scored = sum(len(job.images(number)) for number in missing)
    if scored < images:
        log.info("%s of %s images were scored before.", f"{images - scored:,}", f"{images:,}")
    if missing:
        job.reopen()
    run_ranges = engine or (
        lambda request, job, ranges: score_here(
            predictor, job, open_job_input(request, job), ranges
        )
    )
    bar = tqdm(desc="scoring", total=images, initial=images - scored, unit="image", disable=None)
    with bar:
        for done in run_ranges(request, job, missing):
            bar.update(done)
        # All is read once more: a disk may give back other bytes than it got.
        if again := _damaged(job, job.ranges if missing else ()):
            for _ in run_ranges(request, job, again):
                pass
            if still := _damaged(job, again):
                hint = "Look after the disk, or name a folder on another one."
                raise UserError(f"{job.part(still[0])}: is damaged as soon as written", hint)
    seconds = time.perf_counter() - started
    rows, broken = count_rows(job)
    remove_leftovers(job)
    if broken and not rows:
        _tell_nothing_was_read(request, job, images)
    counts = {"images": images, "rows": rows, "broken": broken}
    if missing or not job.success.exists():
        rate = {"images_per_s": round(scored / seconds, 1), "scored_in_last_run": scored}
        job.finish(counts | rate)
    return Summary(job, scored=scored, seconds=seconds, **counts)


def _tell_nothing_was_read(request: Request, job: Job, images: int) -> None:
    """A warning for a shard, as others may have gone well; otherwise an error.

    Raises:
      DataError: as it says.
    """
    files = (job.errors(number) for number in job.ranges)
    first = next(pq.read_table(file)["error"][0].as_py() for file in files if file.exists())
    told = f"{request.input}: none of its {images:,} images could be read; the first: {first}"
    if job.shards > 1:
        log.warning("shard %d/%d: %s", job.shard, job.shards, told)
        return
    hint = f"All reasons are in {job.output}/_errors-*. To try again, delete that folder."
    if job.input.kind == "list":
        hint = (
            "A list has a path or URL a line, relative to its folder; of a .csv or .tsv,"
            f" --image_column names the column. {hint}"
        )
    raise DataError(told, hint)


def _damaged(job: Job, numbers: Iterable[int]) -> list[int]:
    """Ranges whose files are not as they were written; each is told."""
    damaged = [number for number in sorted(numbers) if not is_whole(job, number)]
    for number in damaged:
        log.warning("%s: is damaged, and scored again.", job.part(number))
    return damaged


def open_predictor(request: Request, bundle: Bundle) -> Predictor:
    """The predictor that a request names."""
    return Predictor(
        bundle,
        device=request.device,
        backend=request.backend,
        batch_size=request.batch_size,
        precision=request.precision,
        threads=request.threads,
        threshold=request.threshold,
    )


def open_job_input(request: Request, job: Job) -> Read:
    """How the job's images are read."""
    return open_input(request.input, job.input, job.output, columns_of(request))


def columns_of(request: Request) -> Columns:
    """Which part of the input is meant."""
    return Columns(request.image_column, request.path_column, request.split)


def score_here(predictor: Predictor, job: Job, read: Read, ranges: Iterable[int]) -> Iterator[int]:
    """Score ranges in this process and write their files; yields how many images were scored.

    Decoding goes on across the borders of ranges. Batches end there, so that a range is computed
    in the same batches whenever it is.
    """
    size = predictor.batch_size
    ahead = max(size, 2 * predictor.threads)
    in_flight = 1 + predictor.backend.replicas  # one waits while each device works
    compute = partial(_compute, predictor)
    with (
        ThreadPoolExecutor(predictor.threads) as loaders,
        ThreadPoolExecutor(in_flight) as devices,
        closing(map_ahead(loaders, _load, _items(job, read, ranges), ahead)) as loaded,
        closing(_decode(predictor, loaded, ahead)) as decoded,
        closing(map_ahead(devices, compute, _batches(decoded, size), in_flight)) as computed,
    ):
        for number, batches in groupby(computed, key=lambda batch: batch.number):
            rows = Rows()
            for batch in batches:
                yield _collect(predictor, job, batch, rows)
            write_range(job, number, rows)


class _Loaded(NamedTuple):
    """The content of an image file, or the reason why there is none."""

    number: int  # of the range
    name: str
    content: bytes
    error: UserError | None


class _Decoded(NamedTuple):
    """An image, or a page of a document, of the model's size; or the reason why there is none."""

    number: int  # of the range
    name: str
    page: int | None
    image: np.ndarray | None  # uint8 [H, W, 3]
    error: str | None


class _Computed(NamedTuple):
    """Images of a range that are computed together."""

    number: int  # of the range
    decoded: list[_Decoded]
    scores: np.ndarray | tuple[()]  # float32 [n, K] of those without an error


def _items(job: Job, read: Read, ranges: Iterable[int]) -> Iterator[tuple[int, Item]]:
    for number in ranges:
        for item in read(job.images(number)):
            yield number, item


def _load(numbered: tuple[int, Item]) -> _Loaded:
    number, item = numbered
    name = readable(item.name)
    try:
        return _Loaded(number, name, load(item), None)
    except UserError as error:
        return _Loaded(number, name, b"", error)


def _decode(predictor: Predictor, loaded: Iterator[_Loaded], ahead: int) -> Iterator[_Decoded]:
    taken: deque[_Loaded] = deque()

    def contents() -> Iterator[bytes]:
        for one in loaded:
            taken.append(one._replace(content=b""))
            yield one.content

    pictures = read_pictures(
        contents(),
        prepare=predictor.prepare,
        threads=predictor.threads,
        ahead=ahead,
        keep_image=False,
    )
    index = -1
    with closing(pictures):
        for picture in pictures:
            if not picture.page:  # of a document's pages the first is 0
                one, index = taken.popleft(), index + 1
            error = one.error or picture.error
            # It names its input by number, as bytes have no name.
            told = error and readable(error.message).replace(f"input {index}", one.name, 1)
            yield _Decoded(one.number, one.name, picture.page, picture.prepared, told)


def _batches(decoded: Iterator[_Decoded], size: int) -> Iterator[list[_Decoded]]:
    for _, group in groupby(decoded, key=lambda one: one.number):
        while batch := list(islice(group, size)):
            yield batch


def _compute(predictor: Predictor, batch: list[_Decoded]) -> _Computed:
    images = [one.image for one in batch if one.error is None]
    scores = predictor.run(np.stack(images)) if images else ()
    return _Computed(batch[0].number, batch, scores)


def _collect(predictor: Predictor, job: Job, batch: _Computed, rows: Rows) -> int:
    """Put a batch's results into the rows; how many files begin in it."""
    scores = iter(batch.scores)
    for one in batch.decoded:
        if one.error is not None:
            rows.add_error(one.name, one.error)
            continue
        result = predictor.result(
            next(scores),
            image=one.image,
            threshold=predictor.threshold(None),
            page_index=one.page,
        )
        rows.add(one.name, result, all_scores=job.all_scores)
    return sum(not one.page for one in batch.decoded)


def _as_plain(request: Request) -> Request:
    return replace(request, device="cpu", backend="jax", precision="float32")


def _facts(request: Request, bundle: Bundle, predictor: Predictor) -> dict[str, Any]:
    """What the results say about the model."""
    threshold = predictor.threshold(None)
    return {
        "name": bundle.model.network.config.name,
        "labels": list(bundle.labels),
        "threshold": threshold if threshold is None else np.asarray(threshold).tolist(),
        "temperature": bundle.temperature,
        "image_size": list(bundle.image_size),
        "weights_sha256": bundle.weights_sha256,
    }
