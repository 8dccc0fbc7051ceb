"""mode=evaluate: the metrics of a bundle on the validation images, and a report about them."""

import dataclasses
import logging
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mlcls_jax import config as schema
from mlcls_jax import parallel
from mlcls_jax.data.pipeline import Reader, eval_batches
from mlcls_jax.data.sources import open_split
from mlcls_jax.data.sources.single import single_label
from mlcls_jax.data.types import Source
from mlcls_jax.errors import ConfigError, UserError, nearest
from mlcls_jax.evaluation import make_forward, score, to_scores
from mlcls_jax.groups import NO_GROUPS
from mlcls_jax.inference.bundle import Bundle, check_labels, model_folder, read_bundle
from mlcls_jax.inference.masking import WINDOWS
from mlcls_jax.inference.predictor import Predictor
from mlcls_jax.inference.threshold_fit import fit_thresholds
from mlcls_jax.inference.views import Views
from mlcls_jax.metrics import (
    MAIN_METRIC,
    average_precision,
    class_recall,
    for_json,
    further_metrics,
    multilabel_metrics,
    single_label_metrics,
)
from mlcls_jax.metrics.decisions import count_decisions
from mlcls_jax.metrics.intervals import intervals
from mlcls_jax.modes.evaluate_result import (
    EvaluateResult,
    all_details,
    sentences,
)
from mlcls_jax.reports.companions import Companions, measure_companions
from mlcls_jax.reports.decisions_file import write_decisions
from mlcls_jax.reports.evaluate_page import Evaluation, write_report
from mlcls_jax.reports.gallery import GALLERY, remove_gallery, write_gallery
from mlcls_jax.reports.mistakes import Illustrator
from mlcls_jax.reports.similar import Similar
from mlcls_jax.training.advice import Advice, about_decisions, about_positives

MAX_EMBEDDED = 20_000  # images, whose embeddings are kept: about a hundred MB
MAX_COMPARED = 1_000  # labels that a misspelt one is compared with

log = logging.getLogger(__name__)


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
    embeddings: np.ndarray | None = None  # float32 [N, C]; None: not asked for, or too many


def evaluate(config: schema.Config, workdir: Path) -> EvaluateResult | None:
    """Evaluate the bundle `evaluate.model_dir`, or the workdir's best model.

    With `evaluate.report` a page is written into the folder `evaluate` of the workdir; with
    `evaluate.thresholds` the bundle gets other thresholds at the end. Metrics and page are about
    the thresholds that it had.

    Returns:
      The outcome; None in all processes but the first.

    Raises:
      WeightsError: the bundle is missing or damaged.
      ConfigError: its labels are not those of the data, or lack one of `evaluate.labels`.
    """
    choose = config.evaluate.thresholds
    outputs = run_bundle(config, workdir, thresholds=choose, embeddings=config.evaluate.report)
    if not parallel.is_lead():
        return None
    evaluation = measure(outputs, config.evaluate)
    warnings = warn(evaluation)
    details = all_details(
        evaluation,
        outputs.logits,
        config.evaluate,
        groups=getattr(outputs.source, "groups", NO_GROUPS),
        images=None if evaluation.is_single else _training_images(evaluation.labels, config.data),
    )
    companions = _companions(outputs, evaluation, config.evaluate.companions)
    if companions is not None:
        details["companions"] = companions.to_json(evaluation.labels)
    found = intervals(evaluation.metrics, outputs.logits, outputs.targets, config.evaluate.map_type)
    told = (*sentences(details),)
    evaluation = dataclasses.replace(evaluation, told=told, companions=companions)
    fitted = report = None
    if choose:
        fitted = fit_thresholds(
            outputs.model_dir, outputs.bundle, outputs.logits, outputs.targets, config.thresholds
        )
        evaluation = dataclasses.replace(evaluation, chosen=fitted.to_json())
    if config.evaluate.report:
        illustrate = Illustrator(outputs.bundle, outputs.source, outputs.indices)
        similar = Similar(outputs.source, outputs.indices, outputs.targets, outputs.embeddings)
        folder = workdir / "evaluate"
        shown = _write_gallery(folder / GALLERY, evaluation, outputs, config.evaluate.gallery)
        report = write_report(folder, evaluation, illustrate, similar, gallery=shown)
        if not shown:
            remove_gallery(folder / GALLERY)
        log.info("Report: %s", report)
        indices = outputs.indices
        names = None if indices is None else [outputs.source.name(i) for i in indices.tolist()]
        write_decisions(report.parent, evaluation.decisions, names, evaluation.labels)
    return EvaluateResult(
        metrics=for_json(evaluation.metrics),
        details=details | {"intervals": found},
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
    if task == "single":
        metrics = single_label_metrics(scores, targets)
        by_class = class_recall(scores, targets)
    else:
        counts = count_decisions(scores, targets, limits)
        given = {"threshold": limits, "ranking": outputs.logits, "counts": counts}
        metrics = multilabel_metrics(scores, targets, method=options.map_type, **given)
        metrics |= further_metrics(scores, targets, **given)
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


def _training_images(labels: tuple[str, ...], data: schema.Data) -> np.ndarray | None:
    """Return how many training images have each label, [K]; None where these are not listed.

    A training list that is missing or wrong does not stop an evaluation.
    """
    try:
        # Images need not be there: nothing is read but the list.
        source = open_split(dataclasses.replace(data, on_error="skip"), "train")
    except UserError as error:
        log.info("Frequent and rare labels are not told apart: %s", error.message)
        return None
    targets = getattr(source, "targets", None)
    return None if targets is None or source.labels != labels else (targets >= 1).sum(0)


def _write_gallery(folder: Path, evaluation: Evaluation, outputs: Outputs, count: int) -> int:
    """Write the page of all images if it is asked for and possible; return how many it has."""
    if not count or outputs.indices is None or not len(outputs.targets):
        return 0
    decisions = evaluation.decisions
    return write_gallery(
        folder, decisions, evaluation.labels, outputs.source, outputs.indices, count
    )


def _companions(outputs: Outputs, evaluation: Evaluation, images: int) -> Companions | None:
    """Return how far labels hang on their companions, if that is asked for and can be told."""
    if not images or outputs.indices is None:
        return None
    return measure_companions(
        Predictor(outputs.bundle, batch_size=WINDOWS),
        outputs.source,
        outputs.indices,
        evaluation.scores,
        outputs.targets,
        images,
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


def run_bundle(
    config: schema.Config, workdir: Path, *, thresholds: bool, embeddings: bool = False
) -> Outputs:
    """Compute the logits of the bundle to evaluate for every readable validation image.

    Args:
      thresholds: they are wanted to choose thresholds.
      embeddings: give those of the plain view, too, of at most `MAX_EMBEDDED` images.

    Raises:
      WeightsError: the bundle is missing or damaged.
      ConfigError: its labels are not those of the data; or thresholds are wanted of a single-label
        model, which has none.
    """
    mesh = parallel.make_mesh(config.parallel)
    parallel.check_batch_size("evaluate.batch_size", config.evaluate.batch_size, mesh)
    given = config.evaluate.model_dir or workdir / "best_model"
    model_dir = model_folder(given)
    bundle = read_bundle(model_dir)
    network = bundle.model.network
    if thresholds and network.config.task == "single":
        raise ConfigError(
            f"{model_dir}: thresholds are not for model.task=single, whose best label is reported",
            "Leave out evaluate.thresholds and mode=thresholds.",
        )
    for key in ("companions", "labels"):
        if getattr(config.evaluate, key) and network.config.task == "single":
            raise ConfigError(
                f"{model_dir}: evaluate.{key} is not for model.task=single",
                "Its labels come alone: leave it out.",
            )
    source = open_split(config.data, "validation")
    check_labels(model_dir, bundle.labels, source.labels)
    _check_chosen(config.evaluate.labels, bundle.labels)
    if network.config.task == "single":
        source = single_label(source, on_error=config.data.on_error)

    reader = Reader(source, bundle.frame, config.data.on_error)
    variables = bundle.model.variables
    variables = parallel.put(variables, parallel.shardings(variables, mesh, network.tensor_axes))
    log.info("Evaluating %s on %s images.", given, f"{len(source):,}")
    views = Views.of(bundle, config.evaluate.tta)
    forward = first = make_forward(network, mesh, is_mirrored=views.is_mirrored)
    if embeddings := embeddings and len(source) <= MAX_EMBEDDED:
        first = make_forward(
            network, mesh, of="logits and embeddings", is_mirrored=views.is_mirrored
        )
    size = config.evaluate.batch_size
    rows, logits = parallel.local_rows(mesh, size), []
    for frame in views.frames:  # all images are read again for each: memory stays what it was
        framed = dataclasses.replace(reader, frame=frame)  # the account of broken images is shared
        batches = eval_batches(framed, config.data, batch_size=size, rows=rows)
        found, targets = score(forward if logits else first, {"best": variables}, batches, mesh)
        logits.append(found["best"])
    logits[0], vectors = np.split(logits[0], [len(source.labels)], axis=1)
    indices = np.setdiff1d(np.arange(len(source)), list(reader.broken))
    return Outputs(
        model_dir,
        bundle,
        source,
        indices if len(indices) == len(targets) else None,
        np.mean(logits, axis=0),
        targets,
        sorted(reader.broken.values()),
        vectors if embeddings else None,
    )


def _check_chosen(chosen: tuple[str, ...], labels: tuple[str, ...]) -> None:
    """Raise ConfigError if one of `evaluate.labels` is no label."""
    for name in chosen:
        if name not in labels:
            close = nearest(name, labels[:MAX_COMPARED])
            hint = f"Did you mean {close!r}?" if close else None
            raise ConfigError(f"evaluate.labels has {name!r}, which is no label", hint)
