"""mode=evaluate: the metrics of a bundle on the validation images, and a report about them."""

import dataclasses
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mlcls_jax import config as schema
from mlcls_jax import parallel
from mlcls_jax.data.pipeline import Reader, eval_batches
from mlcls_jax.data.sources import open_split
from mlcls_jax.data.sources.single import single_label
from mlcls_jax.data.types import Source
from mlcls_jax.errors import ConfigError
from mlcls_jax.evaluation import make_forward, score, to_scores
from mlcls_jax.groups import NO_GROUPS, Groups, inconsistent
from mlcls_jax.guarantees import chance_of_misses
from mlcls_jax.inference.bundle import Bundle, check_labels, read_bundle
from mlcls_jax.inference.threshold_fit import Fitted, fit_thresholds
from mlcls_jax.inference.views import Views
from mlcls_jax.metrics import (
    MAIN_METRIC,
    as_text,
    average_precision,
    class_recall,
    for_json,
    further_metrics,
    metrics_of,
)
from mlcls_jax.metrics.intervals import intervals
from mlcls_jax.modes.result import remarks
from mlcls_jax.reports.evaluate_page import Evaluation, write_report
from mlcls_jax.reports.mistakes import Illustrator
from mlcls_jax.training.advice import Advice, about_decisions, about_positives

log = logging.getLogger(__name__)

DOUBT = 0.05  # chance below which a guarantee is called broken, of all labels together

# Metrics that the terminal shows, as far as the task has them.
SUMMARY = (
    *("MultiLabelMAP", "OF1", "CF1", "OP", "OR", "CP", "CR", "LabelAccuracy", "SampleAccuracy"),
    *("HammingDistance", "Top1", "Top5", "BalancedAccuracy"),
)


class Outputs(NamedTuple):
    """The outputs of a bundle for the validation images."""

    model_dir: Path
    bundle: Bundle
    source: Source
    # Position in the source of each row; None: of other processes, this one does not know which
    # images they could not read.
    indices: np.ndarray | None
    logits: np.ndarray  # float32 [N, K]
    targets: np.ndarray  # [N, K]
    skipped: list[str]  # messages of unreadable images


@dataclass(frozen=True, kw_only=True)
class EvaluateResult:
    """The metrics of a bundle, and what else was asked for."""

    metrics: dict[str, float | None]
    details: dict[str, Any]  # what the metrics depend on, and those per class
    images: int
    model_dir: Path
    skipped_images: list[str]  # messages of unreadable images
    warnings: list[str]
    thresholds: Fitted | None  # chosen after the evaluation
    report: Path | None

    def to_json(self) -> dict[str, Any]:
        """Return the content of `evaluate_result.json`."""
        result = {
            **self.metrics,
            **self.details,
            "images": self.images,
            "model_dir": str(self.model_dir),
            "skipped_images": self.skipped_images,
            "warnings": self.warnings,
        }
        if self.thresholds:
            result["thresholds"] = self.thresholds.to_json()
        if self.report:
            result["report"] = str(self.report)
        return result

    def summary(self, config: schema.Config, workdir: Path, command: str) -> list[str]:
        """Return the metrics, and where the rest is."""
        result_file = workdir / "evaluate_result.json"
        lines = [
            f"{name:16} {as_text(self.metrics[name])}{self._interval(name)}"
            for name in SUMMARY
            if name in self.metrics
        ]
        if (share := self.details.get("inconsistent_answers")) is not None:
            lines.append(f"{share:.1%} of the answers contradict the groups of labels")
        lines += [*self._guarantees(), f"on {self.images:,} images; by class in {result_file}"]
        if self.report:
            lines += [f"  report  {self.report}"]
        if self.thresholds:
            lines += ["", *self.thresholds.summary()]
        return lines + remarks(result_file, warnings=self.warnings, skipped=self.skipped_images)

    def _guarantees(self) -> Iterator[str]:
        if told := self.details.get("guaranteed_recall"):
            judged = {name: row for name, row in told["labels"].items() if row["positives"]}
            kept = sum(row["recall"] >= told["target"] for row in judged.values())
            yield f"guaranteed recall of {told['target']:g}: kept by {kept} of {len(judged)} labels"
            broken = [name for name, row in judged.items() if row["chance"] < DOUBT / len(judged)]
            if broken:
                yield f"  too low for chance: {', '.join(broken)}. Are the images of another kind?"

    def _interval(self, name: str) -> str:
        low, high = self.details.get("intervals", {}).get(name, (None, None))
        return "" if low is None else f"  95 %: {as_text(low)} to {as_text(high)}"


def evaluate(config: schema.Config, workdir: Path) -> EvaluateResult | None:
    """Evaluate the bundle `evaluate.model_dir`, or the workdir's best model.

    With `evaluate.report` a page is written into the folder `evaluate` of the workdir; with
    `evaluate.thresholds` the bundle gets other thresholds at the end. Metrics and page are about
    the thresholds that it had.

    Returns:
      The outcome; None in all processes but the first.

    Raises:
      WeightsError: the bundle is missing or damaged.
      ConfigError: its labels are not those of the data.
    """
    choose = config.evaluate.thresholds
    outputs = run_bundle(config, workdir, thresholds=choose)
    if not parallel.is_lead():
        return None
    evaluation = measure(outputs, config.evaluate)
    warnings = warn(evaluation)
    found = intervals(evaluation.metrics, outputs.logits, outputs.targets, config.evaluate.map_type)
    fitted = report = None
    if choose:
        fitted = fit_thresholds(
            outputs.model_dir, outputs.bundle, outputs.logits, outputs.targets, config.thresholds
        )
        evaluation = dataclasses.replace(evaluation, chosen=fitted.to_json())
    if config.evaluate.report:
        illustrate = Illustrator(outputs.bundle, outputs.source, outputs.indices)
        report = write_report(workdir / "evaluate", evaluation, illustrate)
        log.info("Report: %s", report)
    return EvaluateResult(
        metrics=for_json(evaluation.metrics),
        details=details_of(evaluation, config.evaluate.map_type)
        | guarantees_of(evaluation)
        | consistency_of(evaluation, getattr(outputs.source, "groups", NO_GROUPS))
        | tta_of(config.evaluate)
        | {"intervals": found},
        images=len(outputs.targets),
        model_dir=outputs.model_dir,
        skipped_images=outputs.skipped,
        warnings=warnings,
        thresholds=fitted,
        report=report,
    )


def measure(outputs: Outputs, options: schema.Evaluate) -> Evaluation:
    """Return the metrics of a bundle's outputs, at `options.threshold` or at the bundle's own."""
    bundle, targets = outputs.bundle, outputs.targets
    task = bundle.model.network.config.task
    scores = to_scores(outputs.logits, task, temperature=bundle.temperature)
    threshold, calibration = bundle.threshold, bundle.facts.get("calibration")
    if options.threshold is not None:
        threshold, calibration = options.threshold, None
    limits = np.asarray(0.5 if threshold is None else threshold)
    metrics = metrics_of(
        task,
        scores,
        targets,
        threshold=limits,
        method=options.map_type,
        ranking=outputs.logits,
    )
    if task == "single":
        by_class = class_recall(scores, targets)
    else:
        metrics |= further_metrics(scores, targets, threshold=limits, ranking=outputs.logits)
        by_class = average_precision(outputs.logits, targets, method=options.map_type)
    return Evaluation(
        model_dir=outputs.model_dir,
        task=task,
        labels=bundle.labels,
        scores=scores,
        targets=targets,
        metrics=metrics,
        by_class=by_class,
        threshold=None if task == "single" else threshold,
        temperature=bundle.temperature,
        calibration=calibration,
        skipped=len(outputs.skipped),
        chosen=None,
    )


def warn(evaluation: Evaluation) -> list[str]:
    """Log what makes the numbers doubtful, and return it."""
    advice, metrics = Advice(), evaluation.metrics
    if np.isnan(metrics[MAIN_METRIC[evaluation.task]]):
        positives = (evaluation.targets >= 1).sum(0)
        advice.tell(about_positives("validation", evaluation.labels, positives))
    if isinstance(evaluation.threshold, float):
        advice.tell(about_decisions(metrics, evaluation.threshold))
    return advice.told


def details_of(evaluation: Evaluation, map_type: str) -> dict[str, Any]:
    """Return the metrics per class, and what they depend on."""
    labels, threshold = evaluation.labels, evaluation.threshold
    values = by_label(labels, evaluation.by_class)
    if threshold is None:
        return {"recall": values}
    if isinstance(threshold, tuple):
        threshold = dict(zip(labels, threshold, strict=True))
    return {"map_type": map_type, "threshold": threshold, "average_precision": values}


def guarantees_of(evaluation: Evaluation) -> dict[str, Any]:
    """Return, of labels whose recall was guaranteed, what became of it on these images.

    `chance` is that of as many misses or more if the recall just held. Without annotated positives
    a label has no recall.
    """
    facts = evaluation.calibration or {}
    if "guaranteed" not in facts:
        return {}
    limits = np.asarray(evaluation.threshold)
    found = evaluation.scores > limits
    labels = {}
    for label in facts["guaranteed"]:
        k = evaluation.labels.index(label)
        present = evaluation.targets[:, k] >= 1
        positives, hits = int(present.sum()), int((found[:, k] & present).sum())
        chance = chance_of_misses(positives - hits, positives, facts["target"])
        labels[label] = {
            "recall": hits / positives if positives else None,
            "positives": positives,
            "chance": chance,
        }
    wanted = {key: facts[key] for key in ("target", "confidence")}
    return {"guaranteed_recall": wanted | {"labels": labels}}


def consistency_of(evaluation: Evaluation, groups: Groups) -> dict[str, Any]:
    """Return the share of answers that contradict the groups of the data's labels, if it has any.

    They have a label without its parent, or two that exclude each other.
    """
    if not groups or evaluation.threshold is None:
        return {}
    decisions = evaluation.scores > np.asarray(evaluation.threshold, evaluation.scores.dtype)
    return {"inconsistent_answers": float(inconsistent(decisions, groups).mean())}


def tta_of(options: schema.Evaluate) -> dict[str, Any]:
    """Return what the result says of test-time augmentation, if there is any."""
    return {"tta": list(options.tta)} if options.tta else {}


def run_bundle(config: schema.Config, workdir: Path, *, thresholds: bool) -> Outputs:
    """Compute the logits of the bundle to evaluate for every readable validation image.

    Args:
      thresholds: they are wanted to choose thresholds.

    Raises:
      WeightsError: the bundle is missing or damaged.
      ConfigError: its labels are not those of the data; or thresholds are wanted of a single-label
        model, which has none.
    """
    mesh = parallel.make_mesh(config.parallel)
    parallel.check_batch_size("evaluate.batch_size", config.evaluate.batch_size, mesh)
    model_dir = Path(config.evaluate.model_dir or workdir / "best_model")
    bundle = read_bundle(model_dir)
    network = bundle.model.network
    if thresholds and network.config.task == "single":
        raise ConfigError(
            f"{model_dir}: thresholds are not for model.task=single, whose best label is reported",
            "Leave out evaluate.thresholds and mode=thresholds.",
        )
    source = open_split(config.data, "validation")
    check_labels(model_dir, bundle.labels, source.labels)
    if network.config.task == "single":
        source = single_label(source, on_error=config.data.on_error)

    reader = Reader(source, bundle.frame, config.data.on_error)
    variables = bundle.model.variables
    variables = parallel.put(variables, parallel.shardings(variables, mesh, network.tensor_axes))
    log.info("Evaluating %s on %s images.", model_dir, f"{len(source):,}")
    views = Views.of(bundle, config.evaluate.tta)
    forward = make_forward(network, mesh, is_mirrored=views.is_mirrored)
    size = config.evaluate.batch_size
    rows, logits = parallel.local_rows(mesh, size), []
    for frame in views.frames:  # all images are read again for each: memory stays what it was
        framed = dataclasses.replace(reader, frame=frame)  # the account of broken images is shared
        batches = eval_batches(framed, config.data, batch_size=size, rows=rows)
        found, targets = score(forward, {"best": variables}, batches, mesh)
        logits.append(found["best"])
    indices = np.setdiff1d(np.arange(len(source)), list(reader.broken))
    return Outputs(
        model_dir,
        bundle,
        source,
        indices if len(indices) == len(targets) else None,
        np.mean(logits, axis=0),
        targets,
        sorted(reader.broken.values()),
    )


def by_label(labels: tuple[str, ...], values: np.ndarray) -> dict[str, float | None]:
    """Return values [K] by label; None for NaN, of a class without positives."""
    pairs = zip(labels, values, strict=True)
    return {label: None if np.isnan(value) else float(value) for label, value in pairs}
