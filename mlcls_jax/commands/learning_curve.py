"""`mlcls learning_curve RUN`: what more labelled images would bring, label by label."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mlcls_jax import files, usage
from mlcls_jax.config import option
from mlcls_jax.curation.shared_options import Asked, results_in
from mlcls_jax.readable import csv_text, table

if TYPE_CHECKING:  # imports JAX, which a help does without
    from mlcls_jax.curation.curve import Curve, Need
    from mlcls_jax.curation.subject import Subject

FOLDER = "learning_curve"
LABELS = 15  # shown


@dataclass(frozen=True, kw_only=True)
class Arguments(Asked):
    """Say how AP of each label grows with its labelled images.

    Also told is how many more would raise it by 3 points. Linear heads are fitted on parts of the
    training images, and a power law on what they reach on the validation images.
    """

    output: str | None = option(
        None, "folder for the results; None: learning_curve in the run, or in runs/DATA",
        path="local",
    )  # fmt: skip


def run(argv: list[str]) -> str:
    """Measure the curve, write a table and a page, and return a summary."""
    args = usage.arguments(Arguments, argv, "learning_curve runs/photos-1")
    subject = args.subject(args.data)
    folder = Path(args.output) if args.output else subject.folder / FOLDER
    with results_in(folder):
        return _measure(args, subject, folder)


def _measure(args: Arguments, subject: "Subject", folder: Path) -> str:
    from mlcls_jax.curation.curve import measure, needs
    from mlcls_jax.reports.curve_page import write_page

    curve = measure(subject, device=args.device)
    found = needs(curve)
    files.write_text(folder / "learning_curve.csv", _csv(curve, found))
    write_page(folder / "report.html", curve, found)
    mean = np.nanmean(curve.precision, (1, 2))
    lines = table(
        [
            ("training images", *(f"{n:,.0f}" for n in curve.images)),
            ("mAP of heads", *(f"{value:.3f}" for value in mean)),
        ]
    )
    rows = [("label", "images", "AP", "twice as many", "for +0.03 AP")]
    rows += [
        (one.label, f"{one.positives:,}", f"{one.now:.3f}", f"{one.doubled:.3f}", told(one))
        for one in found[:LABELS]
        if np.isfinite(one.doubled)
    ]
    lines += ["", "Labels that gain most from more images:", *table(rows)]
    lines += [f"  report  {folder / 'report.html'}", f"  table   {folder / 'learning_curve.csv'}"]
    return "\n".join(lines)


def told(need: "Need") -> str:
    """Return how many more images a label needs, with the middle 80 % of resampling."""
    if need.more is None:
        return "more than can be told"
    low, high = ("…" if v is None else f"{v:,.0f}" for v in (need.low, need.high))
    return f"{need.more:,.0f} ({low} to {high})"


def _csv(curve: "Curve", found: "list[Need]") -> str:
    sizes = [f"AP_{n:.0f}" for n in curve.images]
    rows: list[list[object]] = [
        ["label", "images", *sizes, "AP_doubled", "more", "more_low", "more_high"]
    ]
    place = {label: k for k, label in enumerate(curve.labels)}
    for one in found:
        values = [*curve.precision.mean(1)[:, place[one.label]], one.doubled]
        cells = ["" if not np.isfinite(v) else f"{v:.4f}" for v in values]
        more = ["" if v is None else f"{v:.0f}" for v in (one.more, one.low, one.high)]
        rows.append([one.label, one.positives, *cells, *more])
    return csv_text(rows)
