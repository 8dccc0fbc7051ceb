"""Where the curves of a run are written besides `metrics.jsonl`: one small file for each tracker.

A new tracker is a file with a function `open_run(workdir, config, start_step)` that gives a
`Tracker`, its name in `mlcls_jax.config.TRACKERS`, and an extra in pyproject.toml. None needs a
network.
"""

import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mlcls_jax import files, lazy
from mlcls_jax.config import Config


class Tracker(NamedTuple):
    """What a run does with a tracker."""

    # (step, numbers by name, `train/loss` for instance): write them down.
    scalars: Callable[[int, dict[str, float]], object]
    # Write what is left; the run may go on later.
    close: Callable[[], object]
    # (step, scores [N, K], targets [N, K] with -1 for not annotated, labels): draw precision over
    # recall. Not every tracker has a chart of several labels' precision and recall.
    curves: Callable[[int, np.ndarray, np.ndarray, Sequence[str]], object] = lambda *_: None


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
