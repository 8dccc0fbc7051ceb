"""`mlcls compare RUN RUN`: what runs and bundles reach and cost, side by side."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlcls_jax import usage
from mlcls_jax.config import REQUIRED, option
from mlcls_jax.files import write_text
from mlcls_jax.metrics import SHOWN_METRICS, as_text
from mlcls_jax.readable import table

if TYPE_CHECKING:  # imports JAX, which a help does without
    from mlcls_jax.commands.compared import Compared
    from mlcls_jax.reports.compare_page import Comparison
    from mlcls_jax.reports.page import Page

LABELS = 8  # shown of each direction
LABEL_METRICS = ("average_precision", "recall")
PAGE = "compare.html"


@dataclass(frozen=True)
class Arguments:
    """Hold runs and bundles side by side.

    Metrics of the best model on the validation images, time, size and speed are shown, and the
    labels in which the last differs most from the first, where both have been evaluated. A page
    shows more: curves, all labels, and images on which they differ.
    """

    runs: tuple[str, ...] = option(
        REQUIRED, "folders of runs, or bundles; the first is what others are held against",
        positional=True, metavar="RUN",
    )  # fmt: skip
    data: str | None = option(
        None, "data set whose validation images all are evaluated on now; None: what runs have"
        " recorded, and bundles have not", path="local",
    )  # fmt: skip
    speed: bool = option(
        False, "measure milliseconds per image here, one at a time; --data does so, too"
    )
    output: str | None = option(
        None, "the page; None: compare.html in the folder of the last run", path="local"
    )


def run(argv: list[str]) -> str:
    """Write a page, and return a table of the runs and the labels in which they differ most."""
    given = usage.arguments(Arguments, argv, "compare runs/photos-1 runs/photos-2")
    from mlcls_jax.commands.compared import measured, open_compared
    from mlcls_jax.reports.compare_page import make_page

    compared = [open_compared(folder) for folder in given.runs]
    if given.data or given.speed:
        compared = measured(compared, given.data)
    comparison, of_mean = _comparison(compared)
    page = Path(given.output or Path(given.runs[-1]) / PAGE)
    write_text(page, make_page(comparison).text)
    shown = [
        (name, *("-" if value is None else as_text(value) for value in values))
        for name, values, _ in comparison.metrics
    ]
    lines = table([("run", *given.runs), *comparison.facts, *shown])
    lines += _differences(compared[0], compared[-1], _label_metric(compared), comparison.intervals)
    if of_mean:
        low, high = of_mean
        lines.append(f"The mean of all labels changes by {low:+.4f} … {high:+.4f} (95 %).")
    return "\n".join([*lines, f"  page  {page}"])


def page_of(runs: Sequence[str], speed: bool) -> "Page":
    """Return the page of runs and bundles, from what their files tell, and with their speed here.

    Without `speed`, as while the machine is busy, it is not measured, and the page says so.

    Raises:
      UserError: one is neither; or cannot be read, for its speed.
    """
    from mlcls_jax.commands.compared import SPEED, open_compared, timed
    from mlcls_jax.reports.compare_page import make_page

    compared = [open_compared(folder) for folder in runs]
    if speed:
        compared = timed(compared)
    else:
        told = {SPEED: "once the images are scored"}
        compared = [replace(one, facts={**one.facts, **told}) for one in compared]
    return make_page(_comparison(compared)[0])


def _comparison(compared: "Sequence[Compared]") -> "tuple[Comparison, Sequence[float] | None]":
    """Return what the page shows, and the interval of the change of the mean of all labels."""
    from mlcls_jax.reports.compare_page import Comparison
    from mlcls_jax.reports.decisions_file import differences, label_intervals

    first, last = compared[0], compared[-1]
    metric = _label_metric(compared)
    both = (first.kept, last.kept) if first.kept and last.kept else None
    is_ranked = metric == LABEL_METRICS[0] and len(compared) > 1
    intervals, of_mean = (label_intervals(*both) if both and is_ranked else None) or ({}, None)
    names = dict.fromkeys(name for one in compared for name in SHOWN_METRICS[one.task])
    comparison = Comparison(
        names=[one.name for one in compared],
        facts=_facts(compared),
        metrics=[
            (
                name,
                [one.shown.get(name) for one in compared],
                [one.judged.get("intervals", {}).get(name) for one in compared],
            )
            for name in names
        ],
        histories=[one.history for one in compared],
        metric=SHOWN_METRICS[first.task][0],
        by_label=[one.judged.get(metric, {}) for one in compared],
        label_metric=metric.replace("_", " "),
        differing=differences(*both) if both else None,
        intervals=intervals,
    )
    return comparison, of_mean


def _label_metric(compared: "Sequence[Compared]") -> str:
    judged = compared[0].judged, compared[-1].judged
    return next((name for name in LABEL_METRICS if all(name in one for one in judged)), "")


def _facts(compared: "Sequence[Compared]") -> list[tuple[str, ...]]:
    """Return rows of name and value per run."""
    names = dict.fromkeys(name for one in compared for name in one.facts)
    rows = [(name, *(one.facts.get(name, "-") for one in compared)) for name in names]
    return [*rows, ("validated on", *_validation([one.validation for one in compared]))]


def _validation(told: Sequence[dict[str, Any] | None]) -> Iterator[str]:
    """Yield on how many images runs were judged, and whether on others than the first."""
    for own in told:
        before = told[0] or own or {}
        differing = {key for key in before if own and own.get(key, before[key]) != before[key]}
        kind = "other " if differing & {"images", "images listed"} else ""
        labels = ", with other labels" if "targets" in differing and not kind else ""
        yield f"{own['images']:,} {kind}images{labels}" if own else "-"


def _differences(
    first: "Compared", last: "Compared", metric: str, intervals: Mapping[str, Sequence[float]]
) -> list[str]:
    """Return lines on the labels whose average precision, or recall, differs most."""
    from mlcls_jax.reports.compare_page import label_rows

    if not metric or first.model_dir == last.model_dir:
        return []
    found = label_rows([first.judged[metric], last.judged[metric]], intervals)
    better = [row for row in found if (row.change or 0) > 0][:LABELS]
    worse = [row for row in found if (row.change or 0) < 0][-LABELS:]
    rows = [
        (row.name, *(f"{v:.4f}" for v in row.values), f"{row.change:+.4f}", row.interval)
        for row in [*better, *worse]
    ]
    title = (metric.replace("_", " "), first.name, last.name, "change", "95 %" * bool(intervals))
    only = sum(row.change is None for row in found)
    note = [f"{only} labels are known to one of the two only."] if only else []
    return ["", *table([title, *rows]), *note]
