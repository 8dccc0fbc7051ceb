"""The report of an evaluation as one HTML file: templates/evaluation.html and what it needs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mlcls_jax.inference.masking import SIDE
from mlcls_jax.metrics import precision_recall_f1
from mlcls_jax.reports import charts, page
from mlcls_jax.reports.companions import MIN_IMAGES, PLACE, Companions
from mlcls_jax.reports.gallery import GALLERY
from mlcls_jax.reports.mistakes import (
    MAX_CONFUSED,
    Confusion,
    Decisions,
    Illustration,
    Mistake,
    confident_mistakes,
    confusion,
)
from mlcls_jax.reports.similar import Neighbour, Similar
from mlcls_jax.thresholds import calibration_bins

MAX_PAIRS = 20  # labels taken for one another, in the list
MATRIX_SIDE = 12

# The first of each task are shown large.
_METRICS = {
    "MultiLabelMAP": "mean average precision",
    "OF1": "F1 of all decisions",
    "CF1": "F1 of the means over labels",
    "OP": "precision of all decisions",
    "OR": "recall of all decisions",
    "CP": "mean precision of the labels",
    "CR": "mean recall of the labels",
    "SampleAccuracy": "images with every label right",
    "HammingDistance": "decisions that are wrong",
    "Top1": "images whose best label is right",
    "Top5": "images with the right one among the best five",
    "BalancedAccuracy": "mean recall of the labels",
}


@dataclass(frozen=True)
class Evaluation:
    """An evaluation and its results, as the page shows them."""

    model_dir: Path
    task: str
    labels: tuple[str, ...]
    scores: np.ndarray  # float32 [N, K]
    targets: np.ndarray  # [N, K], -1 for not annotated
    metrics: dict[str, float]
    by_class: np.ndarray  # [K], average precision, or recall; NaN for a class without positives
    threshold: float | tuple[float, ...] | None  # None: one label per image
    temperature: float
    calibration: dict[str, Any] | None  # of the bundle: how its thresholds were chosen
    skipped: int  # images that could not be read
    chosen: dict[str, Any] | None  # by `fit_thresholds`, after this evaluation
    told: tuple[str, ...] = ()  # further sentences
    companions: Companions | None = None  # not asked for

    @property
    def is_single(self) -> bool:
        """Return whether the task is single-label."""
        return self.task == "single"

    @property
    def limits(self) -> np.ndarray | None:
        """Return the threshold of each label, float32 [K]; None: one label per image."""
        if self.is_single:
            return None
        return np.broadcast_to(np.asarray(self.threshold, np.float32), len(self.labels))

    @property
    def decisions(self) -> Decisions:
        """Return what is reported of each image."""
        return Decisions(self.scores, self.targets, self.limits)


Illustrate = Callable[[Sequence[Mistake]], list[Illustration]]


def write_report(
    folder: Path,
    evaluation: Evaluation,
    illustrate: Illustrate,
    similar: Similar | None = None,
    gallery: int = 0,
) -> Path:
    """Write `report.html` into the folder, which is made; return its path.

    The page needs no other file, and its size hardly depends on the number of images: besides a
    row per label, it has a few diagrams and a few pictures. If the page beside it has images,
    `gallery` of them, it links there.
    """
    limits, decisions = evaluation.limits, evaluation.decisions
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "report.html"
    page.write(
        path,
        "evaluation.html",
        evaluation=evaluation,
        limits=limits,
        metrics=_METRICS.items(),
        in_force=None if evaluation.is_single else _in_force(evaluation),
        chosen=_chosen(evaluation.chosen),
        charts=_charts(evaluation) + (similar.charts() if similar else []),
        mistakes=[
            _mistakes(evaluation, illustrate, similar, are_missed=are_missed)
            for are_missed in ((False,) if evaluation.is_single else (False, True))
        ],
        gallery=(GALLERY, gallery),
        companions=evaluation.companions,
        masked_parts=(PLACE, SIDE * SIDE),
        masked_least=MIN_IMAGES,
        confusion=_confusion(confusion(decisions)),
        **_table(evaluation, limits),
    )
    return path


def _in_force(evaluation: Evaluation) -> str:
    if isinstance(evaluation.threshold, tuple):
        low, middle, high = np.quantile(evaluation.threshold, (0, 0.5, 1))
        text = (
            f"Each label has its own, from {low:.3f} to {high:.3f}, half of them below {middle:.3f}"
        )
    else:
        text = f"A label is reported if its score is above {evaluation.threshold:g}"
    text += f"; logits are divided by a temperature of {evaluation.temperature:.3f}."
    if evaluation.calibration:
        text += f" They were {_purpose(evaluation.calibration)}."
    return text


def _purpose(facts: dict[str, Any]) -> str:
    objective = {"f1": "the best F1", "prevalence": "as many images as have the label"}.get(
        facts["objective"], f"{facts['objective']} {facts['target'] or 0:g}"
    )
    return f"chosen for {objective} on {page.count(facts['images'], 'image')}"


def _chosen(found: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return metrics by the moments at which they were taken, where thresholds were chosen."""
    if found is None:
        return None
    moments = [key for key in ("before", "after", "cross_validated") if key in found]
    overall = ("MultiLabelMAP", "ECE", "NLL", "temperature")
    return {
        "purpose": _purpose(found),
        "moments": moments,
        "rows": [
            *((name, {key: found[key][name] for key in moments}) for name in found["after"]),
            *((name, found[name]) for name in overall),
        ],
    }


def _charts(evaluation: Evaluation) -> list[charts.Chart]:
    if evaluation.is_single:  # the best label of each image, and whether it is right
        known = (evaluation.targets >= 0).all(1)
        best = evaluation.scores[known].argmax(1)[:, None]
        scores = np.take_along_axis(evaluation.scores[known], best, 1)
        targets = np.take_along_axis(evaluation.targets[known], best, 1)
        names, curves = ("wrong", "right"), []
    else:
        scores, targets = evaluation.scores, evaluation.targets
        names, curves = ("absent", "present"), [_curves(evaluation)]
    bins = calibration_bins(scores, targets)
    return [
        *curves,
        charts.reliability(
            bins,
            caption=f"Calibration: expected calibration error {bins.error:.4f}. Where bars end at"
            " the dashed line, scores are probabilities.",
        ),
        charts.histogram(
            charts.score_counts(scores, targets), names, caption="How many decisions have a score."
        ),
    ]


def _curves(evaluation: Evaluation) -> charts.Chart:
    curves = [
        charts.Curve(
            "all labels together", *charts.precision_recall(evaluation.scores, evaluation.targets)
        )
    ]
    best_first = np.argsort(-evaluation.by_class, kind="stable")
    ranked = best_first[: np.isfinite(evaluation.by_class).sum()]
    if ranked.size:
        chosen = {"best": ranked[0], "median": ranked[len(ranked) // 2], "worst": ranked[-1]}
        curves += [
            charts.Curve(
                f"{title}: {page.shorten(evaluation.labels[k])}, {evaluation.by_class[k]:.3f}",
                *charts.precision_recall(evaluation.scores[:, [k]], evaluation.targets[:, [k]]),
            )
            for title, k in chosen.items()
        ]
    return charts.line_chart(
        curves,
        x_label="recall",
        y_label="precision",
        caption="Precision and recall over all thresholds; best, median and worst label by average"
        " precision.",
    )


class _Shown(NamedTuple):
    """A mistake on the page."""

    mistake: Mistake
    image: Illustration
    others: list[str]  # labels of the image: the true, or the reported ones where one is missed
    neighbours: list[Neighbour]


def _mistakes(
    evaluation: Evaluation, illustrate: Illustrate, similar: Similar | None, *, are_missed: bool
) -> dict[str, object]:
    decisions = evaluation.decisions
    mistakes = confident_mistakes(decisions, missed=are_missed)
    near = similar([mistake.row for mistake in mistakes]) if similar else [[] for _ in mistakes]
    found = illustrate(mistakes) if mistakes else []
    rows = np.array([mistake.row for mistake in mistakes], int)
    others = decisions.reported(rows) if are_missed else decisions.targets[rows] >= 1
    names = ([evaluation.labels[k] for k in np.flatnonzero(row)] for row in others)
    parts = zip(mistakes, found, names, near, strict=True)
    shown = [_Shown(*part) for part in parts]
    return {
        "are_missed": are_missed,
        "shown": shown,
        "has_evidence": any(one.image.evidence for one in shown),
    }


def _confusion(found: Confusion) -> dict[str, object]:
    flat = found.counts.ravel()
    order = np.argsort(-flat, kind="stable")[:MAX_PAIRS]
    pairs = [divmod(int(i), found.counts.shape[1]) for i in order if flat[i]]
    return found._asdict() | {
        "pairs": pairs,
        "rows": list(dict.fromkeys(a for a, _ in pairs))[:MATRIX_SIDE],
        "columns": list(dict.fromkeys(b for _, b in pairs))[:MATRIX_SIDE],
        "limit": MAX_CONFUSED,
        "is_cut": max(found.counts.shape) == MAX_CONFUSED,
    }


def _table(evaluation: Evaluation, limits: np.ndarray | None) -> dict[str, Any]:
    """Return the columns of the table of labels: the worst first, those without positives last."""
    names, numbers = ["index", "name", "recall", "images"], []
    if limits is not None:
        names = ["index", "name", "AP", "images", "precision", "recall", "F1", "threshold"]
        found = precision_recall_f1(evaluation.scores, evaluation.targets, threshold=limits)
        numbers = [found["precision"], found["recall"], found["f1"], limits]
    return {
        "columns": names,
        "order": np.argsort(evaluation.by_class, kind="stable"),
        "positives": (evaluation.targets >= 1).sum(0),
        "numbers": numbers,
    }
