"""`mlcls audit RUN`: labels of a data set that are probably wrong or missing."""

import shlex
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TextIO

from mlcls_jax import usage
from mlcls_jax.config import option
from mlcls_jax.curation.shared_options import Asked, results_in
from mlcls_jax.readable import table

if TYPE_CHECKING:  # imports JAX, which a help does without
    from mlcls_jax.curation.audit import Audit
    from mlcls_jax.curation.subject import Subject

FOLDER, LIST = "audit", "audit.csv"  # in that of the run
LABELS = 12  # shown


@dataclass(frozen=True, kw_only=True)
class Arguments(Asked):
    """Find labels that are probably wrong or missing.

    Each image is scored by a linear head that learnt from the others, on what the network of a
    run makes of images: minutes on a CPU. Nothing is changed before you confirm it, and --apply
    keeps the former lists.
    """

    split: Literal["train", "validation"] = option("train", "which images")
    apply: str | None = option(
        None, "write the confirmed rows of this CSV into the lists", path="local", metavar="CSV"
    )
    folds: int = option(
        5, "folds, each scored by a head that learns from the others", min=2, max=50
    )
    confidence: float | None = option(
        None,
        "list labels that are wrong with at least this probability; None: twice as many as seem to"
        " be wrong",
        min=0.0,
        max=1.0,
    )
    most: int = option(2000, "list at most this many", min=1)
    output: str | None = option(
        None, "folder for report.html and audit.csv; None: audit in the run, or in runs/DATA",
        path="local",
    )  # fmt: skip


def run(argv: list[str]) -> str:
    """Audit, or apply what was confirmed, and return a summary."""
    args = usage.arguments(Arguments, argv, "audit runs/photos-1")
    subject = args.subject(args.data)
    if args.apply is not None:
        return _apply(args, subject)
    folder = Path(args.output) if args.output else subject.folder / FOLDER
    with results_in(folder):
        return _audit(args, subject, folder)


def _audit(args: Arguments, subject: "Subject", folder: Path) -> str:
    from mlcls_jax.curation.audit import audit
    from mlcls_jax.curation.corrections import as_csv
    from mlcls_jax.data.backups import replace_files
    from mlcls_jax.reports.audit_page import write_page

    done = audit(
        subject,
        args.split,
        folds=args.folds,
        at_least=args.confidence,
        most=args.most,
        device=args.device,
    )
    text = as_csv(done.suspects, done.images, done.source.labels)

    def write(file: TextIO) -> None:
        file.write(text)

    kept = replace_files(folder, {LIST: write})
    write_page(folder / "report.html", done, LIST)
    lines = [*_summary(done), f"  report  {folder / 'report.html'}", f"  list    {folder / LIST}"]
    lines += _told(kept)
    if done.suspects and subject.data.source == "mlcls":
        again = f"audit {shlex.quote(args.model)}"
        again += f" --data {shlex.quote(args.data)}" if args.data else ""
        lines += [
            "Next: tick what is wrong in the report and save it; or put 1 into the column"
            " `confirmed` of the list:",
            f"  {usage.program()} {again} --apply confirmed.csv",
        ]
    return "\n".join(lines)


def _summary(done: "Audit") -> list[str]:
    names, suspects, judged = done.source.labels, done.suspects, done.judged
    counts = Counter((one.label, one.given) for one in suspects)
    lines = [
        f"{len(done.images):,} images, {len(names)} labels:"
        f" to look at are {sum(one.given for one in suspects):,} marks, which may be wrong, and"
        f" {sum(not one.given for one in suspects):,} that may be missing.",
        f"Estimated: {judged.wrong:.1%} of the marks are wrong; {judged.missing:.1%} of the labels"
        " that are there are not marked.",
    ]
    if worst := Counter(one.label for one in suspects).most_common(LABELS):
        rows = [(names[k], str(counts[k, 1]), str(counts[k, 0])) for k, _ in worst]
        lines += table([("label", "doubted", "missing"), *rows])
    if done.found.broken:
        lines.append(f"{len(done.found.broken)} unreadable images were left out.")
    return lines


def _told(backups: Mapping[str, str]) -> list[str]:
    return [f"The {name} that was there is now {backup}." for name, backup in backups.items()]


def _apply(args: Arguments, subject: "Subject") -> str:
    from mlcls_jax.curation.corrections import apply
    from mlcls_jax.errors import ConfigError

    assert args.apply is not None
    if subject.data.source != "mlcls":
        raise ConfigError(
            f"--apply: data.source={subject.data.source} has no lists to correct",
            "Correct the data set that it was made of.",
        )
    done = apply(subject.data, Path(args.apply))
    lines = [f"{done.changed:,} labels changed in {done.root}."]
    if done.before:
        lines.append(f"{done.before:,} had their new value already.")
    lines += _told(done.backups)
    if not done.changed + done.before:
        lines.append(f"{args.apply} confirms nothing: put 1 into its column `confirmed`.")
    elif done.changed:
        place = shlex.quote(args.data or str(done.root))
        lines += ["Next:", f"  {usage.program()} train {place}"]
    return "\n".join(lines)
