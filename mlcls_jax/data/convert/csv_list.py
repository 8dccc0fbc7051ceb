"""CSV lists: train.csv and val.csv (and test.csv) of lines `path,label|label`, header or not."""

import csv
import os
import posixpath
from pathlib import Path

from mlcls_jax.config import Convert
from mlcls_jax.data.convert.reading import (
    ImageFolder,
    LeftOut,
    NamedRow,
    Reading,
    image_folder,
    index_rows,
    listed_path,
)
from mlcls_jax.data.images import IMAGE_SUFFIXES
from mlcls_jax.errors import ConvertFailedError, raise_faults


def read(root: Path, label_file: Path, options: Convert) -> Reading:
    """Rows in the order of the files; an image on several lines has the labels of all of them.

    A path is relative to train_images or val_images; where these are not given, to `root` if it
    begins with one of its folders, else to images/.
    """
    lists = {"train": options.train_annotations, "val": options.val_annotations}
    if not any(lists.values()):  # the usual places
        lists = {s: f"{s}.csv" for s in ("train", "val", "test") if (root / f"{s}.csv").is_file()}
    if not lists.get("train"):
        raise ConvertFailedError(
            f"{root}: no CSV list of training images",
            "Name it train.csv, or set check_dataset.convert.train_annotations.",
        )
    images = {"train": options.train_images, "val": options.val_images or options.train_images}
    splits: dict[str, list[NamedRow]] = {}
    folders: dict[str, ImageFolder] = {}
    left_out: LeftOut = {}
    for split, name in lists.items():
        if not name:
            continue
        rows: list[NamedRow] = []
        for image, labels in _entries(root / name).items():
            if base := images.get(split):
                folder = image_folder(root, root / base)
            else:
                folder, image = _usual_folder(root, image)
            if path := listed_path(folder, image, left_out):
                folders[folder.listed] = folder
                rows.append((path, labels))
        splits[split] = rows
    labels, indexed = index_rows(splits, label_file)
    return Reading(labels, indexed, tuple(folders.values()), left_out)


def _usual_folder(root: Path, image: str) -> tuple[ImageFolder, str]:
    """The folder that an image lies in, and its path below."""
    top, _, below = image.partition("/")
    if below and top not in ("", "..") and os.path.isdir(root / top):
        return image_folder(root, root / top), below
    return image_folder(root, root / "images"), image


def _entries(path: Path) -> dict[str, set[str]]:
    """The labels of each image."""
    entries: dict[str, set[str]] = {}
    faults = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = csv.reader(file, strict=True)
            for number, fields in enumerate(line for line in lines if line):
                image, *rest = (field.strip() for field in fields)
                if len(rest) != 1 or not image:
                    faults.append(f"{path}:{lines.line_num}: {fields} is not `path,label|label`")
                elif number or image.lower().endswith(IMAGE_SUFFIXES):  # else a header
                    names = {name.strip() for name in rest[0].split("|")} - {""}
                    entries.setdefault(posixpath.normpath(image), set()).update(names)
    except FileNotFoundError as error:
        raise ConvertFailedError(
            f"{path}: there is no such file",
            "Check check_dataset.convert.train_annotations and val_annotations.",
        ) from error
    except UnicodeDecodeError as error:
        raise ConvertFailedError(f"{path}: is not UTF-8: {error}", "Save it as UTF-8.") from error
    except csv.Error as error:
        raise ConvertFailedError(f"{path}:{lines.line_num}: is not CSV: {error}") from error
    raise_faults(ConvertFailedError, faults, "Quote paths that hold commas.")
    return entries
