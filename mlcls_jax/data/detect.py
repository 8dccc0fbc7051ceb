"""Find out of which form a data set is, from the names of its files; in doubt, ask."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from mlcls_jax.config import Convert, Dialect, SourceType
from mlcls_jax.data.convert import FORMATS
from mlcls_jax.data.convert.coco import file_sign
from mlcls_jax.data.convert.dataset_format import Sign
from mlcls_jax.data.convert.parquet_tables import HUB, parquet_files
from mlcls_jax.data.shards import MANIFEST
from mlcls_jax.errors import DataError, DatasetFileNotFoundError

Form = Literal["mlcls", "packed", SourceType]
FORMS_HELP = (
    "Known are: an MLClsDataset (images/, label.txt, train.txt); shards of `mlcls pack`; "
    + "; ".join(known.help for known in FORMATS.values())
    + "."
)
_ARCHIVES = (".zip", ".7z", ".rar", ".gz", ".tgz", ".bz2", ".xz", ".zst")
_TEXTS = (".csv", ".tsv", ".json", ".xml")  # files that may stand for the folder that holds them


@dataclass(frozen=True)
class Found:
    """A data set: its form, where it lies, and how it is read."""

    form: Form
    root: Path
    told: str  # by which it was recognized
    train_file: str | None = None  # the annotations, where they are not at the usual place
    dialect: Dialect = "auto"  # of CSV lists

    @property
    def name(self) -> str:
        """What runs on it are called by default."""
        name = self.root.resolve().name
        if self.form == "parquet" and self.train_file:
            name = Path(self.train_file).name.removesuffix(".parquet")
        return name.partition("@")[0]

    @property
    def convert(self) -> Convert | None:
        """How it is made an MLClsDataset; None: it need not be."""
        if self.form in ("mlcls", "packed"):
            return None
        return Convert(
            enable=True,
            source_type=cast(SourceType, self.form),
            train_annotations=self.train_file,
            dialect=self.dialect,
        )


def detect(place: Path, form: Form | None = None) -> Found:
    """Return what the data set at this path is; `form` says it where several are possible.

    Raises:
      DatasetFileNotFoundError: there is nothing at this path.
      DataError: it is of no known form, or may be of several.
    """
    if not place.exists():
        hub = re.fullmatch(r"(hf:/+)?[\w.-]+/[\w.-]+", str(place))
        hint = f"For a data set of the Hugging Face hub: {HUB}{str(place).removeprefix('hf:/')}"
        raise DatasetFileNotFoundError(
            f"{place}: there is no such folder or file", hint if hub else FORMS_HELP
        )
    found = _of_file(place) if place.is_file() else [*_usual(place)] or [*_unusual(place)]
    if form:
        usual = Found(form, place, f"--format {form}")
        if place.is_file():
            usual = Found(form, place.parent, usual.told, place.name)
        return next((one for one in found if one.form == form), usual)
    if not found and place.suffix.lower() == ".json":  # whose reader says what is wrong with it
        found = [_found("coco", file_sign(place), place.parent)]
    if not found and (archive := _archive(place)):
        raise DataError(
            f"{archive}: an archive is not read",
            "Unpack it into a folder of its own, and name that.",
        )
    if not found and place.is_file():
        raise DataError(f"{place}: is no file of a known form", FORMS_HELP)
    if not found:
        raise DataError(f"{place}: holds no data set of a known form{_seen(place)}", FORMS_HELP)
    if len(found) > 1 and found[0].form != "mlcls":
        readings = " or ".join(f"{one.told} ({one.form})" for one in found)
        flags = " or ".join(f"--format {one.form}" for one in found)
        raise DataError(f"{place}: may be read in several ways: {readings}", f"Choose by {flags}.")
    return found[0]


def on_hub(place: str) -> Found:
    """Return what a data set of the hub is: Parquet files, as far as this project reads it.

    Raises:
      DataError: it is not there, or has none.
    """
    parquet_files(place)
    return Found("parquet", Path(place), "Parquet files of the hub", place)


def _found(form: str, sign: Sign, place: Path) -> Found:
    return Found(cast(Form, form), sign.root or place, sign.told, sign.file)


def _of_file(file: Path) -> list[Found]:
    """Return the first format that takes this file for one of its own."""
    for form, known in FORMATS.items():
        for sign in known.of_file(file):
            return [_found(form, sign, file.parent)]
    return []


def _usual(folder: Path) -> Iterator[Found]:
    if (folder / MANIFEST).is_file():
        yield Found("packed", folder, f"shards of `mlcls pack` ({MANIFEST})")
        return
    inside = (p for p in sorted(folder.iterdir()) if p.is_dir() and not p.name.startswith("."))
    for root in (folder, *inside):
        if all((root / name).exists() for name in ("images", "label.txt", "train.txt")):
            yield Found("mlcls", root, "an MLClsDataset (images/, label.txt, train.txt)")
    for form, known in FORMATS.items():
        yield from (_found(form, sign, folder) for sign in known.usual(folder))


def _unusual(folder: Path) -> Iterator[Found]:
    files: dict[str, list[tuple[str, Found]]] = {}  # form → the files that it takes for its own
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in _TEXTS and path.is_file():
            for found in _of_file(path):
                files.setdefault(found.form, []).append((path.name, found))
    for own in files.values():
        if len(own) > 1:
            raise DataError(
                f"{folder}: several files may list the images: {', '.join(n for n, _ in own)}",
                "Name the file instead of the folder.",
            )
        yield own[0][1]
    for form, known in FORMATS.items():
        yield from (_found(form, sign, folder) for sign in known.unusual(folder))


def _archive(place: Path) -> Path | None:
    """Return the file at a place, or the first in a folder, that is an archive of a whole."""
    inside = [place] if place.is_file() else sorted(place.iterdir())
    return next((path for path in inside if path.suffix.lower() in _ARCHIVES), None)


def _seen(folder: Path) -> str:
    names = sorted(name for name in os.listdir(folder) if not name.startswith("."))
    return f"; there are {', '.join(names[:5])}{', …' if len(names) > 5 else ''}" if names else ""
