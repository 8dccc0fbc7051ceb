"""Find out of which form a data set is, from the names of its files; in doubt, ask."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal, get_args

from mlcls_jax.config import Convert
from mlcls_jax.data.convert.coco import usual_annotations
from mlcls_jax.data.convert.reading import SPLIT_NAMES
from mlcls_jax.data.image_files import is_image_name
from mlcls_jax.data.shards import MANIFEST
from mlcls_jax.data.unpack_parquet import HUB, parquet_files
from mlcls_jax.errors import DataError, DatasetFileNotFoundError

Form = Literal["mlcls", "packed", "parquet", "coco", "csv", "numbered", "voc", "folder"]
FORMS = get_args(Form)
FORMS_HELP = (
    "Known are: an MLClsDataset (images/, label.txt, train.txt); a folder per class (CLASS/*.jpg,"
    " or train/CLASS/ and val/CLASS/); COCO (annotations/instances_train*.json, or the JSON file);"
    " CSV lists (train.csv, or the file); VOC (Annotations/, JPEGImages/); shards of `mlcls pack`;"
    " Parquet files with images and labels in them, also of the hub (hf://datasets/OWNER/NAME)."
)
_NO_CLASSES = {"images", "annotations", "labels", "masks", "jpegimages", "imagesets"}
_SHOWN = 64  # entries of a folder that are looked at, in search of an image


@dataclass(frozen=True)
class Found:
    """A data set: its form, where it lies, and how it is read."""

    form: Form
    root: Path
    told: str  # by which it was recognized
    train_file: str | None = None  # the annotations, where they are not at the usual place
    tables: tuple[str, ...] = ()  # the Parquet files

    @property
    def name(self) -> str:
        """What runs on it are called by default."""
        return self.root.resolve().name.removesuffix(".parquet").partition("@")[0]

    @property
    def convert(self) -> Convert | None:
        """How it is made an MLClsDataset; None: it need not be."""
        if self.form in ("mlcls", "packed", "parquet"):
            return None
        return Convert(enable=True, source_type=self.form, train_annotations=self.train_file)


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
    _refuse_unknown(place)
    found = [_of_file(place)] if place.is_file() else _of_folder(place)
    if form:
        chosen = next((one for one in found if one.form == form), None)
        return chosen or Found(form, place, f"--format {form}")
    if not found:
        raise DataError(f"{place}: holds no data set of a known form{_seen(place)}", FORMS_HELP)
    if len(found) > 1 and found[0].form != "mlcls":
        readings = " or ".join(f"{one.told} ({one.form})" for one in found)
        flags = " or ".join(f"--format {one.form}" for one in found)
        raise DataError(f"{place}: may be read in several ways: {readings}", f"Choose by {flags}.")
    return found[0]


def _refuse_unknown(place: Path) -> None:
    """Raise an error about forms that are known, but not read."""
    names = [place.name] if place.is_file() else os.listdir(place)
    if any(name.endswith(".arrow") for name in names):
        raise DataError(
            f"{place}: Arrow files are not read", "Save them as Parquet: dataset.to_parquet(…)."
        )
    if {"data.yaml", "labels"} <= {*names}:
        raise DataError(
            f"{place}: looks like YOLO's labels/*.txt, which are not read", "Export it as COCO."
        )


def _of_file(file: Path) -> Found:
    if file.suffix.lower() in (".csv", ".tsv"):
        return Found("csv", file.parent, f"the CSV list {file.name}", file.name)
    if file.suffix.lower() == ".json":
        root = file.parent.parent if file.parent.name == "annotations" else file.parent
        return Found("coco", root, f"the COCO file {file.name}", str(file.relative_to(root)))
    if file.suffix.lower() == ".parquet":
        return _of_tables(file, [file])
    raise DataError(f"{file}: is neither a folder nor a CSV or COCO file", FORMS_HELP)


def on_hub(place: str) -> Found:
    """Return what a data set of the hub is: Parquet files, as far as this project reads it.

    Raises:
      DataError: it is not there, or has none.
    """
    return Found(
        "parquet", Path(place), "Parquet files of the hub", tables=(*parquet_files(place),)
    )


def _of_tables(place: Path, files: list[Path]) -> Found:
    told = f"Parquet files ({files[0].name}{', …' if len(files) > 1 else ''})"
    return Found("parquet", place, told, tables=tuple(map(str, files)))


def _of_folder(folder: Path) -> list[Found]:
    """Return the forms that usual names speak for, or else those that lesser signs speak for."""
    return list(_usual(folder)) or list(_unusual(folder))


def _usual(folder: Path) -> Iterator[Found]:
    if (folder / MANIFEST).is_file():
        yield Found("packed", folder, f"shards of `mlcls pack` ({MANIFEST})")
    if tables := sorted({*folder.glob("*.parquet"), *folder.glob("data/*.parquet")}):
        yield _of_tables(folder, tables)
    for root in (folder, *_folders(folder)):
        if all((root / name).exists() for name in ("images", "label.txt", "train.txt")):
            yield Found("mlcls", root, "an MLClsDataset (images/, label.txt, train.txt)")
    if path := usual_annotations(folder, ()).get("train"):
        yield Found("coco", folder, f"COCO's {path.relative_to(folder)}")
    for name in ("train.csv", "train/_classes.csv"):
        if (folder / name).is_file():
            yield Found("csv", folder, f"the CSV list {name}")
    if (folder / "train_list.txt").is_file():
        yield Found("numbered", folder, "PaddleClas' train_list.txt")
    if (folder / "Annotations").is_dir():
        yield Found("voc", folder, "VOC's Annotations/")
    if (folder / "train").is_dir() and any(map(_has_image, _folders(folder / "train"))):
        yield Found("folder", folder, "a folder per class in train/")


def _unusual(folder: Path) -> Iterator[Found]:
    signs: tuple[tuple[str, Form, str], ...] = (
        ("*.json", "coco", "COCO file"),
        ("*.[ct]sv", "csv", "CSV list"),
    )
    for pattern, form, kind in signs:
        files = [path for path in sorted(folder.glob(pattern)) if form == "csv" or _is_coco(path)]
        if len(files) > 1:
            names = ", ".join(path.name for path in files)
            raise DataError(
                f"{folder}: several files may list the images: {names}",
                "Name the file instead of the folder.",
            )
        yield from (Found(form, folder, f"the {kind} {path.name}", path.name) for path in files)
    splits = {name for names in SPLIT_NAMES.values() for name in names}
    classes = [
        path
        for path in _folders(folder)
        if path.name.lower() not in _NO_CLASSES | splits and _has_image(path)
    ]
    if len(classes) > 1:
        yield Found(
            "folder", folder, f"a folder per class ({classes[0].name}/, {classes[1].name}/ …)"
        )


def _is_coco(path: Path) -> bool:
    """Return whether a JSON file begins as one of COCO may."""
    with path.open("rb") as file:
        start = file.read(65_536)
    return any(f'"{key}"'.encode() in start for key in ("images", "annotations", "categories"))


def _folders(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def _has_image(folder: Path) -> bool:
    with os.scandir(folder) as entries:
        return any(is_image_name(entry.name) for entry in islice(entries, _SHOWN))


def _seen(folder: Path) -> str:
    names = sorted(name for name in os.listdir(folder) if not name.startswith("."))
    return f"; there are {', '.join(names[:5])}{', …' if len(names) > 5 else ''}" if names else ""
