"""Weights & Biases: WANDB_MODE=offline writes to the workdir, and `wandb sync` sends it later."""

from importlib import import_module
from pathlib import Path
from typing import Any

from mlcls_jax.config import Config, to_dict
from mlcls_jax.training.trackers import Tracker, kept_id

wandb: Any = import_module("wandb")  # type checkers take `import wandb` for this file


def open_run(workdir: Path, config: Config, start_step: int) -> Tracker:
    """Open the run whose identifier the workdir keeps; what is after `start_step` comes again."""
    folder = workdir / "trackers"
    run = wandb.init(
        id=kept_id(folder / "wandb.id"),
        resume="allow",
        name=workdir.absolute().name,
        dir=folder,
        config=to_dict(config),
        settings=wandb.Settings(silent=True),
    )
    return Tracker(lambda step, values: run.log(values, step=step), run.finish)
