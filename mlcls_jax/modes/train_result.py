"""The result of a finished training run."""

import dataclasses
import shlex
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

from mlcls_jax import usage
from mlcls_jax.config import Config
from mlcls_jax.errors import install_hint
from mlcls_jax.metrics import as_text
from mlcls_jax.modes.result import remarks

RESULT_FILE = "train_result.json"


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """The best model of a run, and what it took."""

    main_metric: str  # its name, MultiLabelMAP for instance
    metric: float | None  # of the best weights; None: no evaluation tells which are the best
    best_epoch: int | None
    best_weights: str | None  # "raw" or "ema"
    epochs: int
    steps: int
    images_per_s: float | None
    seconds: float
    nonfinite_steps: list[int]
    skipped_images: list[str]  # messages of unreadable images
    warnings: list[str]
    # What choosing them at the end changed: metrics before, after and cross-validated.
    thresholds: dict[str, dict[str, float]] | None = None
    paths: dict[str, str]  # what was written, by kind

    def to_json(self) -> dict[str, Any]:
        """Return the content of `train_result.json`."""
        values = dataclasses.asdict(self)
        return {values.pop("main_metric"): values.pop("metric"), **values}

    @classmethod
    def from_json(cls, values: dict[str, Any], main_metric: str) -> Self:
        """Return the result of an earlier run from its file; what the file lacks is empty."""
        empty: dict[str, Any] = {"nonfinite_steps": [], "skipped_images": [], "warnings": []}
        names = {f.name for f in dataclasses.fields(cls)}
        found = {name: value for name, value in values.items() if name in names}
        return cls(main_metric=main_metric, metric=values[main_metric], **(empty | found))

    def summary(self, config: Config, workdir: Path, command: str) -> list[str]:
        """Return where the model is and how good, and the commands that use it."""
        model = self.paths.get("best_model") or self.paths["last_model"]
        speed = f" at {self.images_per_s:.0f} images/s" if self.images_per_s else ""
        best = f"{self.best_weights} weights of epoch {self.best_epoch}"
        lines = [
            f"{self.main_metric} {as_text(self.metric)} on the validation images: "
            f"{best if self.best_epoch else 'the last weights are kept, as none are the best'}, "
            f"after {self.seconds:.0f} s{speed}.",
            f"  model        {model}",
        ]
        if self.thresholds:
            lines += [f"  thresholds   {_told(self.thresholds)}"]
        if "predictions" in self.paths:
            lines += [f"  predictions  {self.paths['predictions']}"]
        install = "" if find_spec("tensorboard") else f"  ({install_hint('tensorboard')})"
        lines += [f"  curves       tensorboard --logdir={shlex.quote(str(workdir))}{install}"]
        lines += ["Next:", *self._proposals(model, workdir, command)]
        return lines + remarks(
            workdir / RESULT_FILE, warnings=self.warnings, skipped=self.skipped_images
        )

    def _proposals(self, model: str, workdir: Path, command: str) -> list[str]:
        """Return commands that evaluate the model and predict with it, as short as those typed."""
        samples = self.paths.get("samples", "<image or folder>")
        if usage.program() != "mlcls":
            return [
                f"  {command} --config.mode=evaluate",
                f"  {command} --config.mode=predict --config.predict.input={samples}",
            ]
        predict = [
            f"--model_dir={model}",
            f"--input={samples}",
            f"--save_path={workdir / 'predictions'}",
        ]
        return [
            f"  mlcls evaluate {shlex.quote(f'--workdir={workdir}')}",
            f"  mlcls predict {shlex.join(predict)}",
        ]


def _told(metrics: dict[str, dict[str, float]]) -> str:
    """Return what chosen thresholds changed, in a line."""
    before, after = metrics["before"]["OF1"], metrics["after"]["OF1"]
    told = f"chosen for each label: OF1 {after:.4f}, at a common one {before:.4f}"
    if other := metrics.get("cross_validated"):
        told += f", on images not chosen by {other['OF1']:.4f}"
    return told
