"""YOLO's boxes as labels of images: data.yaml, images/…, and labels/….txt of lines `class x y w h`.

An image without a file of labels has none.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlcls_jax.config import Convert
from mlcls_jax.data.convert.dataset_format import Format, Sign
from mlcls_jax.data.convert.listings import Entry, Listing
from mlcls_jax.data.convert.reading import SPLIT_NAMES, LeftOut, annotation_text, images_below
from mlcls_jax.errors import ConvertFailedError, raise_faults
from mlcls_jax.parsing import parse_yaml_texts, shorten

_NONE = ("", "~", "null")  # a place that YAML leaves open
_FILES = ("data.yaml", "dataset.yaml", "data.yml")


def read(root: Path, label_file: Path, options: Convert) -> Listing:
    """Read the images of the folders, or of the lists, that data.yaml names for each split.

    A data.yaml that names none, as some libraries write it, has its images in images/SPLIT.
    """
    named = [options.train_annotations] if options.train_annotations else _FILES
    path = next((root / name for name in named if (root / name).is_file()), None)
    if path is None:
        raise ConvertFailedError(f"{root}: holds no data.yaml")
    content = parse_yaml_texts(path.read_bytes(), path, ConvertFailedError)
    labels = _labels(content, path)
    content = {key: place for key, place in content.items() if place not in _NONE}
    base = root / str(content.get("path") or ".")
    base = base if base.is_dir() else root  # where it was on another machine
    left_out: LeftOut = {}
    if not any(content.get(key) for keys in SPLIT_NAMES.values() for key in keys):
        usual = {key: f"images/{key}" for keys in SPLIT_NAMES.values() for key in keys}
        content |= {key: place for key, place in usual.items() if (base / place).is_dir()}
    splits: dict[str, list[Entry]] = {}
    faults: list[str] = []
    for split, keys in SPLIT_NAMES.items():
        given = next((content[key] for key in keys if content.get(key)), None)
        for place in given if isinstance(given, list) else [given] if given else []:
            for image in _images(base, str(place), f"{path}: {split}", left_out):
                values, wrong = _values(_labels_file(image), labels)
                faults += wrong
                entry = Entry(os.path.abspath(image), values, str(image))
                splits.setdefault(split, []).append(entry)
    raise_faults(ConvertFailedError, faults)
    return Listing(splits, labels, str(path), left_out=left_out)


def _labels(content: Any, path: Path) -> list[str]:
    """Return the names of the classes.

    Raises:
      ConvertFailedError: there are none.
    """
    names = content.get("names") if isinstance(content, dict) else None
    if isinstance(names, dict) and {*names} == {*map(str, range(len(names)))}:
        names = [names[str(number)] for number in range(len(names))]
    if not isinstance(names, list) or not names:
        hint = "names is a list, or has the numbers from 0 as keys."
        raise ConvertFailedError(f"{path}: names no classes", hint)
    return [str(name).strip() for name in names]


def _images(base: Path, place: str, told: str, left_out: LeftOut) -> list[Path]:
    """Return the images of a folder, or of a list of paths.

    Raises:
      ConvertFailedError: it is not there.
    """
    tries = [base / place]
    if place.startswith("../"):  # Roboflow's, which count from a folder that is not there
        tries.append(base / place.removeprefix("../"))
    found = next((path for path in tries if path.exists()), None)
    if found is None:
        raise ConvertFailedError(f"{told}: {tries[-1]} is not there", "Mend the path in data.yaml.")
    if found.is_dir():
        return [found / name for name in images_below(found, left_out)]
    lines = annotation_text(found, kind="list").splitlines()
    return [found.parent / line.strip() for line in lines if line.strip()]


def _labels_file(image: Path) -> Path:
    """Return where the labels are: in labels/ in the place of the last images/, as YOLO has it."""
    parts = image.with_suffix(".txt").parts
    at = max((n for n, part in enumerate(parts) if part == "images"), default=None)
    return Path(*parts[:at], "labels", *parts[at + 1 :]) if at is not None else Path(*parts)


def _values(file: Path, labels: list[str]) -> tuple[dict[str, int], list[str]]:
    """Return the labels of a file, and its faults."""
    values: dict[str, int] = {}
    faults: list[str] = []
    if not file.is_file():
        return values, faults
    for number, line in enumerate(annotation_text(file, kind="file").splitlines(), start=1):
        cells = line.split()
        if not cells:
            continue
        is_right = cells[0].isdecimal() and len(cells) >= 5 and len(cells[0]) < 9
        if not is_right or not all(map(_is_number, cells[1:])):
            faults.append(f"{file}:{number}: {shorten(line)!r} is not `class x y w h`")
        elif int(cells[0]) >= len(labels):
            faults.append(f"{file}:{number}: class {cells[0]}, but there are {len(labels)}")
        else:
            values[labels[int(cells[0])]] = 1
    return values, faults


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _usual(folder: Path) -> Iterator[Sign]:
    places = ("labels", "train/labels", "valid/labels")
    if any((folder / place).is_dir() for place in places):
        for name in _FILES:
            if (folder / name).is_file():
                yield Sign(f"YOLO's {name} and labels/")
                return


FORMAT = Format(read, "YOLO (data.yaml, images/ and labels/, of which boxes count)", _usual)
