"""Where the curves of a run are written besides `metrics.jsonl`: one small file for each tracker.

A new tracker is a file with a function `open_run(workdir, config, start_step)` that gives a
`Tracker`, its name in `mlcls_jax.config.TRACKERS`, and an extra in pyproject.toml. None needs a
network.
"""

import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from mlcls_jax import files, lazy
from mlcls_jax.config import Config


class Tracker(Protocol):
    """A run in a tracker."""

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Write down numbers by name, `train/loss` for instance, after a step."""
        ...

    def curves(
        self, step: int, scores: np.ndarray, targets: np.ndarray, labels: Sequence[str]
    ) -> None:
        """Draw precision over recall; scores [N, K], targets [N, K] with -1 for not annotated.

        Nothing is drawn by trackers without a chart of several labels' precision and recall.
        """

    def close(self) -> None:
        """Write what is left; the run may go on later."""
        ...


def open_trackers(workdir: Path, config: Config, start_step: int) -> list[Tracker]:
    """Open the run of `workdir` in TensorBoard and in `log.trackers`, as the configuration says.

    Raises:
      UserError: a library is missing (says how to install it).
    """
    names = (*(["tensorboard"] if config.log.tensorboard else []), *config.log.trackers)
    trackers = []
    for name in names:
        with lazy.optional(f"log.trackers={name} needs a library", extra=name):
            trackers.append(lazy.load(f"{__name__}.{name}.open_run")(workdir, config, start_step))
    return trackers


def kept_id(path: Path) -> str:
    """Return what the file holds; if there is none, an identifier that it holds from now on."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_text(path, secrets.token_hex(8))
    return path.read_text(encoding="utf-8").strip()
