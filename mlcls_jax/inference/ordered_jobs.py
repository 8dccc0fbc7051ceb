"""Jobs done in threads, ahead of the consumer, who gets their results in order."""

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from queue import SimpleQueue
from typing import Any

# It returns a result, or more jobs whose results come in its place.
Job = Callable[[], "Any | Iterator[Job]"]


def run_in_order(jobs: Iterator[Job], threads: int, ahead: int) -> Generator[Any, None, None]:
    """Yield the results of `jobs`, of which up to `ahead` are taken up before they are asked for.

    Closing the iterator ends the threads, each after the job in its hands.
    """
    with _workers(threads) as submit:
        yield from _in_order(jobs, submit, ahead)


def _in_order(jobs: Iterator[Job], submit: Callable[[Job], Future], ahead: int) -> Iterator[Any]:
    waiting: deque[Future] = deque()
    while True:
        # One comes in for each that goes out, and more only when we would have to wait: so a slow
        # source, such as a camera, is not asked for many before the first is given.
        while len(waiting) < ahead and (future := _submit_next(jobs, submit)):
            waiting.append(future)
            if waiting[0].done():
                break
        if not waiting:
            return
        found = waiting.popleft().result()
        if isinstance(found, Iterator):
            yield from _in_order(found, submit, ahead)
        else:
            yield found
        del found  # the consumer may be done with it before the next is ready


def _submit_next(jobs: Iterator[Job], submit: Callable[[Job], Future]) -> Future | None:
    try:
        job = next(jobs, None)
    except Exception as error:  # noqa: BLE001
        future: Future = Future()
        future.set_exception(error)  # is raised when its turn comes, after what was before it
        return future
    return job and submit(job)


@contextmanager
def _workers(threads: int) -> Iterator[Callable[[Job], Future]]:
    """Give a function that has jobs done in up to `threads` threads.

    On leaving, waiting jobs are dropped, and each thread ends after the job in its hands. Unlike
    those of `concurrent.futures`, the threads do not hold up the end of the program.
    """
    tasks: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
    stopped = threading.Event()
    started: list[threading.Thread] = []

    def work() -> None:
        while (task := tasks.get()) is not None and not stopped.is_set():
            task()
            del task  # it holds the result, also while we wait for the next

    def submit(job: Job) -> Future:
        future: Future = Future()
        tasks.put(partial(_do, job, future))
        if len(started) < threads:
            started.append(threading.Thread(target=work, name="mlcls-read", daemon=True))
            started[-1].start()
        return future

    try:
        yield submit
    finally:
        stopped.set()
        for _ in started:
            tasks.put(None)


def _do(job: Job, future: Future) -> None:
    try:
        future.set_result(job())
    except BaseException as error:  # noqa: BLE001
        future.set_exception(error)  # raised in the consumer's thread
