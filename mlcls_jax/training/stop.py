"""Ending a run when it is asked to: SIGTERM, Ctrl-C, a time limit."""

import contextlib
import logging
import math
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from typing import NoReturn, Self, TypeVar

import jax

from mlcls_jax import parallel
from mlcls_jax.errors import InterruptedRunError, PreemptedError
from mlcls_jax.signals import heard, leave

log = logging.getLogger(__name__)

T = TypeVar("T")


class AskedToEndError(Exception):
    """SIGTERM or Ctrl-C came during work that can be done again."""


class Stop:
    """Ask the run to save and end: after SIGTERM or Ctrl-C, or when its time is over.

    With several processes all learn of it at the same step, whichever was asked.

    A thread takes the signals, since the main thread hears of none while it compiles or waits for
    a device. Before the first step there is nothing to save, and a second Ctrl-C means now: then
    the process ends at once.
    """

    def __init__(self, minutes: float | None, saved: Callable[[], int | None]) -> None:
        """Set the limit; `saved` returns the step of the newest checkpoint on disk, or None."""
        self._end = math.inf if minutes is None else time.monotonic() + 60 * minutes
        self._saved = saved
        self._asked: int | None = None  # the signal
        self._is_over = False
        self._is_underway = False

    def __enter__(self) -> Self:
        # Of several processes JAX's own service takes SIGTERM.
        numbers = [signal.SIGINT] + [signal.SIGTERM] * (jax.process_count() == 1)
        self._hearing = heard(numbers, self._ask, lambda *_: None)
        self._hearing.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._hearing.__exit__(None, None, None)

    def underway(self) -> None:
        """Take note that a step is sent off: from now on there is something to save."""
        self._is_underway = True

    def after(self, step: int) -> bool:
        """Return whether to end after this step; to be called after every one."""
        if time.monotonic() >= self._end:
            self._end = math.inf
            log.info("The time limit is reached.")
            self._is_over = True
            if jax.process_count() > 1:
                os.kill(os.getpid(), signal.SIGTERM)
        if jax.process_count() == 1:
            return self._is_over or self._asked is not None
        return parallel.all_asked_to_end(step)

    def unless_asked(self, items: Iterable[T]) -> Iterator[T]:
        """Yield the items, for work that can be done again.

        Raises:
          AskedToEndError: a signal came. Not with several processes, which could not agree.
        """
        for item in items:
            if self._asked is not None and jax.process_count() == 1:
                raise AskedToEndError
            yield item

    def error(self, step: int, total: int) -> PreemptedError:
        """Return the error to raise once the step is saved."""
        kind = InterruptedRunError if self._asked == signal.SIGINT else PreemptedError
        return kind(
            f"Stopped after step {step} of {total}; a checkpoint is saved.",
            "The same command resumes from here.",
        )

    def _ask(self, number: int) -> None:
        if not self._is_underway:
            self._leave(number, "Stopped before the first step.")
        if number == self._asked == signal.SIGINT:
            self._leave(number, "Interrupted.")
        if self._asked is None or number == signal.SIGINT:
            self._asked = number
            if number == signal.SIGINT:
                log.info("Saving the step in hand, then ending; Ctrl-C again ends at once.")
            if jax.process_count() > 1:
                with contextlib.suppress(OSError):
                    os.kill(os.getpid(), signal.SIGTERM)

    def _leave(self, number: int, told: str) -> NoReturn:
        """End now, whatever the main thread is at; what is on disk stays whole."""
        step = self._saved()
        kept = "No checkpoint was saved yet" if step is None else f"Checkpoint {step} was saved"
        again = "starts over" if step is None else "resumes from it"
        leave(number, f"{told} {kept}; the same command {again}.")
