"""The report of an evaluation as one HTML file that loads nothing."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mlcls_jax.files import write_text
from mlcls_jax.metrics import as_text, precision_recall_f1
from mlcls_jax.reports import charts
from mlcls_jax.reports.mistakes import (
    MAX_CONFUSED,
    Confusion,
    Decisions,
    Illustration,
    Mistake,
    confident_mistakes,
    confusion,
)
from mlcls_jax.reports.page import count, document, escape, jpeg, table_of_labels
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

_STYLE = (
    charts.STYLE
    + """
.tiles { display: grid; gap: .75rem; grid-template-columns: repeat(auto-fill, minmax(9rem, 1fr));
  margin: 1rem 0; padding: 0; list-style: none }
.tiles li { padding: .6rem .8rem; background: var(--card) }
.tiles b { display: block; font-size: 1.5rem; font-variant-numeric: tabular-nums }
.tiles span { display: block; font-size: .85rem; line-height: 1.3; color: var(--faint) }
.share { background: linear-gradient(to right, #1a73e855 calc(var(--v) * 100%), transparent 0) }
#classes td { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums }
td.share { min-width: 7rem }
.mistakes { grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)) }
.mistakes p { margin: .3rem 0 0; font-size: .9rem } .pair { display: flex; gap: .25rem }
.mistakes .pair img { min-width: 0; flex: 1; width: 50%; height: 9rem }
.matrix { width: auto } .matrix td { min-width: 2.6rem; text-align: center }
.matrix thead th { vertical-align: bottom; max-width: 8rem }
.matrix tbody th { position: sticky; left: 0; background: var(--card) }
.matrix td { background: rgb(26 115 232 / calc(var(--v) * 60%)) }
nav a { display: inline-block; padding: .3rem .8rem .3rem 0; color: var(--note) }
.pairs { columns: 20rem; padding-left: 2rem }
"""
)


@dataclass(frozen=True)
class Evaluation:
    """What the page tells about."""

    model_dir: Path
    task: str
    labels: tuple[str, ...]
    scores: np.ndarray  # float32 [N, K]
    targets: np.ndarray  # [N, K], -1 for not annotated
    metrics: dict[str, float]
    by_class: np.ndarray  # [K], average precision, or recall; NaN for a class without positives
    threshold: float | tuple[float, ...] | None  # None: one label an image
    temperature: float
    calibration: dict[str, Any] | None  # of the bundle: how its thresholds were chosen
    skipped: int  # images that could not be read
    chosen: dict[str, Any] | None  # by `fit_thresholds`, after this evaluation

    @property
    def is_single(self) -> bool:
        """Whether there is one label an image."""
        return self.task == "single"


Illustrate = Callable[[Sequence[Mistake]], list[Illustration]]


def write_report(folder: Path, evaluation: Evaluation, illustrate: Illustrate) -> Path:
    """Writes `report.html` into the folder, which is made; returns its path.

    The page needs no other file, all text in it is escaped, and its size hardly depends on the
    number of images: besides a row a label, it has a few diagrams and a few pictures.
    """
    e = evaluation
    limits = None
    if not e.is_single:
        limits = np.broadcast_to(np.float32(e.threshold), len(e.labels))
    decisions = Decisions(e.scores, e.targets, limits)
    parts = [
        _head(e),
        "" if e.is_single else _thresholds(e),
        _diagrams(e),
        _mistakes(e, decisions, illustrate, missed=False),
        "" if e.is_single else _mistakes(e, decisions, illustrate, missed=True),
        _confusion(e, confusion(decisions)),
        _classes(e, limits),
    ]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "report.html"
    write_text(path, document(f"Evaluation of {e.model_dir}", "\n".join(parts), style=_STYLE))
    return path


def _head(e: Evaluation) -> str:
    tiles = [
        f"<li><b>{as_text(e.metrics[name])}</b>{name}<span>{meaning}</span></li>"
        for name, meaning in _METRICS.items()
        if name in e.metrics
    ]
    skipped = f" {count(e.skipped, 'unreadable image')} left out." if e.skipped else ""
    return f"""<h1>Evaluation of <bdi>{escape(e.model_dir)}</bdi></h1>
<p>{count(len(e.scores), "image")}, {count(len(e.labels), "label")}.{skipped}</p>
<ul class="tiles">
{"".join(tiles)}
</ul>
<nav><a href="#diagrams">Diagrams</a> <a href="#mistakes">Mistakes</a>
<a href="#confusion">Labels taken for others</a> <a href="#labels">All labels</a></nav>"""


def _thresholds(e: Evaluation) -> str:
    if isinstance(e.threshold, tuple):
        low, middle, high = np.quantile(e.threshold, (0, 0.5, 1))
        text = (
            f"Each label has its own, from {low:.3f} to {high:.3f}, half of them below {middle:.3f}"
        )
    else:
        text = f"A label is reported if its score is above {e.threshold:g}"
    text += f"; logits are divided by a temperature of {e.temperature:.3f}."
    if e.calibration:
        text += f" They were {_wanted(e.calibration)}."
    if e.chosen is None:
        return f"<h2>Thresholds in force</h2>\n<p>{text}</p>"
    columns = [key for key in ("before", "after", "cross_validated") if key in e.chosen]
    head = "".join(
        f'<th scope="col" class="number">{key.replace("_", "-")}</th>' for key in columns
    )
    rows = [
        f'<tr><th scope="row">{name}</th>'
        + "".join(
            f'<td class="number">{as_text(values[key])}</td>' if key in values else "<td></td>"
            for key in columns
        )
        + "</tr>"
        for name, values in [
            (name, {key: e.chosen[key][name] for key in columns}) for name in e.chosen["after"]
        ]
        + [(name, e.chosen[name]) for name in ("MultiLabelMAP", "ECE", "NLL", "temperature")]
    ]
    return f"""<h2>Thresholds</h2>
<p>{text}</p>
<p>Others were {_wanted(e.chosen)}, after this evaluation, and are in the bundle now.
“After” is on the same images; “cross-validated” on images that the thresholds were not chosen
on, which is what to expect of new ones.</p>
<div class="scroll"><table>
<thead><tr><th scope="col">metric</th>{head}</tr></thead>
<tbody>
{"".join(rows)}
</tbody>
</table></div>"""


def _wanted(facts: dict[str, Any]) -> str:
    objective = (
        "the best F1" if facts["objective"] == "f1" else f"{facts['objective']} {facts['target']:g}"
    )
    return f"chosen for {escape(objective)} on {count(facts['images'], 'image')}"


def _diagrams(e: Evaluation) -> str:
    scores, targets = e.scores, e.targets
    names, figures = ("absent", "present"), []
    if e.is_single:  # the best label of each image, and whether it is right
        known = (targets >= 0).all(1)
        best = scores[known].argmax(1)[:, None]
        scores, targets = (np.take_along_axis(a[known], best, 1) for a in (scores, targets))
        names = ("wrong", "right")
    else:
        curves = [charts.Curve("all labels together", *charts.precision_recall(scores, targets))]
        ranked = np.argsort(-e.by_class, kind="stable")[: np.isfinite(e.by_class).sum()]
        if ranked.size:
            chosen = {"best": ranked[0], "median": ranked[len(ranked) // 2], "worst": ranked[-1]}
            curves += [
                charts.Curve(
                    f"{title}: {_short(e.labels[k])}, {e.by_class[k]:.3f}",
                    *charts.precision_recall(scores[:, [k]], targets[:, [k]]),
                )
                for title, k in chosen.items()
            ]
        figures.append(
            charts.line_chart(
                curves,
                x_label="recall",
                y_label="precision",
                caption="Precision and recall over all thresholds; best, median and worst label"
                " by average precision.",
            )
        )
    bins = calibration_bins(scores, targets)
    figures.append(
        charts.reliability(
            bins,
            caption=f"Calibration: expected calibration error {bins.error:.4f}. Where bars end at"
            " the dashed line, scores are probabilities.",
        )
    )
    figures.append(
        charts.histogram(
            charts.score_counts(scores, targets), names, caption="How many decisions have a score."
        )
    )
    return (
        '<h2 id="diagrams">Diagrams</h2>\n<div class="plots">\n' + "\n".join(figures) + "\n</div>"
    )


def _mistakes(e: Evaluation, decisions: Decisions, illustrate: Illustrate, *, missed: bool) -> str:
    mistakes = confident_mistakes(decisions, missed=missed)
    title, text = (
        ("Missed at the lowest scores", "Labels that are present and were not reported.")
        if missed
        else ("Wrong at the highest scores", "Labels that were reported and are absent.")
    )
    anchor = "" if missed else ' id="mistakes"'
    heading = f"<h2{anchor}>{title}</h2>"
    if not mistakes:
        return f"{heading}\n<p>There are none.</p>"
    shown = illustrate(mistakes)
    if any(illustration.evidence for illustration in shown):
        text += " Beside each image, where the model looked for the label."
    items = "\n".join(
        _mistake(e, decisions, *both, missed=missed) for both in zip(mistakes, shown, strict=True)
    )
    return f'{heading}\n<p>{text}</p>\n<ul class="samples mistakes">\n{items}\n</ul>'


def _mistake(
    e: Evaluation, decisions: Decisions, mistake: Mistake, shown: Illustration, *, missed: bool
) -> str:
    label = f"<bdi>{escape(_short(e.labels[mistake.label]))}</bdi>"
    limit = ""
    if decisions.threshold is not None:
        limit = f", threshold {decisions.threshold[mistake.label]:.3f}"
    reported = decisions.reported(np.array([mistake.row]))[0]
    truth = e.targets[mistake.row] >= 1
    others = f"true: {_names(e, truth)}"
    if missed:
        others = f"reported: {_names(e, reported)}"
    pictures = f'<span class="nothing">{escape(shown.error)}</span>'
    if shown.picture:
        pictures = jpeg(shown.picture, alt="")  # the text below says it all
    if shown.evidence:
        seen = jpeg(shown.evidence, alt=f"where {e.labels[mistake.label]} was looked for")
        pictures = f'<div class="pair">{pictures}{seen}</div>'
    verb = "missed" if missed else "reported"
    return (
        f"<li>{pictures}<p>{verb} <b>{label}</b> at {mistake.score:.4f}{limit}<br>{others}<br>"
        f'<bdi class="faint">{escape(_short(shown.name))}</bdi></p></li>'
    )


def _names(e: Evaluation, chosen: np.ndarray) -> str:
    found = np.flatnonzero(chosen)
    names = ", ".join(f"<bdi>{escape(_short(e.labels[k]))}</bdi>" for k in found[:MAX_NAMES])
    more = f" and {len(found) - MAX_NAMES} more" if len(found) > MAX_NAMES else ""
    return names + more or "none"


def _confusion(e: Evaluation, found: Confusion) -> str:
    title = '<h2 id="confusion">Labels taken for others</h2>'
    if not found.counts.any():
        return f"{title}\n<p>There are none.</p>"
    flat = found.counts.ravel()
    order = np.argsort(-flat, kind="stable")[:MAX_PAIRS]
    pairs = [divmod(int(i), found.counts.shape[1]) for i in order if flat[i]]
    items = "\n".join(
        f"<li><bdi>{escape(_short(e.labels[found.missed[a]]))}</bdi> →"
        f" <bdi>{escape(_short(e.labels[found.instead[b]]))}</bdi>: {found.counts[a, b]:,} of"
        f" {found.misses[a]:,}</li>"
        for a, b in pairs
    )
    rows = list(dict.fromkeys(a for a, _ in pairs))[:MATRIX_SIDE]
    columns = list(dict.fromkeys(b for _, b in pairs))[:MATRIX_SIDE]
    head = "".join(
        f'<th scope="col"><bdi>{escape(_short(e.labels[found.instead[b]]))}</bdi></th>'
        for b in columns
    )
    body = "\n".join(
        f'<tr><th scope="row"><bdi>{escape(_short(e.labels[found.missed[a]]))}</bdi></th>'
        + "".join(
            f'<td style="--v:{found.counts[a, b] / found.misses[a]:.2f}">'
            f"{found.counts[a, b] or ''}</td>"
            for b in columns
        )
        + "</tr>"
        for a in rows
    )
    limit = (
        f" Compared are the {MAX_CONFUSED} labels with the most mistakes."
        if max(found.counts.shape) == MAX_CONFUSED
        else ""
    )
    return f"""{title}
<p>Of the images in which the first label was missed, so many had the second one reported though
it is absent.{limit}</p>
<ol class="pairs">
{items}
</ol>
<p>Rows: missed; columns: reported instead; the darker, the larger the share of the misses.</p>
<div class="scroll" tabindex="0" role="region" aria-label="Labels taken for others">
<table class="matrix">
<thead><tr><td></td>{head}</tr></thead>
<tbody>
{body}
</tbody>
</table></div>"""


def _classes(e: Evaluation, limits: np.ndarray | None) -> str:
    """A row a label, the worst first; those without positives last."""
    positives = (e.targets >= 1).sum(0)
    if e.is_single:
        heads = ["index", "name", "recall", "images"]
        columns: list[np.ndarray] = []
    else:
        heads = ["index", "name", "AP", "images", "precision", "recall", "F1", "threshold"]
        found = precision_recall_f1(e.scores, e.targets, threshold=limits)
        columns = [found["precision"], found["recall"], found["f1"], limits]
    rows = [
        f'<tr><td>{k}</td><th scope="row"><bdi>{escape(e.labels[k])}</bdi></th>'
        f"{_share(e.by_class[k])}<td>{positives[k]:,}</td>"
        + "".join(f"<td>{values[k]:.3f}</td>" for values in columns)
        + "</tr>"
        for k in np.argsort(e.by_class, kind="stable")
    ]
    return table_of_labels(heads, rows)


def _share(value: float) -> str:
    if np.isnan(value):
        return "<td>–</td>"
    return f'<td class="share" style="--v:{value:.3f}">{value:.4f}</td>'


def _short(text: str, length: int = 60) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
