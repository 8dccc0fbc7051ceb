"""Batches from a source: a stream that is a pure function of seed and step.

The only file that imports Grain. Nothing of the loader needs saving: a resumed run slices the
stream at its step, and threads, processes and buffers may change in between.
"""

import contextlib
import dataclasses
import errno
import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Protocol, cast

import cv2
import grain
import numpy as np
from absl import flags

from mlcls_jax.config import Data
from mlcls_jax.data.augment import Augmentation, Crop, augmentations, crop_of
from mlcls_jax.data.frame import Frame
from mlcls_jax.data.images import resize, resize_fast
from mlcls_jax.data.sources import load
from mlcls_jax.data.types import Batch, Example, Source
from mlcls_jax.errors import DataError

log = logging.getLogger(__name__)

GREY = 128
SHARED_MEMORY = "/dev/shm"
SIGBUS = "exit code -7"  # in Grain's message about a reading process that has died

ImageAndTarget = tuple[np.ndarray, np.ndarray]


@dataclasses.dataclass
class Reader:
    """Reads examples of one size; keeps account of images that could not be read."""

    source: Source
    frame: Frame
    on_error: str  # "raise", or "skip": masked, counted and named in `broken`
    broken: dict[int, str] = dataclasses.field(default_factory=dict)  # index → message

    def __call__(self, index: int) -> Example:
        """Example `index` as evaluation sees it; past the end of the source: padding."""

        def read() -> ImageAndTarget:
            image, target = load(self.source, index)
            return self.frame(image), target

        return self._example(index, read)

    def for_training(self, config: Data) -> Callable[[int, np.random.Generator], Example]:
        """Return what reads example `index`, augmented by the generator's draws.

        Raises:
          ConfigError: data.augment names what there is not.
        """
        return partial(
            self._augmented,
            is_exact=config.train_resize == "exact",
            crop=crop_of(config.augment),
            functions=augmentations(config.augment),
        )

    def _augmented(
        self,
        index: int,
        rng: np.random.Generator,
        *,
        is_exact: bool,
        crop: Crop | None,
        functions: list[Augmentation],
    ) -> Example:
        resized, frame = resize if is_exact else resize_fast, self.frame

        def read() -> ImageAndTarget:
            box = crop(rng) if crop else None
            needed = box.needed(frame) if box else frame.at_least
            image, target = load(self.source, index, at_least=None if is_exact else needed)
            image = box.fitted(image, frame, resized) if box else frame(image, resized)
            for function in functions:
                image = function(image, rng)
            return image, target

        return self._example(index, read)

    def _example(self, index: int, read: Callable[[], ImageAndTarget]) -> Example:
        """Return what `read` gives, as an example; masked if it raises an allowed DataError."""
        if index >= len(self.source):
            return self._masked(index)
        try:
            image, target = read()
        except DataError as error:
            if self.on_error == "raise":
                raise
            if index not in self.broken:
                self.broken[index] = error.message
                log.warning("left out: %s", error.message)
            return self._masked(index)
        return {
            "image": image,
            "target": target,
            "mask": np.array(True),
            "index": np.array(index, np.int32),
        }

    def _masked(self, index: int) -> Example:
        return {
            "image": np.full((*self.frame.size, 3), GREY, np.uint8),
            "target": np.zeros(len(self.source.labels), np.float32),
            "mask": np.array(False),
            "index": np.array(index, np.int32),
        }


class EvalReader(Protocol):
    """Reads one example of each index, always the same."""

    @property
    def source(self) -> Source: ...

    def __call__(self, index: int) -> Example: ...


class AnyReader(EvalReader, Protocol):
    """Of images (`Reader`), or of what was computed from them."""

    @property
    def frame(self) -> Frame: ...

    @property
    def broken(self) -> dict[int, str]: ...

    def for_training(self, config: Data) -> Callable[[int, np.random.Generator], Example]: ...


def train_batches(
    reader: AnyReader,
    config: Data,
    *,
    batch_size: int,
    seed: int,
    start_step: int,
    end_step: int,
    rows: Sequence[int] | None = None,
    frames: Sequence[Frame] = (),
) -> Iterator[Batch]:
    """Return batches of steps `start_step` … `end_step` - 1, reshuffled every pass over the source.

    Threads begin to read at once, processes when the first batch is asked for. Of several hosts'
    processes each reads its own `rows` of every batch; None: all of them. What is in a row does not
    depend on who reads it.

    With `frames`, which only a `Reader` takes, the images of each step have one of them, drawn by
    seed and step, in place of the reader's.

    Raises:
      ConfigError: data.augment names what there is not.
    """
    _start_reading()
    reading, account = reader, None
    if isinstance(reader, Reader) and config.workers:
        # Processes only mask what they cannot read: `_from_processes` has the account, and raises
        # or goes on. What is computed already is read by threads.
        reading, account = dataclasses.replace(reader, on_error="skip", broken={}), reader
    # The generators are made from the seed and the place in the whole stream.
    order = _order(len(reader.source), seed, end_step * batch_size)
    readings = [reading]
    if frames:
        assert isinstance(reading, Reader)  # features have no frames
        readings = [dataclasses.replace(reading, frame=frame) for frame in frames]
    streams = [order.random_map(one.for_training(config)) for one in readings]
    rows = rows or range(batch_size)
    dataset = _rows_of(streams, rows, batch_size, end_step, partial(_which, len(streams), seed))
    return _iterate(dataset[start_step:end_step], config, account)


def _which(frames: int, seed: int, step: int) -> int:
    """Return which of the frames the images of a step have."""
    return int(np.random.default_rng((seed, step)).integers(frames)) if frames > 1 else 0


def train_indices(source_size: int, *, batch_size: int, seed: int, step: int) -> list[int]:
    """Return the indices of the examples of step `step`, from 0, without reading them."""
    order = _order(source_size, seed, (step + 1) * batch_size)
    return [cast(int, order[i]) for i in range(step * batch_size, (step + 1) * batch_size)]


def eval_batches(
    reader: EvalReader, config: Data, *, batch_size: int, rows: Sequence[int] | None = None
) -> Iterator[Batch]:
    """Return every example once, in order; the last batch is padded with masked examples.

    Threads begin to read at once. Of several processes each reads its own `rows` of every batch;
    None: all of them.
    """
    steps = -(-len(reader.source) // batch_size)
    examples = grain.MapDataset.range(steps * batch_size).map(reader)
    dataset = _rows_of([examples], rows or range(batch_size), batch_size, steps, lambda _: 0)
    return _iterate(dataset, config, None)  # processes take longer to start


def _order(source_size: int, seed: int, length: int) -> grain.MapDataset:
    """Return indices of the source, every pass in another order, `length` of them at least."""
    # Not endless: batches of one of an endless dataset overflow in Grain's length.
    passes = -(-length // source_size)
    return grain.MapDataset.range(source_size).seed(seed).shuffle().repeat(passes)


def _rows_of(
    streams: Sequence[grain.MapDataset],
    rows: Sequence[int],
    batch_size: int,
    steps: int,
    which: Callable[[int], int],
) -> grain.MapDataset:
    """Some rows of every batch that examples make up; `which` says from which stream, by step."""
    pick = partial(_pick, streams=streams, rows=rows, batch_size=batch_size, which=which)
    return grain.MapDataset.range(steps * len(rows)).map(pick).batch(len(rows))


def _pick(
    index: int,
    *,
    streams: Sequence[grain.MapDataset],
    rows: Sequence[int],
    batch_size: int,
    which: Callable[[int], int],
) -> Example:
    step, row = divmod(index, len(rows))
    return cast(Example, streams[which(step)][step * batch_size + rows[row]])


def _iterate(
    dataset: grain.MapDataset, config: Data, processes_for: Reader | None
) -> Iterator[Batch]:
    # Grain's own default would buffer 500 batches; fewer than threads would leave some idle.
    ahead = max(config.prefetch, config.threads)
    options = grain.ReadOptions(
        num_threads=config.threads, prefetch_buffer_size=ahead if config.threads else 0
    )
    batches = dataset.to_iter_dataset(options)
    if processes_for is not None:
        return _from_processes(batches, processes_for, config, config.workers)
    iterator = iter(batches)
    iterator.start_prefetch()
    return iterator


def _from_processes(
    batches: grain.IterDataset, reader: Reader, config: Data, workers: int
) -> Iterator[Batch]:
    if not flags.FLAGS.is_parsed():  # Grain looks at its own; nobody has parsed any in a library
        flags.FLAGS.mark_as_parsed()
    processes = grain.MultiprocessingOptions(
        num_workers=workers, per_worker_buffer_size=max(1, config.prefetch // workers)
    )
    with _shared_memory_named():
        iterator = iter(batches.mp_prefetch(processes, worker_init_fn=_start_worker))
        try:
            for batch in iterator:
                for index in batch["index"][~batch["mask"]].tolist():
                    if index not in reader.broken:
                        reader(index)
                yield batch
        finally:
            iterator.close()


@contextlib.contextmanager
def _shared_memory_named() -> Iterator[None]:
    """Name the place that is full, which in a container is much smaller than the disks."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        # Full as a batch is put there, or, where memory is handed out lazily, as it is filled.
        if getattr(error, "errno", None) != errno.ENOSPC and SIGBUS not in str(error):
            raise
        raise DataError(
            f"{SHARED_MEMORY}: is full: reading processes hand their batches on in it",
            "Read with threads alone, data.workers=0; or make it larger: docker run"
            " --shm-size=8g, in Kubernetes an emptyDir with medium: Memory mounted there.",
        ) from error


def _start_reading() -> None:
    cv2.setNumThreads(0)  # its own threads would compete with ours


def _start_worker(*_: int) -> None:
    _start_reading()
    # Ctrl-C, and SIGTERM from some launchers, reach the trainer's processes all at once; it still
    # needs these for the step that it saves.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_the_trainer, daemon=True).start()
    os.environ["JAX_PLATFORMS"] = "cpu"  # the accelerator is the trainer's
    logging.disable(logging.WARNING)  # the trainer tells what could not be read


def _end_with_the_trainer() -> None:
    trainer = multiprocessing.parent_process()
    assert trainer is not None
    trainer.join()
    os._exit(1)
