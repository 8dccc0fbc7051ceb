"""Thresholds and temperature that fit the validation images, put into a bundle."""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mlcls_jax import config as schema
from mlcls_jax import files
from mlcls_jax.errors import DataError
from mlcls_jax.evaluation import to_scores
from mlcls_jax.groups import NO_GROUPS, Groups
from mlcls_jax.guarantees import positives_needed
from mlcls_jax.inference.bundle import Bundle, update_bundle
from mlcls_jax.metrics import for_json, mean_average_precision, precision_recall_f1
from mlcls_jax.thresholds import (
    DEFAULT,
    FOLDS,
    Choice,
    calibration_bins,
    choose_thresholds,
    fit_temperature,
    held_out_decisions,
    log_loss,
)

log = logging.getLogger(__name__)

SUMMARY = ("OF1", "CF1", "OP", "OR", "CP", "CR")


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """Thresholds that were put into a bundle, and what they change."""

    model_dir: Path
    wanted: dict[str, Any]  # options of the choice, and the number of images
    folds: int
    # temperature, NLL (log loss), ECE (calibration error) and MultiLabelMAP, each "before" and
    # "after".
    overall: Mapping[str, Mapping[str, float | None]]
    # Metrics before and after, and "cross_validated": of images that the thresholds were not chosen
    # on, where there are enough.
    metrics: dict[str, dict[str, float]]
    classes: list[dict[str, Any]]  # a row per class

    def to_json(self) -> dict[str, Any]:
        """Return what stands in result files."""
        return {
            "model_dir": str(self.model_dir),
            **self.wanted,
            "folds": self.folds,
            **self.overall,
            **self.metrics,
            "classes": self.classes,
        }

    def summary(self) -> list[str]:
        """Return a table of the metrics before, after and cross-validated."""
        lines = [f"{'':12}" + "".join(f"{when.replace('_', '-'):>18}" for when in self.metrics)]
        for name in SUMMARY:
            numbers = [metrics[name] for metrics in self.metrics.values()]
            lines.append(f"{name:12}" + "".join(f"{number:18.4f}" for number in numbers))
        for name in ("ECE", "NLL", "temperature"):
            values = self.overall[name]
            lines.append(f"{name:12}{values['before']:18.4f}{values['after']:18.4f}")
        lines.append(f"Thresholds and temperature are in {self.model_dir}.")
        if "guaranteed" in self.wanted:
            given, wanted = len(self.wanted["guaranteed"]), self.wanted
            lines.append(
                f"Guaranteed for {given} of {len(self.classes)} labels: a recall of"
                f" {wanted['target']:g}, with {wanted['confidence']:.0%} confidence for each."
            )
        if missed := sum("cannot be reached" in row["note"] for row in self.classes):
            lines.append(f"{missed} labels cannot reach what was wanted.")
        return lines


def fit_thresholds(
    model_dir: Path,
    bundle: Bundle,
    logits: np.ndarray,
    targets: np.ndarray,
    options: schema.Thresholds,
) -> Fitted:
    """Choose thresholds and temperature for logits [N, K], and put them into the bundle.

    Raises:
      DataError: no image has a label, so that nothing tells a good threshold from a bad one.
    """
    if not (targets >= 1).any():
        told = f"{len(targets)} images, and no label of any is known to be present"
        raise DataError(
            f"{model_dir}: keeps its thresholds: there are {told}",
            "Choose them on images with labels: data.dir and data.val_list name others.",
        )
    chosen = choose(logits, targets, options, bundle.model.network.groups)
    return keep(model_dir, bundle, logits, targets, chosen)


@dataclass(frozen=True)
class Chosen:
    """Thresholds and temperature that fit some images, not in a bundle yet."""

    options: schema.Thresholds
    temperature: float
    scores: np.ndarray  # [N, K] of these images, calibrated
    choice: Choice

    @property
    def reported(self) -> float:
        """The share of all labels of all images that are reported."""
        return float((self.scores > self.choice.thresholds).mean())


def choose(
    logits: np.ndarray,
    targets: np.ndarray,
    options: schema.Thresholds,
    groups: Groups = NO_GROUPS,
) -> Chosen:
    """Return the thresholds and temperature that fit logits [N, K] best.

    They start from the bare logits, whatever a bundle holds: done again on the same images, the
    result is the same.
    """
    temperature = fit_temperature(logits, targets) if options.calibrate else 1.0
    scores = to_scores(logits, "multilabel", temperature=temperature)
    choice = choose_thresholds(scores, targets, groups=groups, **_wanted(options))
    return Chosen(options, temperature, scores, choice)


def _wanted(options: schema.Thresholds) -> dict[str, Any]:
    return {
        "objective": options.objective,
        "target": options.target,
        "min_positives": options.min_positives,
        **({"confidence": options.confidence} if options.confidence is not None else {}),
    }


def keep(
    model_dir: Path, bundle: Bundle, logits: np.ndarray, targets: np.ndarray, chosen: Chosen
) -> Fitted:
    """Write what `choose` chose for these logits into the bundle, and tell what it changes.

    An `inference.json` with thresholds that were chosen otherwise is kept as `inference.json.bak`.
    """
    options, temperature, choice = chosen.options, chosen.temperature, chosen.choice
    wanted = _wanted(options)
    scores = {
        "before": to_scores(logits, "multilabel", temperature=bundle.temperature),
        "after": chosen.scores,
    }
    thresholds = {"before": np.asarray(bundle.threshold, np.float32), "after": choice.thresholds}
    measured = {
        when: precision_recall_f1(scores[when], targets, threshold=thresholds[when])
        for when in scores
    }
    groups = bundle.model.network.groups
    decisions = held_out_decisions(scores["after"], targets, groups=groups, **wanted)
    if decisions is not None:  # as scores of 0 and 1
        measured["cross_validated"] = precision_recall_f1(
            decisions.astype(np.float32), targets, threshold=0.5
        )
    temperatures = {"before": bundle.temperature, "after": temperature}
    facts = {**wanted, "calibrated": options.calibrate, "images": len(targets)}
    if options.confidence is not None:
        given = zip(bundle.labels, choice.guaranteed, strict=True)
        facts["guaranteed"] = [label for label, is_given in given if is_given]
    _store(model_dir, choice, temperature, facts)
    log.info(
        "Thresholds of %s: OF1 %.4f, was %.4f.",
        model_dir, measured["after"]["OF1"], measured["before"]["OF1"],
    )  # fmt: skip
    return Fitted(
        model_dir=model_dir,
        wanted=facts,
        folds=min(FOLDS, len(targets)),
        overall={
            "temperature": temperatures,
            "NLL": {w: log_loss(logits, targets, temperature=t) for w, t in temperatures.items()},
            "ECE": {when: calibration_bins(s, targets).error for when, s in scores.items()},
            # No temperature changes the order.
            "MultiLabelMAP": for_json(
                dict.fromkeys(scores, mean_average_precision(logits, targets))
            ),
        },
        metrics={
            when: {key: float(numbers[key]) for key in SUMMARY}
            for when, numbers in measured.items()
        },
        classes=_rows(bundle.labels, targets, thresholds, choice, measured, options, groups),
    )


def _store(model_dir: Path, choice: Choice, temperature: float, facts: dict[str, Any]) -> None:
    path = model_dir / "inference.json"
    text = path.read_text(encoding="utf-8")
    before = json.loads(text)
    thresholds = tuple(map(float, choice.thresholds))
    is_chosen = isinstance(before["threshold"], list) or "calibration" in before
    is_same = (before["threshold"], before.get("temperature")) == ([*thresholds], temperature)
    if is_chosen and not is_same:
        files.write_text(path.with_name("inference.json.bak"), text)
    update_bundle(model_dir, threshold=thresholds, temperature=temperature, calibration=facts)


def _rows(
    labels: tuple[str, ...],
    targets: np.ndarray,
    thresholds: dict[str, np.ndarray],
    choice: Choice,
    measured: dict[str, dict[str, Any]],
    options: schema.Thresholds,
    groups: Groups,
) -> list[dict[str, Any]]:
    positives = (targets >= 1).sum(0)
    limits = {when: np.broadcast_to(t, len(labels)) for when, t in thresholds.items()}
    grouped = {k: len(pool) for pool in groups.members for k in pool}
    rows = []
    for k, label in enumerate(labels):
        row = {"label": label, "positives": int(positives[k])}
        for name in ("threshold", "precision", "recall", "f1"):
            for when, t in limits.items():
                value = t[k] if name == "threshold" else measured[when][name][k]
                row[f"{name}_{when}"] = float(value)
        notes = []
        if choice.shared[k]:
            fewer = f"{positives[k]} positives: shares its threshold with other rare labels"
            has_pool = positives[choice.shared].any()
            notes.append(fewer if has_pool else f"no positives: threshold {DEFAULT}")
        if k in grouped and not choice.guaranteed[k]:
            notes.append(f"shares its threshold with its group of {grouped[k]}")
        if options.confidence is not None and options.target is not None:
            is_given = bool(choice.guaranteed[k])
            notes.append(_promise(options.target, options.confidence, int(positives[k]), is_given))
        if choice.unreached[k]:
            notes.append(f"{options.objective} {options.target} cannot be reached")
        rows.append(row | {"note": "; ".join(notes)})
    return rows


def _promise(recall: float, confidence: float, positives: int, is_given: bool) -> str:
    """Return what is guaranteed of a label, or why nothing is."""
    promise = f"recall {recall:g} with {confidence:.0%} confidence"
    if is_given:
        return f"guaranteed: {promise}"
    needed = positives_needed(recall, confidence)
    if positives < needed:
        return f"no guarantee of {promise}, which needs {needed} positives"
    return f"no guarantee of {promise}: too many positives score 0"
