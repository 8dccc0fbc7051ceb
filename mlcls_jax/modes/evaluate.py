"""mode=evaluate: the metrics of a bundle on the validation images."""

import logging
from pathlib import Path
from typing import Any

import numpy as np

from mlcls_jax import config as schema
from mlcls_jax import parallel
from mlcls_jax.data.pipeline import Reader, eval_batches
from mlcls_jax.data.sources import open_split
from mlcls_jax.data.sources.single import single_label
from mlcls_jax.errors import ConfigError
from mlcls_jax.evaluation import make_forward, score
from mlcls_jax.inference.bundle import read_bundle
from mlcls_jax.metrics import average_precision, class_recall, metrics_of

log = logging.getLogger(__name__)


def evaluate(config: schema.Config, workdir: Path) -> dict[str, Any]:
    """Evaluate the bundle `evaluate.model_dir`, or the workdir's best model.

    Returns:
      The content of `evaluate_result.json`.

    Raises:
      WeightsError: the bundle is missing or damaged.
      ConfigError: its labels are not those of the data.
    """
    mesh = parallel.make_mesh(config.parallel)
    parallel.check_batch_size("evaluate.batch_size", config.evaluate.batch_size, mesh)
    model_dir = Path(config.evaluate.model_dir or workdir / "best_model")
    bundle = read_bundle(model_dir)
    source = open_split(config.data, "validation")
    check_labels(model_dir, bundle.labels, source.labels)
    task = bundle.model.network.config.task
    if task == "single":
        source = single_label(source, on_error=config.data.on_error)

    reader = Reader(source, bundle.image_size, config.data.on_error)
    size = config.evaluate.batch_size
    rows = parallel.local_rows(mesh, size)
    batches = eval_batches(reader, config.data, batch_size=size, rows=rows)
    network = bundle.model.network
    variables = bundle.model.variables
    variables = parallel.put(variables, parallel.shardings(variables, mesh))
    log.info("Evaluating %s on %s images.", model_dir, f"{len(source):,}")
    scores, targets = score(make_forward(network, mesh), {"best": variables}, batches, mesh)
    method, threshold = config.evaluate.map_type, config.evaluate.threshold
    metrics = metrics_of(task, scores["best"], targets, threshold=threshold, method=method)
    if task == "single":
        details = {"recall": by_label(source.labels, class_recall(scores["best"], targets))}
    else:
        precision = average_precision(scores["best"], targets, method=method)
        details = {
            "map_type": method,
            "threshold": threshold,
            "average_precision": by_label(source.labels, precision),
        }
    return {
        **metrics,
        **details,
        "images": len(targets),
        "model_dir": str(model_dir),
        "skipped_images": sorted(reader.broken.values()),
    }


def by_label(labels: tuple[str, ...], values: np.ndarray) -> dict[str, float | None]:
    """Values [K] by their label; None for NaN, of a class without positives."""
    pairs = zip(labels, values, strict=True)
    return {label: None if np.isnan(value) else float(value) for label, value in pairs}


def check_labels(model_dir: Path, model: tuple[str, ...], data: tuple[str, ...]) -> None:
    """Raises ConfigError unless model and data have the same labels in the same order."""
    if len(model) != len(data):
        raise ConfigError(
            f"{model_dir}: has {len(model)} labels, but the data has {len(data)}",
            "Evaluate on the data set that the model was trained for.",
        )
    for index, (ours, theirs) in enumerate(zip(model, data, strict=True)):
        if ours != theirs:
            raise ConfigError(
                f"{model_dir}: label {index} is {ours!r}, but in the data it is {theirs!r}",
                "Bring the label file into the order that the model was trained with.",
            )
