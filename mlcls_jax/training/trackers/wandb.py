"""Weights & Biases: WANDB_MODE=offline writes to the workdir, and `wandb sync` sends it later."""

from importlib import import_module
from pathlib import Path
from typing import Any

from mlcls_jax.config import Config, to_dict
from mlcls_jax.training.trackers import Tracker, kept_id

wandb: Any = import_module("wandb")  # type checkers take `import wandb` for this file


class WandbRun(Tracker):
    """A run of Weights & Biases."""

    def __init__(self, run: Any) -> None:
        self._run = run

    def scalars(self, step: int, values: dict[str, float]) -> None:
        self._run.log(values, step=step)

    def close(self) -> None:
        self._run.finish()


def open_run(workdir: Path, config: Config, start_step: int) -> WandbRun:
    """Open the run whose identifier the workdir keeps; what is after `start_step` comes again."""
    folder = workdir / "trackers"
    return WandbRun(
        wandb.init(
            id=kept_id(folder / "wandb.id"),
            resume="allow",
            name=workdir.absolute().name,
            dir=folder,
            config=to_dict(config),
            settings=wandb.Settings(silent=True),
        )
    )
