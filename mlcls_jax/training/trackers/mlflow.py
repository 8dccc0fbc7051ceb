"""MLflow: at MLFLOW_TRACKING_URI, or else in `trackers/mlflow.db` of the workdir."""

import os
import time
from functools import partial
from pathlib import Path
from typing import Any

# An extra, which CI does not install.
from mlflow.entities import Metric, Param  # pyright: ignore[reportMissingImports]
from mlflow.tracking import MlflowClient  # pyright: ignore[reportMissingImports]

from mlcls_jax import files
from mlcls_jax.config import Config, to_dict
from mlcls_jax.training.trackers import Tracker

EXPERIMENT = "mlcls_jax"  # unless MLFLOW_EXPERIMENT_NAME says otherwise
MAX_VALUE = 6000  # characters of a parameter


def open_run(workdir: Path, config: Config, start_step: int) -> Tracker:
    """Open the run whose identifier the workdir keeps, or a new one with the configuration."""
    folder = (workdir / "trackers").absolute()
    folder.mkdir(exist_ok=True)
    own = f"sqlite:///{folder}/mlflow.db"
    client = MlflowClient(os.environ.get("MLFLOW_TRACKING_URI", own))
    kept = folder / "mlflow.id"
    if kept.exists():
        run = kept.read_text(encoding="utf-8").strip()
        client.update_run(run, status="RUNNING")
    else:
        run = _new_run(client, workdir, config)
        files.write_text(kept, run)

    def scalars(step: int, values: dict[str, float]) -> None:
        now = int(1000 * time.time())
        metrics = [Metric(name, value, now, step) for name, value in values.items()]
        client.log_batch(run, metrics=metrics)

    return Tracker(scalars, partial(client.set_terminated, run))


def _new_run(client: Any, workdir: Path, config: Config) -> str:
    """Begin a run with the configuration as its parameters, and return its identifier."""
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
    known = client.get_experiment_by_name(name)
    experiment = known.experiment_id if known else client.create_experiment(name)
    run = client.create_run(experiment, run_name=workdir.absolute().name).info.run_id
    params = [
        Param(f"{section}.{key}", str(value)[:MAX_VALUE])
        for section, values in to_dict(config).items()
        if isinstance(values, dict)
        for key, value in values.items()
    ]
    for start in range(0, len(params), 100):  # what one request may hold
        client.log_batch(run, params=params[start : start + 100])
    return run
