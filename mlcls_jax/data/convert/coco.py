"""COCO instances: annotations/instance_train.json with images/, instances_train2017.json, ….

Columns stand in the order of the category ids. (The originals keep the order of the file's
`categories` and write the ids themselves to label.txt, which their own check refuses.)
"""

import contextlib
import io
import json
from pathlib import Path
from typing import Any

from pycocotools.coco import COCO
from tqdm import tqdm

from mlcls_jax.config import Convert
from mlcls_jax.data.convert.reading import (
    ImageFolder,
    LeftOut,
    Reading,
    Row,
    image_folder,
    listed_path,
)
from mlcls_jax.errors import ConvertFailedError, raise_faults

FIELDS = {  # what must be there of each section's entries; pycocotools needs it, too
    "images": {"id": int, "file_name": str},
    "categories": {"id": int, "name": str},
    "annotations": {"id": int, "image_id": int, "category_id": int},
}


def read(root: Path, label_file: Path, options: Convert) -> Reading:
    """Rows by image id, columns by category id; an image without annotation has no labels."""
    given = {
        "train": (options.train_annotations, options.train_images),
        "val": (options.val_annotations, options.val_images),
    }
    splits: dict[str, list[Row]] = {}
    folders, categories, left_out = [], {}, {}
    for split, (annotations, images) in given.items():
        path = root / annotations if annotations else _usual_annotations(root, split)
        if path is None:
            continue
        if not path.is_file():  # before minutes are spent on the other file
            raise ConvertFailedError(
                f"{path}: there is no such file",
                f"Check check_dataset.convert.{split}_annotations.",
            )
        folder = image_folder(root, root / images if images else _usual_images(root, path))
        coco = _load(path)
        categories[path] = {key: value["name"].strip() for key, value in coco.cats.items()}
        splits[split] = _rows(coco, folder, options, left_out=left_out, name=path.name)
        folders.append(folder)
    if "train" not in splits:
        raise ConvertFailedError(
            f"{root}: holds no annotations/instance_train.json or instances_train*.json",
            "Set check_dataset.convert.train_annotations to the COCO file.",
        )
    names = _agreed(categories)
    labels = tuple(names[key] for key in sorted(names))
    return Reading(labels, splits, tuple(folders), left_out)


def _usual_annotations(root: Path, split: str) -> Path | None:
    folder = root / "annotations"
    if (exact := folder / f"instance_{split}.json").is_file():
        return exact
    found = sorted(folder.glob(f"instances_{split}*.json"))
    if len(found) > 1:
        raise ConvertFailedError(
            f"{folder}: several files for {split}: {', '.join(path.name for path in found)}",
            f"Set check_dataset.convert.{split}_annotations to one of them.",
        )
    return found[0] if found else None


def _usual_images(root: Path, annotations: Path) -> Path:
    """images/, or for instances_train2017.json a folder train2017."""
    kind, _, name = annotations.stem.partition("_")
    if kind == "instances" and name:
        for folder in (root / name, root / "images" / name):
            if folder.is_dir():
                return folder
    return root / "images"


def _load(path: Path) -> COCO:
    try:
        # Not by COCO(path), which reads in the machine's encoding and trips over a BOM.
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise ConvertFailedError(
            f"{path}:{error.lineno}: is not JSON: {error.msg} (column {error.colno})",
            "The file may be cut off: fetch it again.",
        ) from error
    except UnicodeDecodeError as error:
        raise ConvertFailedError(f"{path}: is not UTF-8: {error}", "Save it as UTF-8.") from error
    _check(content, path)
    coco = COCO()
    coco.dataset = content
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco


def _check(content: Any, path: Path) -> None:
    if not isinstance(content, dict):
        raise ConvertFailedError(f"{path}: is not a COCO file, which is a JSON object")
    hint = "A COCO instances file has images, annotations and categories."
    raise_faults(
        ConvertFailedError,
        [f"{path}: {key} is missing or no list" for key in FIELDS if not _is_list(content, key)],
        hint,
    )
    faults = [
        f"{path}: {section}[{i}]: {key} is missing or not of type {kind.__name__}"
        for section, fields in FIELDS.items()
        for i, entry in enumerate(content[section])
        for key, kind in fields.items()
        if not (isinstance(entry, dict) and isinstance(entry.get(key), kind))
    ]
    raise_faults(ConvertFailedError, faults, hint)
    for section in ("images", "categories"):
        seen: set[int] = set()
        for i, entry in enumerate(content[section]):
            if entry["id"] in seen:
                faults.append(f"{path}: {section}[{i}]: id {entry['id']} was given before")
            seen.add(entry["id"])
    for i, entry in enumerate(content["annotations"]):
        if entry["category_id"] not in seen:  # those of the categories
            faults.append(f"{path}: annotations[{i}]: no category {entry['category_id']}")
    raise_faults(ConvertFailedError, faults)


def _is_list(content: dict, key: str) -> bool:
    return isinstance(content.get(key), list)


def _rows(
    coco: COCO, folder: ImageFolder, options: Convert, *, left_out: LeftOut, name: str
) -> list[Row]:
    column = {key: i for i, key in enumerate(sorted(coco.cats))}
    for key in coco.imgToAnns.keys() - coco.imgs.keys():
        places = (f"{name}: annotation {a['id']}" for a in coco.imgToAnns[key])
        left_out.setdefault("boxes of images that are not listed", []).extend(places)
    rows = []
    for key in tqdm(sorted(coco.imgs), desc=name, unit=" images", disable=None):
        image = coco.imgs[key]
        if any((image.get(side) or 1) < 0 or image.get(side) == 0 for side in ("width", "height")):
            place = f"{name}: {image['file_name']}"
            left_out.setdefault("images of no width or height", []).append(place)
            continue
        if (path := listed_path(folder, image["file_name"], left_out)) is None:
            continue
        positives = set()
        for annotation in coco.imgToAnns.get(key, ()):
            if reason := _why_not(annotation, options):
                left_out.setdefault(reason, []).append(f"{name}: annotation {annotation['id']}")
            else:
                positives.add(column[annotation["category_id"]])
        rows.append((path, tuple(sorted(positives))))
    return rows


def _why_not(annotation: dict[str, Any], options: Convert) -> str | None:
    if annotation.get("iscrowd") and not options.crowd:
        return "boxes around crowds"
    if options.min_area and _area(annotation) < options.min_area:
        return "boxes smaller than min_area"
    return None


def _area(annotation: dict[str, Any]) -> float:
    """Of the box; of the outline only where there is no box."""
    try:
        _, _, width, height = annotation["bbox"]
        return width * height
    except (KeyError, TypeError, ValueError):
        return annotation.get("area", 0)


def _agreed(categories: dict[Path, dict[int, str]]) -> dict[int, str]:
    """The categories by id, which must be the same in all files."""
    (first, expected), *others = categories.items()
    faults = [
        f"category {key}: {expected.get(key)!r} in {first}, {found.get(key)!r} in {path}"
        for path, found in others
        for key in sorted(expected.keys() | found.keys())
        if expected.get(key) != found.get(key)
    ]
    raise_faults(
        ConvertFailedError, faults, "Training and validation must have the same categories."
    )
    return expected
