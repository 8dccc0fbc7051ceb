"""mode=thresholds: choose thresholds and temperature on the validation images."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlcls_jax import config as schema
from mlcls_jax import parallel
from mlcls_jax.inference.threshold_fit import Fitted, fit_thresholds
from mlcls_jax.modes.evaluate import run_bundle
from mlcls_jax.modes.result import remarks


@dataclass(frozen=True)
class ThresholdsResult:
    """The thresholds chosen, and the images that could not be read."""

    fitted: Fitted
    skipped_images: list[str]

    def to_json(self) -> dict[str, Any]:
        """Return the content of `thresholds_result.json`."""
        return self.fitted.to_json() | {"skipped_images": self.skipped_images}

    def summary(self, config: schema.Config, workdir: Path, command: str) -> list[str]:
        """Return what the thresholds change."""
        result_file = workdir / "thresholds_result.json"
        return [
            *self.fitted.summary(),
            f"by class in {result_file}",
            *remarks(result_file, skipped=self.skipped_images),
        ]


def thresholds(config: schema.Config, workdir: Path) -> ThresholdsResult | None:
    """Choose and store thresholds for `evaluate.model_dir`, or the workdir's best model.

    Returns:
      The outcome; None in all processes but the first.

    Raises:
      WeightsError: the bundle is missing or damaged.
      ConfigError: its labels are not those of the data; or there is one label per image.
    """
    outputs = run_bundle(config, workdir, thresholds=True)
    if not parallel.is_lead():
        return None
    fitted = fit_thresholds(
        outputs.model_dir, outputs.bundle, outputs.logits, outputs.targets, config.thresholds
    )
    return ThresholdsResult(fitted, outputs.skipped)
