"""Tracing a few steps, for TensorBoard's profile tab or Perfetto."""

import logging
from pathlib import Path
from typing import Any, Self

import jax

from mlcls_jax.config import Profile

log = logging.getLogger(__name__)


class Tracer:
    """Trace the steps that `profile.steps` names into a folder."""

    def __init__(self, config: Profile, folder: Path) -> None:
        self._folder, self._running = folder, False
        first, _, last = (config.steps or "0:0").partition(":")
        self._first, self._last = int(first), int(last)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._running:  # the run ended among the steps
            self._stop()

    def before(self, step: int) -> None:
        """Begin to trace before the first of these steps, or where a run resumes among them."""
        if not self._running and self._first <= step <= self._last:
            jax.profiler.start_trace(self._folder, create_perfetto_trace=True)
            self._running = True

    def after(self, step: int, numbers: Any) -> None:
        """End after the last of these steps; `numbers` are ready once it is done."""
        if self._running and step == self._last:
            jax.block_until_ready(numbers)
            self._stop()

    def _stop(self) -> None:
        jax.profiler.stop_trace()
        self._running = False
        log.info("Profiled steps are in %s: tensorboard --logdir=%s", self._folder, self._folder)
