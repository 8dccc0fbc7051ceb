"""The local engine: images are read, decoded, computed and written at once, range after range."""

from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from itertools import groupby, islice
from typing import NamedTuple

import numpy as np

from mlcls_jax.errors import UserError
from mlcls_jax.inference.bundle import Bundle
from mlcls_jax.inference.image_stream import read as read_pictures
from mlcls_jax.inference.predictor import Predictor
from mlcls_jax.inference.views import Views
from mlcls_jax.lookahead import map_ahead
from mlcls_jax.readable import readable
from mlcls_jax.scoring.inputs import KINDS, Item, load
from mlcls_jax.scoring.inputs.kind import Read
from mlcls_jax.scoring.job import Engine, Job, Request
from mlcls_jax.scoring.writer import Rows, write_range


def open_predictor(request: Request, bundle: Bundle) -> Predictor:
    """Open the predictor that a request names."""
    return Predictor(
        bundle,
        device=request.device,
        backend=request.backend,
        batch_size=request.batch_size,
        precision=request.precision,
        threads=request.threads,
        threshold=request.threshold,
    )


def open_job_input(job: Job) -> Read:
    """Return a function that reads the job's images, several ranges at once if asked.

    Raises:
      WorkdirError: the index is missing or damaged.
      DataError, InputError: as by `survey`.
    """
    source, columns = job.request.input, job.request.columns
    return KINDS[job.input.kind].open(source, job.input, job.output, columns)


def local_engine(predictor: Predictor) -> Engine:
    """Return the engine that computes in this process."""
    return lambda job, ranges: score_here(predictor, job, open_job_input(job), ranges)


def score_here(predictor: Predictor, job: Job, read: Read, ranges: Iterable[int]) -> Iterator[int]:
    """Score ranges in this process and write their files; yield how many images were scored.

    Decoding goes on across the borders of ranges. Batches end there, so that a range is computed
    in the same batches whenever it is.
    """
    size = predictor.batch_size
    ahead = max(size, 2 * predictor.threads)
    in_flight = 1 + predictor.backend.replicas  # one waits while each device works
    views = predictor.views(job.request.tta)
    compute = partial(_compute, predictor, views, job.request.embeddings)
    with (
        ThreadPoolExecutor(predictor.threads) as loaders,
        ThreadPoolExecutor(in_flight) as devices,
        closing(map_ahead(loaders, _load, _items(job, read, ranges), ahead)) as loaded,
        closing(_decode(predictor, views, loaded, ahead)) as decoded,
        closing(map_ahead(devices, compute, _batches(decoded, size), in_flight)) as computed,
    ):
        for number, batches in groupby(computed, key=lambda batch: batch.decoded[0].number):
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
    """An image, or a page of a document, as the model sees it; or the reason why there is none."""

    number: int  # of the range
    name: str
    page: int | None
    prepared: tuple[np.ndarray, ...] | None  # uint8 [H, W, 3], in each frame
    error: str | None


class _Computed(NamedTuple):
    """Images of a range that are computed together."""

    decoded: list[_Decoded]
    scores: np.ndarray | tuple[()]  # float32 [n, K] of those without an error
    vectors: np.ndarray | None  # float32 [n, C], their embeddings


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


def _decode(
    predictor: Predictor, views: Views, loaded: Iterator[_Loaded], ahead: int
) -> Generator[_Decoded, None, None]:
    taken: deque[_Loaded] = deque()

    def contents() -> Iterator[bytes]:
        for one in loaded:
            taken.append(one._replace(content=b""))
            yield one.content

    pictures = read_pictures(
        contents(),
        prepare=views.prepare,
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


def _compute(
    predictor: Predictor, views: Views, embeddings: bool, batch: list[_Decoded]
) -> _Computed:
    prepared = [one.prepared for one in batch if one.prepared is not None]
    also = "embeddings" if embeddings else None
    scores, vectors = predictor.compute(views, prepared, also=also) if prepared else ((), None)
    return _Computed(batch, scores, vectors)


def _collect(predictor: Predictor, job: Job, batch: _Computed, rows: Rows) -> int:
    """Put a batch's results into the rows; return how many files begin in it."""
    row = 0
    for one in batch.decoded:
        if one.error is not None:
            rows.errors.append((one.name, one.error))
            continue
        result = predictor.result(
            batch.scores[row],
            image=None,
            threshold=predictor.threshold(None),
            page_index=one.page,
        )
        result.embedding = None if batch.vectors is None else batch.vectors[row]
        rows.add(one.name, result, all_scores=job.request.all_scores)
        row += 1
    return sum(not one.page for one in batch.decoded)
