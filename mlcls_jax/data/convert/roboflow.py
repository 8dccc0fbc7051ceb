"""Roboflow's multi-label classification: train/, valid/ and test/ with images and _classes.csv.

Its own reader divides lines at every comma, and finds the labels of an image by the file's name
alone, in whatever folder that lies. Its split is the first of valid, train and test that occurs
anywhere in its path.
"""

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from mlcls_jax.config import Convert
from mlcls_jax.data.convert import csv_list
from mlcls_jax.data.convert.dataset_format import Format, files_named
from mlcls_jax.data.convert.labelled import Labelled, Picture
from mlcls_jax.data.convert.listings import Listing
from mlcls_jax.errors import DataError

LIST = "_classes.csv"
_SPLIT = re.compile("(v)(?=alid)|(t)(?=rain|est)", re.IGNORECASE)
_FOLDERS = {"train": "train", "val": "valid", "test": "test"}


def read(root: Path, label_file: Path, options: Convert) -> Listing:
    """Read the lists, which have a column a label, also where that is one of 0 and 1 alone."""
    return csv_list.read(root, label_file, replace(options, dialect="columns"))


def _write(data: Labelled, folder: Path, _: str | None) -> list[str]:
    """Write a folder per split, of images under names that no other image has.

    Raises:
      DataError: a label cannot stand in a line that is divided at every comma.
    """
    if bad := [name for name in data.labels if {*name} & {*',"\r\n'}]:
        raise DataError(
            f"Roboflow's lists cannot hold the label {bad[0]!r}: they are divided at every comma,"
            " and know no quotes",
            "Rename it in label.txt, or write another format.",
        )
    names = _names(picture for rows in data.splits.values() for picture in rows)
    for split, rows in data.splits.items():
        place = folder / _FOLDERS[split]
        place.mkdir()
        lines = [",".join(("filename", *data.labels))]
        for picture in rows:
            assert picture.target is not None
            name = next(names)
            _lay(picture.file, place / name, folder)
            lines.append(",".join((name, *(str(int(value == 1)) for value in picture.target))))
        (place / LIST).write_text("\n".join(lines) + "\n", encoding="utf-8", newline="")
    return ["roboflow.Roboflow().workspace().upload_dataset(OUTPUT, …) reads it."]


def _names(pictures: Iterable[Picture]) -> Iterator[str]:
    """Yield a name for each picture, none twice, without folders, commas, quotes and splits."""
    used = set[str]()
    for picture in pictures:
        name = re.sub('[,"]', "_", picture.name.removeprefix("images/").replace("/", "-"))
        stem, ending = os.path.splitext(_SPLIT.sub(r"\g<0>_", name.strip()))
        number = 1
        name = stem + ending
        while name.casefold() in used:
            number += 1
            name = f"{stem}-{number}{ending}"
        used.add(name.casefold())
        yield name


def _lay(file: Path, place: Path, folder: Path) -> None:
    """Put an image at its place: a link to where it is, or the file, if it was written here."""
    real = file.resolve()
    if real.is_relative_to(folder.resolve()):
        os.link(real, place)
    else:
        place.symlink_to(real)


FORMAT = Format(
    read,
    "Roboflow's multi-label classification (train/_classes.csv)",
    files_named("Roboflow's list", f"train/{LIST}"),
    write=_write,
    embeds=True,
)
