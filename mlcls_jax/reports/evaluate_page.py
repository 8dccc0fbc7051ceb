"""The report of an evaluation as one HTML file: templates/evaluation.html and what it needs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from mlcls_jax.metrics import precision_recall_f1
from mlcls_jax.reports import charts, page
from mlcls_jax.reports.mistakes import (
    MAX_CONFUSED,
    Confusion,
    Decisions,
    Illustration,
    Mistake,
    confident_mistakes,
    confusion,
)
from mlcls_jax.thresholds import calibration_bins

MAX_PAIRS = 20  # labels taken for one another, in the list
MATRIX_SIDE = 12
MAX_NAMES = 8  # labels named for one image

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

    @property
    def is_single(self) -> bool:
        """Whether there is one label per image."""
        return self.task == "single"


Illustrate = Callable[[Sequence[Mistake]], list[Illustration]]


def write_report(folder: Path, evaluation: Evaluation, illustrate: Illustrate) -> Path:
    """Write `report.html` into the folder, which is made; return its path.

    The page needs no other file, and its size hardly depends on the number of images: besides a
    row per label, it has a few diagrams and a few pictures.
    """
    e = evaluation
    limits = None
    if not e.is_single:
        limits = np.broadcast_to(np.float32(e.threshold), len(e.labels))
    decisions = Decisions(e.scores, e.targets, limits)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "report.html"
    page.write_page(
        path,
        "evaluation.html",
        evaluation=e,
        limits=limits,
        metrics=_METRICS.items(),
        in_force=None if e.is_single else _in_force(e),
        chosen=_chosen(e),
        charts=_charts(e),
        mistakes=[
            _mistakes(decisions, illustrate, are_missed=are_missed)
            for are_missed in ((False,) if e.is_single else (False, True))
        ],
        max_names=MAX_NAMES,
        confusion=_confusion(confusion(decisions)),
        **_table(e, limits),
    )
    return path


def _in_force(e: Evaluation) -> str:
    if isinstance(e.threshold, tuple):
        low, middle, high = np.quantile(e.threshold, (0, 0.5, 1))
        text = (
            f"Each label has its own, from {low:.3f} to {high:.3f}, half of them below {middle:.3f}"
        )
    else:
        text = f"A label is reported if its score is above {e.threshold:g}"
    text += f"; logits are divided by a temperature of {e.temperature:.3f}."
    if e.calibration:
        text += f" They were {_purpose(e.calibration)}."
    return text


def _purpose(facts: dict[str, Any]) -> str:
    objective = (
        "the best F1" if facts["objective"] == "f1" else f"{facts['objective']} {facts['target']:g}"
    )
    return f"chosen for {objective} on {page.count(facts['images'], 'image')}"


def _chosen(e: Evaluation) -> dict[str, Any] | None:
    """Return metrics by the moments at which they were taken, where thresholds were chosen."""
    if e.chosen is None:
        return None
    moments = [key for key in ("before", "after", "cross_validated") if key in e.chosen]
    return {
        "purpose": _purpose(e.chosen),
        "moments": moments,
        "rows": [
            *((name, {key: e.chosen[key][name] for key in moments}) for name in e.chosen["after"]),
            *((name, e.chosen[name]) for name in ("MultiLabelMAP", "ECE", "NLL", "temperature")),
        ],
    }


def _charts(e: Evaluation) -> list[charts.Chart]:
    if e.is_single:  # the best label of each image, and whether it is right
        known = (e.targets >= 0).all(1)
        best = e.scores[known].argmax(1)[:, None]
        scores, targets = (np.take_along_axis(a[known], best, 1) for a in (e.scores, e.targets))
        names, curves = ("wrong", "right"), []
    else:
        scores, targets = e.scores, e.targets
        names, curves = ("absent", "present"), [_curves(e)]
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


def _curves(e: Evaluation) -> charts.Chart:
    curves = [charts.Curve("all labels together", *charts.precision_recall(e.scores, e.targets))]
    ranked = np.argsort(-e.by_class, kind="stable")[: np.isfinite(e.by_class).sum()]
    if ranked.size:
        chosen = {"best": ranked[0], "median": ranked[len(ranked) // 2], "worst": ranked[-1]}
        curves += [
            charts.Curve(
                f"{title}: {page.shorten(e.labels[k])}, {e.by_class[k]:.3f}",
                *charts.precision_recall(e.scores[:, [k]], e.targets[:, [k]]),
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


@dataclass(frozen=True)
class _Shown:
    """A mistake on the page."""

    label: int
    score: float
    others: np.ndarray  # labels of the image: the true ones, or those reported where one is missed
    name: str
    picture: Markup | None
    evidence: Markup | None
    error: str | None


def _mistakes(
    decisions: Decisions, illustrate: Illustrate, *, are_missed: bool
) -> dict[str, object]:
    mistakes = confident_mistakes(decisions, missed=are_missed)
    shown = [
        _Shown(
            mistake.label,
            mistake.score,
            np.flatnonzero(
                decisions.reported(np.array([mistake.row]))[0]
                if are_missed
                else decisions.targets[mistake.row] >= 1
            ),
            found.name,
            found.picture and page.jpeg(found.picture),
            found.evidence and page.jpeg(found.evidence),
            found.error,
        )
        for mistake, found in zip(mistakes, illustrate(mistakes) if mistakes else [], strict=True)
    ]
    return {
        "are_missed": are_missed,
        "shown": shown,
        "has_evidence": any(one.evidence for one in shown),
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


def _table(e: Evaluation, limits: np.ndarray | None) -> dict[str, Any]:
    """Return the columns of the table of labels: the worst first, those without positives last."""
    names, numbers = ["index", "name", "recall", "images"], []
    if not e.is_single:
        names = ["index", "name", "AP", "images", "precision", "recall", "F1", "threshold"]
        found = precision_recall_f1(e.scores, e.targets, threshold=limits)
        numbers = [found["precision"], found["recall"], found["f1"], limits]
    return {
        "columns": names,
        "order": np.argsort(e.by_class, kind="stable"),
        "positives": (e.targets >= 1).sum(0),
        "numbers": numbers,
    }
