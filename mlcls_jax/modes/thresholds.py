"""mode=thresholds: choose thresholds and temperature on the validation images."""

from pathlib import Path
from typing import Any

from mlcls_jax import config as schema
from mlcls_jax import parallel
from mlcls_jax.inference.threshold_fit import fit_thresholds
from mlcls_jax.modes.evaluate import run_bundle


def thresholds(config: schema.Config, workdir: Path) -> dict[str, Any]:
    """Choose them for the bundle `evaluate.model_dir`, or the workdir's best model; store them.

    Returns:
      The content of `thresholds_result.json`; see `fit_thresholds`.

    Raises:
      WeightsError: the bundle is missing or damaged.
      ConfigError: its labels are not those of the data; or there is one label an image.
    """
    outputs = run_bundle(config, workdir, thresholds=True)
    if not parallel.is_lead():
        return {}
    result = fit_thresholds(
        outputs.model_dir, outputs.bundle, outputs.logits, outputs.targets, config.thresholds
    )
    return result | {"skipped_images": outputs.skipped}
