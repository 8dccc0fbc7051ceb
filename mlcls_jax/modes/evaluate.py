"""mode=evaluate: the metrics of a bundle on the validation images."""

import logging
from pathlib import Path
from typing import Any

import jax

from mlcls_jax import config as schema
from mlcls_jax import parallel
from mlcls_jax.data.pipeline import Reader, eval_batches
from mlcls_jax.data.sources import open_split
from mlcls_jax.errors import ConfigError
from mlcls_jax.evaluation import make_forward, score
from mlcls_jax.inference.bundle import read_bundle
from mlcls_jax.metrics import average_precision, multilabel_metrics

log = logging.getLogger(__name__)


def evaluate(config: schema.Config, workdir: Path) -> dict[str, Any]:
    """Evaluate the bundle `evaluate.model_dir`, or the workdir's best model.

    Returns:
      The content of `evaluate_result.json`.

    Raises:
      WeightsError: the bundle is missing or damaged.
      ConfigError: its labels are not those of the data.
    """
    mesh = parallel.make_mesh()
    parallel.check_batch_size("evaluate.batch_size", config.evaluate.batch_size, mesh)
    model_dir = Path(config.evaluate.model_dir or workdir / "best_model")
    bundle = read_bundle(model_dir)
    source = open_split(config.data, "validation")
    check_labels(model_dir, bundle.labels, source.labels)

    reader = Reader(source, bundle.image_size, config.data.on_error)
    batches = eval_batches(reader, config.data, batch_size=config.evaluate.batch_size)
    network = bundle.model.network
    variables = jax.device_put(bundle.model.variables, parallel.replicated(mesh))
    log.info("Evaluating %s on %s images.", model_dir, f"{len(source):,}")
    scores, targets = score(make_forward(network, mesh), {"best": variables}, batches, mesh)
    method, threshold = config.evaluate.map_type, config.evaluate.threshold
    metrics = multilabel_metrics(scores["best"], targets, threshold=threshold, method=method)
    by_class = average_precision(scores["best"], targets, method=method)
    return {
        **metrics,
        "map_type": method,
        "threshold": threshold,
        "images": len(targets),
        "average_precision": {
            # A class without positives has none.
            label: None if ap != ap else float(ap)
            for label, ap in zip(source.labels, by_class, strict=True)
        },
        "model_dir": str(model_dir),
        "skipped_images": sorted(reader.broken.values()),
    }


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
