"""mode=check_dataset: all that is wrong with an MLClsDataset, told at once and with pictures."""

import logging
from pathlib import Path
from typing import Any

from mlcls_jax import config as schema
from mlcls_jax.data.checks import check
from mlcls_jax.data.convert import Conversion, convert, remarks
from mlcls_jax.data.findings import CheckReport, Group
from mlcls_jax.data.split import SplitResult, split
from mlcls_jax.errors import CheckFailedError
from mlcls_jax.reports.check_page import write_page
from mlcls_jax.reports.cooccurrence import draw_cooccurrence
from mlcls_jax.reports.histogram import draw_histogram
from mlcls_jax.reports.samples import draw_samples

log = logging.getLogger(__name__)

SHOWN = 3  # findings of a kind in the terminal; the page and findings.txt have more


def check_dataset(config: schema.Config, workdir: Path) -> dict[str, Any]:
    """Convert and divide the data set if asked to, check it, and write the report.

    What was converted and has no validation images is divided, too.

    Returns:
      The content of `check_dataset_result.json`, in the originals' keys.

    Raises:
      CheckFailedError: the check found errors; carries that content all the same.
      ConvertFailedError, SplitFailedError: the data set is as it was.
      DatasetFileNotFoundError: there is no data set at `data.dir`.
    """
    options = config.check_dataset
    divide = options.split.enable
    if options.convert.enable:
        conversion = convert(config.data, options.convert)
        _tell_conversion(conversion)
        divide = divide or "val" not in conversion.images  # or the check would fail for want of it
    if divide:
        _tell_split(split(config.data, options.split, seed=config.seed), options.split)
    folder = workdir / "check_dataset"
    folder.mkdir(exist_ok=True)
    report = check(
        config.data.dir,
        config.data,
        pixels=options.pixels,
        threads=options.threads,
        findings_file=folder / "findings.txt",
    )
    pictures = {"histogram": folder / "histogram.png", "cooccurrence": folder / "cooccurrence.png"}
    draw_histogram(report, pictures["histogram"])
    draw_cooccurrence(report, pictures["cooccurrence"])
    samples = draw_samples(report, folder / "demo_img")
    write_page(report, folder / "report.html", **pictures)
    for group in report.groups:
        _tell(group)

    result = summarize(report, samples, workdir)
    if not report.passed:
        errors = [group for group in report.groups if group.kind.severity == "error"]
        kinds = "; ".join(f"{group.kind.title}: {group.count:,}" for group in errors)
        hint = f"All of them, and what would be right: {folder / 'report.html'}"
        raise CheckFailedError(f"{report.root}: {kinds}", hint, facts=result)
    return result


def summarize(report: CheckReport, samples: dict[str, list[Path]], workdir: Path) -> dict[str, Any]:
    """The result in the originals' keys, and the numbers of findings by kind."""
    splits: dict[str, Any] = {}
    for name, part in report.splits.items():
        splits[f"{name}_samples"] = part.images
        paths = samples.get(name, [])
        splits[f"{name}_sample_paths"] = [str(path.relative_to(workdir)) for path in paths]
    return {
        "check_pass": report.passed,
        "attributes": {
            "label_file": report.label_file,
            "num_classes": len(report.labels),
            **splits,
        },
        "analysis": {
            "histogram": "check_dataset/histogram.png",
            "cooccurrence": "check_dataset/cooccurrence.png",
        },
        "findings": {
            severity: {g.name: g.count for g in report.groups if g.kind.severity == severity}
            for severity in ("error", "warning", "note")
        },
        "report": "check_dataset/report.html",
        "dataset_path": str(report.root),
        "show_type": "image",
        "dataset_type": "MLClsDataset",
    }


def _tell_conversion(conversion: Conversion) -> None:
    images = ", ".join(f"{count:,} {name}" for name, count in conversion.images.items())
    log.info("Converted %s: %s images, %d labels.", conversion.root, images, len(conversion.labels))
    for line in conversion.told:
        log.info("%s", line)
    for link, target in conversion.links.items():
        log.info("%s is a link to %s.", link, target)
    for line in remarks(conversion):
        log.warning("%s", line)
    _tell_backups(conversion.backups)


def _tell_split(result: SplitResult, options: schema.Split) -> None:
    pooled, images = (
        ", ".join(f"{name} {count:,}" for name, count in counts.items())
        for counts in (result.pooled, result.images)
    )
    log.info("Divided anew: %s; before: %s.", images, pooled)
    if options.group:
        log.info("They are %s groups by %s.", f"{result.groups:,}", options.group)
    if result.unmatched:
        log.warning("%d images do not match %s: each is a group.", result.unmatched, options.group)
    _tell_backups(result.backups)


def _tell_backups(backups: dict[str, str]) -> None:
    for name, backup in backups.items():
        log.info("The %s that was there is now %s.", name, backup)


def _tell(group: Group) -> None:
    """One kind of finding in the terminal: how many, the first ones, the way out."""
    lines = [f"{group.kind.severity}: {group.kind.title}: {group.count:,}"]
    lines += [f"    {finding.place}: {finding.message}" for finding in group.findings[:SHOWN]]
    lines += [f"    … and {group.count - SHOWN:,} more"] * (group.count > SHOWN)
    lines += [f"    {group.kind.remedy}"] * (group.kind.severity != "note")
    log.info("%s", "\n".join(lines))
