"""What an evaluation tells: metrics, details per label, guarantees, and lines for the terminal."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mlcls_jax import config as schema
from mlcls_jax.groups import Groups, inconsistent
from mlcls_jax.guarantees import chance_of_misses, promised
from mlcls_jax.inference.threshold_fit import Fitted
from mlcls_jax.metrics import as_text, for_json, multilabel_metrics
from mlcls_jax.metrics.bounds import mean_precision_bounds
from mlcls_jax.metrics.frequency import mean_by_frequency
from mlcls_jax.modes.result import remarks
from mlcls_jax.reports.evaluate_page import Evaluation

DOUBT = 0.05  # chance below which a guarantee is called broken, of all labels together

NAMED = 5  # labels that hang on others

# Metrics that the terminal shows, as far as the task has them.
SUMMARY = (
    *("MultiLabelMAP", "OF1", "CF1", "OP", "OR", "CP", "CR", "LabelAccuracy", "SampleAccuracy"),
    *("HammingDistance", "Top1", "Top5", "BalancedAccuracy"),
)


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
        lines += [
            *sentences(self.details),
            *self._guarantees(),
            f"on {self.images:,} images; by class in {result_file}",
        ]
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


def sentences(details: dict[str, Any]) -> Iterator[str]:
    """Yield what terminal and report say of an evaluation's details, besides tables."""
    if parts := details.get("by_training_images"):
        told = (
            f"{name} {as_text(part['MultiLabelMAP'])} ({part['labels']} with"
            f" {part['training_images']})"
            for name, part in parts.items()
        )
        yield f"MultiLabelMAP by training images of a label: {', '.join(told)}"
    if found := details.get("bounds"):
        low, high = map(as_text, found["MultiLabelMAP"])
        yield (
            f"MultiLabelMAP is between {low} and {high}, whatever the {found['unknown']:.1%} of the"
            " labels are that nobody looked at"
        )
    if chosen := details.get("chosen_labels"):
        told = (f"{name} {as_text(chosen[name])}" for name in ("MultiLabelMAP", "CF1", "OF1"))
        yield f"of the {len(chosen['labels'])} labels chosen: {', '.join(told)}"
    if found := details.get("companions"):
        yield _on_companions(found["labels"])
    if (share := details.get("inconsistent_answers")) is not None:
        yield f"{share:.1%} of the answers contradict the groups of labels"


def _on_companions(labels: dict[str, dict[str, Any]]) -> str:
    """Return which labels' scores come from their companions."""
    told = sum(row["share"] is not None for row in labels.values())
    hang = [
        f"{name} on {row['companion']} ({row['share']:.0%})"
        for name, row in labels.items()
        if row["hangs"]
    ]
    if not told:
        return f"of {len(labels)} labels with companions masking can tell nothing"
    which = f"of {len(labels)} labels with companions, {told} of which masking can tell"
    if not hang:
        return f"{which}, none hangs on its companion"
    return f"{which}, {len(hang)} hang on them: {', '.join(hang[:NAMED])}"


def all_details(
    evaluation: Evaluation,
    logits: np.ndarray,
    options: schema.Evaluate,
    *,
    groups: Groups,
    images: np.ndarray | None,
) -> dict[str, Any]:
    """Return all that a result tells besides metrics, but companions and intervals.

    Args:
      evaluation: the metrics, and what they are of.
      logits: [N, K], by which images are ranked.
      options: what is asked for.
      groups: of the data's labels.
      images: training images with each label, [K]; None: not known.
    """
    found = details_of(evaluation, options.map_type) | _guarantees(evaluation)
    found |= _consistency(evaluation, groups)
    if images is not None:
        found["by_training_images"] = mean_by_frequency(evaluation.by_class, images)
    missing = float((evaluation.targets < 0).mean())
    if missing and not evaluation.is_single and options.map_type == "integral":
        bounds = mean_precision_bounds(logits, evaluation.targets)
        found["bounds"] = {"MultiLabelMAP": bounds, "unknown": missing}
    if options.labels:
        found["chosen_labels"] = _of_chosen(evaluation, logits, options)
    return found | ({"tta": list(options.tta)} if options.tta else {})


def _of_chosen(
    evaluation: Evaluation, logits: np.ndarray, options: schema.Evaluate
) -> dict[str, Any]:
    """Return the metrics of the labels `options.labels` alone."""
    columns = [evaluation.labels.index(name) for name in options.labels]
    limits = 0.5 if evaluation.threshold is None else evaluation.threshold
    metrics = multilabel_metrics(
        evaluation.scores[:, columns],
        evaluation.targets[:, columns],
        threshold=np.broadcast_to(limits, len(evaluation.labels))[columns],
        method=options.map_type,
        ranking=logits[:, columns],
    )
    return {"labels": list(options.labels), **for_json(metrics)}


def details_of(evaluation: Evaluation, map_type: str) -> dict[str, Any]:
    """Return the metrics per class, and what they depend on."""
    labels, threshold = evaluation.labels, evaluation.threshold
    values = by_label(labels, evaluation.by_class)
    if threshold is None:
        return {"recall": values}
    if isinstance(threshold, tuple):
        threshold = dict(zip(labels, threshold, strict=True))
    return {"map_type": map_type, "threshold": threshold, "average_precision": values}


def _guarantees(evaluation: Evaluation) -> dict[str, Any]:
    """Return, of labels whose recall was guaranteed, what became of it on these images.

    `chance` is that of as many misses or more if the recall just held. Without annotated positives
    a label has no recall.
    """
    promise = promised(evaluation.calibration)
    if promise is None:
        return {}
    limits = np.asarray(evaluation.threshold)
    found = evaluation.scores > limits
    labels = {}
    for label in promise.labels:
        k = evaluation.labels.index(label)
        present = evaluation.targets[:, k] >= 1
        positives, hits = int(present.sum()), int((found[:, k] & present).sum())
        chance = chance_of_misses(positives - hits, positives, promise.recall)
        labels[label] = {
            "recall": hits / positives if positives else None,
            "positives": positives,
            "chance": chance,
        }
    wanted = {"target": promise.recall, "confidence": promise.confidence}
    return {"guaranteed_recall": wanted | {"labels": labels}}


def _consistency(evaluation: Evaluation, groups: Groups) -> dict[str, Any]:
    """Return the share of answers that contradict the groups of the data's labels, if it has any.

    They have a label without its parent, or two that exclude each other.
    """
    if not groups or evaluation.threshold is None:
        return {}
    decisions = evaluation.scores > np.asarray(evaluation.threshold, evaluation.scores.dtype)
    return {"inconsistent_answers": float(inconsistent(decisions, groups).mean())}


def by_label(labels: tuple[str, ...], values: np.ndarray) -> dict[str, float | None]:
    """Return values [K] by label; None for NaN, of a class without positives."""
    pairs = zip(labels, values, strict=True)
    return {label: None if np.isnan(value) else float(value) for label, value in pairs}
