"""Work in the background that the page shows the progress of."""

import logging
import os
import threading
from collections.abc import Callable
from typing import Any, Literal

from mlcls_jax.errors import UserError

log = logging.getLogger(__name__)

THREADS = max(1, (os.cpu_count() or 1) - 1)  # that work on images; one is for the page

State = Literal["idle", "running", "done", "failed"]


class Job:
    """A function that runs once at a time, in a thread, and tells how far it is.

    It is called with this job, sets `done` and `total`, and returns when `is_stopped`.
    """

    def __init__(self, title: str, work: Callable[["Job"], None]) -> None:
        self.title = title
        self.state: State = "idle"
        self.done, self.total = 0, 0
        self.error = ""
        self.is_stopped = False
        self._work = work
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin, unless it is under way."""
        if self.state == "running" or self.is_stopped:
            return
        self.state, self.done, self.total, self.error = "running", 0, 0, ""
        self._thread = threading.Thread(target=self._run, name=self.title, daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float) -> bool:
        """Ask it to end, and return whether it has."""
        self.is_stopped = True
        if self._thread is not None:
            self._thread.join(timeout_s)
        return self._thread is None or not self._thread.is_alive()

    def facts(self) -> dict[str, Any]:
        """Return what the page shows."""
        return {
            "title": self.title,
            **{"state": self.state, "done": self.done, "total": self.total, "error": self.error},
        }

    def _run(self) -> None:
        try:
            self._work(self)
            self.state = "done"
        except UserError as error:
            self.error, self.state = f"{error.message} {error.hint or ''}".strip(), "failed"
            log.warning("%s: %s", self.title, self.error)
        except Exception as error:
            self.error, self.state = f"{type(error).__name__}: {error}", "failed"
            log.exception("%s failed", self.title)
