"""`mlcls compare RUN RUN`: what runs reached and cost, side by side."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlcls_jax import files, usage
from mlcls_jax.config import REQUIRED, option
from mlcls_jax.metrics import SHOWN_METRICS, as_text
from mlcls_jax.modes.train_result import RESULT_FILE
from mlcls_jax.readable import table
from mlcls_jax.workdir import BEST_MODEL, DATA_FILE, EVALUATION, METRICS

if TYPE_CHECKING:  # imports JAX, which a help does without
    from mlcls_jax.reports.compare_page import Comparison
    from mlcls_jax.runs import Run

LABELS = 8  # shown of each direction
LABEL_METRICS = ("average_precision", "recall")
PAGE = "compare.html"


@dataclass(frozen=True)
class Arguments:
    """Hold runs side by side.

    Metrics of the best model on the validation images, time and size are shown, and the labels
    in which the last run differs most from the first, where both have been evaluated. A page
    shows more: curves, all labels, and images on which they differ.
    """

    runs: tuple[str, ...] = option(
        REQUIRED, "folders of runs; the first is what others are held against", positional=True,
        metavar="RUN",
    )  # fmt: skip
    output: str | None = option(
        None, "the page; None: compare.html in the folder of the last run", path="local"
    )


def run(argv: list[str]) -> str:
    """Write a page, and return a table of the runs and the labels in which they differ most."""
    given = usage.arguments(Arguments, argv, "compare runs/photos-1 runs/photos-2")
    from mlcls_jax.reports.compare_page import write_page
    from mlcls_jax.runs import load

    runs = [load(folder) for folder in given.runs]
    known = metrics(runs)
    shown = [
        (name, *("-" if value is None else as_text(value) for value in values))
        for name, values in known
    ]
    lines = table([("run", *map(str, (r.folder for r in runs))), *facts(runs), *shown])
    page = Path(given.output) if given.output else runs[-1].folder / PAGE
    write_page(page, _comparison(runs, known))
    return "\n".join([*lines, *differences(runs[0], runs[-1]), f"  page  {page}"])


def _comparison(runs: "list[Run]", known: "list[tuple[str, list[float | None]]]") -> "Comparison":
    from mlcls_jax.reports.compare_page import Comparison
    from mlcls_jax.reports.curves import read_history
    from mlcls_jax.reports.decisions_file import differences, read_decisions

    judged = [_json(run, EVALUATION) for run in runs]
    metric = next((m for m in LABEL_METRICS if m in judged[0] and m in judged[-1]), "")
    first, last = (read_decisions(run.folder / "evaluate") for run in (runs[0], runs[-1]))
    return Comparison(
        names=[str(run.folder) for run in runs],
        facts=facts(runs),
        metrics=[
            (name, values, [j.get("intervals", {}).get(name) for j in judged])
            for name, values in known
        ],
        histories=[read_history(run.folder / METRICS, str(run.folder)) for run in runs],
        metric=SHOWN_METRICS[runs[0].config.model.task][0],
        by_label=[j.get(metric, {}) for j in judged],
        label_metric=metric.replace("_", " "),
        differing=differences(first, last) if first and last else None,
    )


def facts(runs: "list[Run]") -> list[tuple[str, ...]]:
    """Return rows of name and value per run; "-" is not known, as in an unfinished run."""
    configs = [run.config for run in runs]
    done = [_json(run, RESULT_FILE) for run in runs]
    sizes = [run.folder / BEST_MODEL / "weights.safetensors" for run in runs]
    return [
        ("model", *(c.model.name for c in configs)),
        ("image size", *("{} x {}".format(*c.model.image_size) for c in configs)),
        ("data", *(c.data.dir or c.data.source for c in configs)),
        ("validated on", *_validation([_json(run, DATA_FILE).get("validation") for run in runs])),
        ("start", *(str(c.model.weights) for c in configs)),
        ("epochs", *(str(d.get("epochs", "-")) for d in done)),
        ("best epoch", *(str(d.get("best_epoch", "-")) for d in done)),
        ("seconds", *_numbers(d.get("seconds") for d in done)),
        ("images/s", *_numbers(d.get("images_per_s") for d in done)),
        ("MB", *(f"{f.stat().st_size / 1e6:.1f}" if f.exists() else "-" for f in sizes)),
    ]


def _validation(told: Sequence[dict[str, Any] | None]) -> Iterator[str]:
    """Yield on how many images runs were judged, and whether on others than the first."""
    for own in told:
        before = told[0] or own or {}
        differing = {key for key in before if own and own.get(key, before[key]) != before[key]}
        kind = "other " if differing & {"images", "images listed"} else ""
        labels = ", with other labels" if "targets" in differing and not kind else ""
        yield f"{own['images']:,} {kind}images{labels}" if own else "-"


def metrics(runs: "list[Run]") -> "list[tuple[str, list[float | None]]]":
    """Return rows of name and value per run; None is not known, as in an unfinished run."""
    judged = [_json(run, RESULT_FILE) or _json(run, EVALUATION) for run in runs]
    found = [run.metrics if j else {} for run, j in zip(runs, judged, strict=True)]
    names = dict.fromkeys(name for r in runs for name in SHOWN_METRICS[r.config.model.task])
    return [(name, [values.get(name) for values in found]) for name in names]


def differences(first: "Run", last: "Run") -> list[str]:
    """Return lines on the labels whose average precision, or recall, differs most."""
    before, after = _json(first, EVALUATION), _json(last, EVALUATION)
    metric = next((m for m in LABEL_METRICS if m in before and m in after), None)
    if metric is None or first.folder == last.folder:
        return []
    old, new = before[metric], after[metric]
    both = [name for name in old if None not in (old[name], new.get(name))]
    change = {name: new[name] - old[name] for name in both}
    ranked = sorted(change, key=lambda name: change[name])
    worse = [name for name in ranked if change[name] < 0][:LABELS]
    better = [name for name in reversed(ranked) if change[name] > 0][:LABELS]
    rows = [
        (name, f"{old[name]:.4f}", f"{new[name]:.4f}", f"{change[name]:+.4f}")
        for name in [*better, *reversed(worse)]
    ]
    title = (metric.replace("_", " "), str(first.folder), str(last.folder), "change")
    only = len({*old, *new}) - len(both)
    note = [f"{only} labels are known to one of the two only."] if only else []
    return ["", *table([title, *rows]), *note]


def _json(run: "Run", name: str) -> dict[str, Any]:
    path = run.folder / name
    return files.read_json(path) if path.exists() else {}


def _numbers(values: Iterable[float | None]) -> list[str]:
    return ["-" if value is None else f"{value:.1f}" for value in values]
