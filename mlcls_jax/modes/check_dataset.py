"""mode=check_dataset: report all that is wrong with an MLClsDataset at once, with pictures."""

import dataclasses
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlcls_jax import config as schema
from mlcls_jax.data.checks import check
from mlcls_jax.data.convert import Conversion, convert, remarks
from mlcls_jax.data.detect import detect
from mlcls_jax.data.findings import CheckReport, Group
from mlcls_jax.data.protocols import PROTOCOLS, compare
from mlcls_jax.data.split import SplitResult, split
from mlcls_jax.errors import CheckFailedError
from mlcls_jax.reports.check_page import write_page
from mlcls_jax.reports.cooccurrence import draw_cooccurrence
from mlcls_jax.reports.histogram import draw_histogram
from mlcls_jax.reports.samples import draw_samples

log = logging.getLogger(__name__)

FOLDER = "check_dataset"  # in the workdir
SHOWN = 3  # findings of a kind in the terminal; the page and findings.txt have more


@dataclass(frozen=True)
class CheckResult:
    """The findings of the check, and the samples drawn from each split."""

    report: CheckReport
    samples: dict[str, list[str]]  # paths in the workdir
    # What `check_dataset.protocol` asked for: name, differences, SHA-256 of the lists.
    protocol: dict[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the content of `check_dataset_result.json`, in the originals' keys."""
        splits: dict[str, Any] = {}
        for name, part in self.report.splits.items():
            splits[f"{name}_samples"] = part.images
            splits[f"{name}_sample_paths"] = self.samples.get(name, [])
        protocol = {"protocol": self.protocol} if self.protocol else {}
        return {
            "check_pass": self.report.passed,
            **protocol,
            "attributes": {
                "label_file": self.report.label_file,
                "num_classes": len(self.report.labels),
                **splits,
            },
            "analysis": {
                "histogram": f"{FOLDER}/histogram.png",
                "cooccurrence": f"{FOLDER}/cooccurrence.png",
            },
            "findings": {
                severity: {group.name: group.count for group in self._groups(severity)}
                for severity in ("error", "warning", "note")
            },
            "report": f"{FOLDER}/report.html",
            "dataset_path": str(self.report.root),
            "show_type": "image",
            "dataset_type": "MLClsDataset",
        }

    def summary(self, config: schema.Config, workdir: Path, command: str) -> list[str]:
        """Return the numbers of images, labels and warnings, and where the report is."""
        images = ", ".join(f"{part.images:,} {name}" for name, part in self.report.splits.items())
        warnings = sum(group.count for group in self._groups("warning"))
        lines = [
            "Check dataset passed !",
            f"{images} images, {len(self.report.labels)} labels; "
            f"{warnings:,} warning{'' if warnings == 1 else 's'}.",
            f"  report  {workdir / FOLDER / 'report.html'}",
        ]
        if self.protocol:
            told, name = self.protocol["differences"], self.protocol["name"]
            lines.append(f"{name} ({PROTOCOLS[name].rules}):")
            lines += [f"  {line}" for line in told or ["nothing differs from what is published"]]
            lines += [f"  {k} list  sha256 {v}" for k, v in self.protocol["sha256"].items()]
        if not config.check_dataset.pixels:
            lines.append(
                "Only headers were read: --config.check_dataset.pixels=True (mlcls check: --pixels)"
                " decodes every image and looks for near duplicates."
            )
        return lines

    def _groups(self, severity: str) -> list[Group]:
        return [group for group in self.report.groups if group.kind.severity == severity]


def check_dataset(config: schema.Config, workdir: Path) -> CheckResult:
    """Convert and split the data set if asked to, check it, and write the report.

    What was converted and has no validation images is divided, too.

    Raises:
      CheckFailedError: the check found errors; carries the content of the result file.
      ConvertFailedError, SplitFailedError: the data set is as it was.
      DatasetFileNotFoundError: there is no data set at `data.dir`.
    """
    options = config.check_dataset
    divide = options.split.enable
    if options.convert.enable and (how := _how(config.data.folder, options.convert)):
        conversion = convert(config.data, how)
        _tell_conversion(conversion)
        divide = divide or "val" not in conversion.images  # or the check would fail for want of it
    new = dataclasses.replace(options.split, folds=0)
    for wanted in [new] * divide + [options.split] * bool(options.split.folds):
        _tell_split(split(config.data, wanted, seed=config.seed), wanted)
    folder = workdir / FOLDER
    folder.mkdir(exist_ok=True)
    report = check(
        config.data.folder,
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

    paths = {
        name: [str(path.relative_to(workdir)) for path in drawn] for name, drawn in samples.items()
    }
    protocol = None
    if options.protocol:
        told, hashes = compare(report, config.data, options.protocol)
        protocol = {"name": options.protocol, "differences": told, "sha256": hashes}
    result = CheckResult(report, paths, protocol)
    if not report.passed:
        errors = [group for group in report.groups if group.kind.severity == "error"]
        kinds = "; ".join(f"{group.kind.title}: {group.count:,}" for group in errors)
        hint = f"All of them, and what would be right: {folder / 'report.html'}"
        raise CheckFailedError(f"{report.root}: {kinds}", hint, facts=result.to_json())
    return result


def _how(folder: str, options: schema.Convert) -> schema.Convert | None:
    """Return the options with the format that is found, if asked; None: there is no other.

    Raises:
      DataError: no known format is found, or several.
    """
    if options.source_type != "auto":
        return options
    found = detect(Path(folder))
    log.info("%s: %s.", folder, found.told)
    if found.convert is None:
        log.info("Nothing is converted; a format as source_type would read that again.")
        return None
    own = options.train_annotations or found.train_file
    return dataclasses.replace(found.convert, **{
        **dataclasses.asdict(options), "source_type": found.form, "train_annotations": own,
    })  # fmt: skip


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
    if options.folds:
        log.info("Folds of %s: %s; fold1_train.txt has what fold1_val.txt lacks.", pooled, images)
    else:
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
    """Log one kind of finding: how many, the first ones, the way out."""
    lines = [f"{group.kind.severity}: {group.kind.title}: {group.count:,}"]
    lines += [f"    {finding.place}: {finding.message}" for finding in group.findings[:SHOWN]]
    lines += [f"    … and {group.count - SHOWN:,} more"] * (group.count > SHOWN)
    lines += [f"    {group.kind.remedy}"] * (group.kind.severity != "note")
    log.info("%s", "\n".join(lines))
