"""Open Images' CSV files of image-level labels that people verified.

`train-annotations-human-imagelabels.csv` has lines `ImageID,Source,LabelName,Confidence`, where the
confidence is 1 or, if people saw that the label is wrong, 0; all other labels of an image are not
known: -1. Names of the codes are in `class-descriptions.csv`.
"""

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path

from mlcls_jax.config import Convert
from mlcls_jax.data.convert.dataset_format import Format, Sign, csv_columns, file_that
from mlcls_jax.data.convert.listings import Entry, Listing
from mlcls_jax.data.convert.reading import SPLIT_NAMES, LeftOut, annotation_text, csv_rows, split_of
from mlcls_jax.errors import ConvertFailedError, raise_faults
from mlcls_jax.parsing import shorten

_COLUMNS = {"ImageID", "LabelName", "Confidence"}
_SPLIT = re.compile(r"(?:^|-)(train|validation|test)-annotations")


def read(root: Path, label_file: Path, options: Convert) -> Listing:
    """Read the files of each split; images are ID.jpg in images/, or in folders named as splits."""
    if options.train_annotations:
        files = {"train": [root / options.train_annotations]}
        files |= {"val": [root / options.val_annotations]} if options.val_annotations else {}
    else:
        files = _files(root)
    if "train" not in files:
        raise ConvertFailedError(f"{root}: holds no train-annotations-human-imagelabels.csv")
    names, told = _names(root)
    left_out: LeftOut = {}
    splits: dict[str, list[Entry]] = {}
    folders = {}
    for split, paths in files.items():
        images: dict[str, dict[str, int]] = {}
        places: dict[str, str] = {}
        for path in paths:
            for place, image, code, value in _lines(path, left_out):
                places.setdefault(image, place)
                images.setdefault(image, {})[names.get(code, code)] = value
        splits[split] = [Entry(f"{i}.jpg", values, places[i]) for i, values in images.items()]
        usual = [root / "images" / name for name in SPLIT_NAMES[split]]
        folders[split] = [*usual, *(root / name for name in SPLIT_NAMES[split])]
    return Listing(splits, rest=-1, folders=folders, left_out=left_out, told=(told,))


def _files(root: Path) -> dict[str, list[Path]]:
    files: dict[str, list[Path]] = {}
    for folder in (root, root / "annotations", root / "labels"):
        for path in sorted(folder.glob("*annotations-human-imagelabels*.csv")):
            if found := _SPLIT.search(path.name):
                files.setdefault(split_of(found[1]) or "train", []).append(path)
    return files


def _lines(path: Path, left_out: LeftOut) -> Iterator[tuple[str, str, str, int]]:
    """Yield place, image, code and value of each label.

    Raises:
      ConvertFailedError: lines are malformed; tells all of them.
    """
    faults = []
    for place, line in csv_rows(path, columns=_COLUMNS):
        image, code = line["ImageID"], line["LabelName"]
        try:
            confidence = float(line["Confidence"])
        except (TypeError, ValueError):
            confidence = -1.0
        if not image or not code or "/" in image or not 0 <= confidence <= 1:
            faults.append(f"{place}: {shorten([*line.values()])} is not `ID,source,code,0 or 1`")
        elif confidence not in (0, 1) or line.get("Source") == "machine":
            left_out.setdefault("labels that only a machine found", []).append(place)
        else:
            yield place, image, code, int(confidence)
    raise_faults(ConvertFailedError, faults)


def _names(root: Path) -> tuple[dict[str, str], str]:
    """Return the names of codes, made different where several have one, and where they are from."""
    files = [
        path
        for folder in (root, root / "annotations", root / "metadata")
        for path in sorted(folder.glob("*class-descriptions*.csv"))
    ]
    if not files:
        return {}, f"{root}: there is no class-descriptions.csv: labels are called by their codes"
    lines = csv.reader(io.StringIO(annotation_text(files[0], kind="file"), newline=""))
    pairs = [line[:2] for line in lines if len(line) >= 2 and line[0] != "LabelName"]
    known: dict[str, str] = {}
    taken: set[str] = set()
    for code, name in pairs:
        known[code] = name.strip() if name.strip() not in taken else f"{name.strip()} {code}"
        taken.add(name.strip())
    return known, f"{files[0]}: names of {len(known):,} labels"


def _usual(folder: Path) -> Iterator[Sign]:
    if found := _files(folder).get("train"):
        yield Sign(f"Open Images' {found[0].name}")


FORMAT = Format(
    read,
    "Open Images (train-annotations-human-imagelabels.csv, class-descriptions.csv)",
    _usual,
    of_file=file_that("Open Images'", lambda file: csv_columns(file) >= _COLUMNS),
)
