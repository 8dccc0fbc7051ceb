"""Aim, in `trackers/.aim` of the workdir, which `aim up --repo runs/a/trackers` shows."""

from importlib import import_module
from pathlib import Path
from typing import Any

from mlcls_jax import files
from mlcls_jax.config import Config, to_dict
from mlcls_jax.training.trackers import Tracker

aim: Any = import_module("aim")  # type checkers take `import aim` for this file


def open_run(workdir: Path, config: Config, start_step: int) -> Tracker:
    """Open the run whose identifier the workdir keeps; what is after `start_step` comes again."""
    folder = (workdir / "trackers").absolute()
    folder.mkdir(exist_ok=True)
    kept = folder / "aim.id"
    run = aim.Run(
        kept.read_text(encoding="utf-8") if kept.exists() else None,
        repo=str(folder),
        experiment="mlcls_jax",
        system_tracking_interval=None,
        log_system_params=False,  # the environment's variables, secrets among them
        capture_terminal_logs=False,
    )
    run.name = workdir.absolute().name
    run["config"] = to_dict(config)
    files.write_text(kept, run.hash)

    def scalars(step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            run.track(value, name=name, step=step)

    return Tracker(scalars, run.close)
