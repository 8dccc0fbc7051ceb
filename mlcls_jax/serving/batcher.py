"""Images of many requests, computed together.

A batch starts as soon as the device is free, with whatever has come in meanwhile: a lone image does
not wait, and under load batches grow by themselves.
"""

import logging
import threading
import time
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, UInt8

from mlcls_jax.inference.predictor import Predictor
from mlcls_jax.inference.views import Views
from mlcls_jax.serving.monitor import Monitor

log = logging.getLogger(__name__)

Scored = tuple[Float[np.ndarray, " K"], Float[np.ndarray, "Q h w"] | None]


Prepared = tuple[UInt8[np.ndarray, "H W 3"], ...]  # a picture by `Views.prepare`


@dataclass(frozen=True)
class _Job:
    prepared: Prepared
    future: "Future[Scored]"
    entered: float = field(default_factory=time.monotonic)


class Batcher:
    """A queue, and a thread for each of the predictor's devices that empties it.

    While a device is idle, the oldest image waits `max_wait_s` for others.
    """

    def __init__(
        self,
        predictor: Predictor,
        views: Views,
        *,
        max_batch: int,
        max_wait_s: float,
        monitor: Monitor,
    ) -> None:
        self._predictor, self._views = predictor, views
        self._max_batch = max_batch
        self._max_wait_s = max_wait_s
        self._monitor = monitor
        # Images to be explained take another program, and so batches of their own.
        self._queues: dict[bool, deque[_Job]] = {False: deque(), True: deque()}
        self._changed = threading.Condition()
        self._is_closing = False
        monitor.watch_queue(lambda: sum(map(len, self._queues.values())))
        for _ in range(predictor.backend.replicas):
            self._start_thread()

    def submit(self, prepared: Prepared, *, explain: bool) -> "Future[Scored]":
        """Queue a prepared picture; cancel the future to take it out again."""
        job = _Job(prepared, Future())
        with self._changed:
            self._queues[explain].append(job)
            self._changed.notify()
        return job.future

    def close(self) -> None:
        """Let the threads end when the queue is empty."""
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()

    def _start_thread(self) -> None:
        threading.Thread(target=self._work, name="batches", daemon=True).start()

    def _work(self) -> None:
        jobs: list[_Job] = []
        try:
            while taken := self._take():
                explain, jobs = taken
                self._compute(jobs, explain)
        # Whatever ends a thread, even a SystemExit out of a runtime, must not leave requests
        # waiting, nor the server without a thread.
        except BaseException as error:
            log.exception("A batch ended its thread, which is replaced")
            self._start_thread()
            _fail(jobs, error)

    def _take(self) -> tuple[bool, list[_Job]] | None:
        """Return the next images of one kind, oldest first; None: closing, and none is left."""
        with self._changed:
            while True:
                waiting = {kind: jobs for kind, jobs in self._queues.items() if jobs}
                if not waiting:
                    if self._is_closing:
                        return None
                    self._changed.wait()
                    continue
                explain, queue = min(waiting.items(), key=lambda item: item[1][0].entered)
                rest = queue[0].entered + self._max_wait_s - time.monotonic()
                if rest > 0 and len(queue) < self._max_batch and not self._is_closing:
                    self._changed.wait(rest)
                    continue
                jobs = []
                while queue and len(jobs) < self._max_batch:
                    job = queue.popleft()
                    if job.future.set_running_or_notify_cancel():
                        jobs.append(job)
                if jobs:
                    return explain, jobs

    def _compute(self, jobs: list[_Job], explain: bool) -> None:
        started = time.monotonic()
        for job in jobs:
            self._monitor.queue.observe(started - job.entered)
        prepared = [job.prepared for job in jobs]
        try:
            scores, maps = self._predictor.compute(
                self._views, prepared, also="maps" if explain else None
            )
        except Exception as error:
            log.exception("A batch of %d images failed", len(jobs))
            _fail(jobs, error)
            return
        self._monitor.compute.observe(time.monotonic() - started)
        self._monitor.batches.observe(len(jobs))
        self._monitor.images.inc(len(jobs))
        for row, job in enumerate(jobs):
            job.future.set_result((scores[row], None if maps is None else maps[row]))


def _fail(jobs: list[_Job], error: BaseException) -> None:
    # A new error: SystemExit itself would end the thread that asks for the result.
    for job in jobs:
        if not job.future.done():
            job.future.set_exception(RuntimeError(f"the batch failed: {error!r}"))
