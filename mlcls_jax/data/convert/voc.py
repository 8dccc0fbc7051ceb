"""Pascal VOC: JPEGImages, Annotations/*.xml and the image sets in ImageSets/Main."""

import io
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from mlcls_jax.bars import progress
from mlcls_jax.config import Convert
from mlcls_jax.data.convert.dataset_format import Format, Sign
from mlcls_jax.data.convert.reading import (
    LeftOut,
    NamedRow,
    Reading,
    annotation_files,
    annotation_text,
    image_folder,
    images_below,
    index_rows,
    listed_path,
)
from mlcls_jax.errors import ConvertFailedError, raise_faults
from mlcls_jax.parsing import parse_xml


def read(root: Path, label_file: Path, options: Convert) -> Reading:
    """Return every image with the names of its objects, in the order of the image sets.

    Without image sets all annotated images are training images.
    """
    annotations = root / "Annotations"
    if not annotations.is_dir():
        raise ConvertFailedError(
            f"{root}: holds no folder named Annotations",
            "Set data.dir to the folder that holds Annotations, VOCdevkit/VOC2012 for instance.",
        )
    images = {
        "train": root / (options.train_images or "JPEGImages"),
        "val": root / (options.val_images or options.train_images or "JPEGImages"),
    }
    splits: dict[str, list[NamedRow]] = {}
    folders, faults = [], []
    left_out: LeftOut = {}
    known: dict[Path, dict[str, str]] = {}
    for split, ids in _image_sets(root, annotations, options).items():
        folder = image_folder(root, images.get(split, images["train"]))
        if folder.path not in known:
            known[folder.path] = _by_stem(folder.path, left_out)
        files = known[folder.path]
        rows: list[NamedRow] = []
        for key in progress(ids, desc=split, unit=" images"):
            xml = annotations / f"{key}.xml"
            if not xml.is_file():
                left_out.setdefault("images without an annotation file", []).append(str(xml))
            elif path := listed_path(folder, files.get(key, f"{key}.jpg"), left_out):
                try:
                    rows.append((path, dict.fromkeys(_labels(xml, options, left_out), 1)))
                except ConvertFailedError as error:
                    faults.append(error.message)
        if rows or split != "test":  # whose annotations are often kept secret
            splits[split] = rows
            folders.append(folder)
    raise_faults(ConvertFailedError, faults)
    labels, indexed = index_rows(splits, label_file)
    return Reading(labels, indexed, tuple(folders), left_out)


def _by_stem(folder: Path, left_out: LeftOut) -> dict[str, str]:
    """Return the images below a folder by their names without suffix."""
    files: dict[str, str] = {}
    for name in images_below(folder, left_out):
        if files.setdefault(name.rpartition(".")[0], name) != name:
            left_out.setdefault("images named like another", []).append(name)
    return files


def _image_sets(root: Path, annotations: Path, options: Convert) -> dict[str, list[str]]:
    """Image names without suffix of each split."""
    sets = root / "ImageSets" / "Main"
    files = annotation_files(root, options, lambda name: [sets / f"{name}.txt"])
    if not files:
        keys = (
            path.relative_to(annotations).with_suffix("") for path in annotations.rglob("*.xml")
        )
        return {"train": sorted(key.as_posix() for key in keys)}
    if "train" not in files:
        raise ConvertFailedError(
            f"{sets}: holds no train.txt",
            "Set check_dataset.convert.train_annotations to the image set to train on.",
        )
    return {split: _lines(path) for split, path in files.items()}


def _lines(path: Path) -> list[str]:
    lines = io.StringIO(annotation_text(path, kind="image set"), newline=None)  # \r alone ends one
    return [line.strip() for line in lines if line.strip()]


def _labels(path: Path, options: Convert, left_out: LeftOut) -> set[str]:
    names = set()
    for number, thing in enumerate(parse_xml(path, ConvertFailedError).iter("object"), start=1):
        name = (thing.findtext("name") or "").strip()
        if not name:
            raise ConvertFailedError(f"{path}: object {number} has no name")
        if reason := _why_not(thing, path, options):
            left_out.setdefault(reason, []).append(f"{path}: object {number}")
        else:
            names.add(name)
    return names


def _why_not(thing: ElementTree.Element, path: Path, options: Convert) -> str | None:
    if (thing.findtext("difficult") or "0").strip() == "1" and not options.crowd:
        return "objects marked difficult"
    if options.min_area and _area(thing, path) < options.min_area:
        return "boxes smaller than min_area"
    return None


def _area(thing: ElementTree.Element, path: Path) -> float:
    """Of the box, whose last row and column belong to it."""
    try:
        left, top, right, bottom = (
            float(thing.findtext(f"bndbox/{edge}") or "")
            for edge in ("xmin", "ymin", "xmax", "ymax")
        )
    except ValueError as error:
        raise ConvertFailedError(f"{path}: an object has no bndbox of four numbers") from error
    return (right - left + 1) * (bottom - top + 1)


def _usual(folder: Path) -> Iterator[Sign]:
    if (folder / "Annotations").is_dir():
        yield Sign("VOC's Annotations/")


FORMAT = Format(read, "VOC (Annotations/, JPEGImages/)", _usual)
