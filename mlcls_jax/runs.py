"""Runs from Python: `train`, `evaluate` and `load`, the same functions that the commands use."""

import dataclasses
import html
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mlcls_jax import config as schema
from mlcls_jax import files, parallel
from mlcls_jax.config import Config
from mlcls_jax.data.convert.parquet_tables import write_frame
from mlcls_jax.errors import WorkdirError
from mlcls_jax.inference.api import create_model
from mlcls_jax.inference.predictor import Predictor
from mlcls_jax.metrics import as_text
from mlcls_jax.modes.evaluate_result import EvaluateResult
from mlcls_jax.modes.running import run_mode
from mlcls_jax.modes.train_result import RESULT_FILE, TrainResult
from mlcls_jax.new_run import plan
from mlcls_jax.paths import local_path
from mlcls_jax.reports.curves import read_history
from mlcls_jax.start import start_console, start_jax
from mlcls_jax.wishes import Wishes
from mlcls_jax.workdir import BEST_MODEL, CONFIG_FILE, EVALUATION, LAST_MODEL, METRICS
from mlcls_jax.yaml_config import get_config

log = logging.getLogger(__name__)

Listener = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Run:
    """A run in its folder; what is asked of it is read from its files."""

    folder: Path

    @property
    def config(self) -> Config:
        """The configuration of the run."""
        return schema.parse(get_config(str(self.folder / CONFIG_FILE)))

    @cached_property
    def model(self) -> Predictor:
        """Its best model, or else its last: `run.model.predict("photo.jpg")`."""
        return create_model(model_dir=self.folder)

    @property
    def metrics(self) -> dict[str, float]:
        """The metrics of its best model on the validation images, by name."""
        if (self.folder / EVALUATION).exists():
            found = files.read_json(self.folder / EVALUATION)
        else:
            done = files.read_json(self.folder / RESULT_FILE)
            best = [
                e for e in self.history if e["epoch"] == done.get("best_epoch") and "loss" not in e
            ]
            kind = f"{done.get('best_weights')}/"
            found = {k.removeprefix(kind): v for e in best for k, v in e.items() if kind in k}
        no_metrics = ("images", "done_flag", "threshold")
        numbers = {k: v for k, v in found.items() if isinstance(v, float | int)}
        return {k: v for k, v in numbers.items() if k not in no_metrics}

    @property
    def history(self) -> list[dict[str, Any]]:
        """The lines of `metrics.jsonl`: those of steps have a loss, the others metrics."""
        return read_history(self.folder / METRICS, self.folder.name).lines

    @property
    def report(self) -> Path | None:
        """The page of the last evaluation, if there is one."""
        path = self.folder / "evaluate" / "report.html"
        return path if path.exists() else None

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r})"

    def _repr_html_(self) -> str:
        """Return a table of the metrics, for notebooks."""
        rows = "".join(
            f"<tr><td>{html.escape(name)}</td><td>{as_text(value)}</td></tr>"
            for name, value in self.metrics.items()
        )
        return f"<b>{html.escape(str(self.folder))}</b><table>{rows}</table>"


def train(
    data: Any,
    *,
    model: str | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    image_size: int | None = None,
    lr: float | None = None,
    device: str | None = None,
    weights: str | None = None,
    output: str | Path | None = None,
    format: str | None = None,
    settings: Mapping[str, Any] | None = None,
    on_epoch: Listener | None = None,
    on_log: Listener | None = None,
) -> Run:
    """Train on a data set as `mlcls train DATA` does, evaluate, and return the run.

    Args:
      data: a folder or file of any format that is read; a data frame with a column of paths or
        contents of images, and one of lists of labels or one for each label; or `digits`.
      model: architecture; None, here and below: chosen by the data and the machine.
      epochs: passes over the training images.
      batch_size: images of a step.
      image_size: height and width.
      lr: learning rate.
      device: `cpu`, `gpu`, `gpu:0,1` or `tpu`; before anything else uses JAX.
      weights: to start from: `auto`, `none` (random), a file, folder or address; None: `auto`.
      output: new folder for everything that the run writes; None: `runs/DATA-1`, `-2`, ….
      format: of the data, where it may be read in several ways.
      settings: any other options, `{"optimizer.weight_decay": 0.01}`.
      on_epoch: called with the metrics after each evaluation, as `metrics.jsonl` has them.
      on_log: called with loss, learning rate and speed every `train.log_steps`.

    Raises:
      UserError: the data, an option, the weights or the folder is wrong.
    """
    start_console()
    start_jax(cache=True)
    with parallel.devices(device):
        pass
    wishes = Wishes(
        model=model, epochs=epochs, batch_size=batch_size, image_size=image_size, lr=lr,
        device=device, weights=weights, output=None if output is None else str(output),
        format=format,  # pyright: ignore[reportArgumentType] (`detect` checks it)
    )  # fmt: skip
    with TemporaryDirectory() as temporary:
        if not isinstance(data, str | Path):
            write_frame(data, table := Path(temporary) / "frame.parquet")
            data = table
        new = plan(data, wishes, settings or {}, platform=parallel.platform())
    log.info("%s", "\n".join(new.told))
    log.info("The same in full: mlcls train %s", new.flags)

    def listen(entry: dict[str, Any]) -> None:
        if listener := on_log if "loss" in entry else on_epoch:
            listener(entry)

    run_and_judge(new.config, new.folder, listen)
    return Run(new.folder)


def evaluate(run: str | Path | Run, settings: Mapping[str, Any] | None = None) -> EvaluateResult:
    """Measure a run's best model on its validation images, write the report, return the outcome.

    Args:
      run: a run, or its folder.
      settings: options besides the run's own, `{"data.dir": "other photos"}`.

    Raises:
      UserError: there is no such run, or its data or model is damaged.
    """
    start_console()
    start_jax(cache=True)
    run = run if isinstance(run, Run) else load(run)
    config = schema.changed(run.config, {**(settings or {}), "mode": "evaluate"})
    result = run_mode(config, run.folder)
    assert isinstance(result, EvaluateResult)
    return result


def load(folder: str | Path) -> Run:
    """Return the run in a folder.

    Raises:
      WorkdirError: there is none.
    """
    path = local_path("RUN", folder)
    if not (path / CONFIG_FILE).is_file():
        raise WorkdirError(
            f"{path}: is no run: there is no {CONFIG_FILE} in it",
            "Name the folder that `mlcls train` wrote, runs/photos-1 for instance.",
        )
    return Run(path)


def run_and_judge(
    config: Config, folder: Path, listen: Listener | None = None
) -> tuple[TrainResult, Path | None]:
    """Train, and write the report about the best model; return the outcome and the report.

    Raises:
      PreemptedError: the run was asked to end.
      UserError: the configuration, the data or a file is wrong.
    """
    result = run_mode(config, folder, listen=listen)
    assert isinstance(result, TrainResult)  # one process is the first one
    if not (folder / BEST_MODEL).exists():
        assert (folder / LAST_MODEL).exists()
        return result, None
    judged = run_mode(dataclasses.replace(config, mode="evaluate"), folder)
    assert isinstance(judged, EvaluateResult)
    return result, judged.report
