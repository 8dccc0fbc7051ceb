"""COCO instances: annotations/instance_train.json with images/, instances_train2017.json, ….

Columns stand in the order of the category ids. (The originals keep the order of the file's
`categories` and write the ids themselves to label.txt, which their own check refuses.)
"""

import contextlib
import io
import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from mlcls_jax import files, lazy
from mlcls_jax.bars import progress
from mlcls_jax.config import Convert
from mlcls_jax.data.convert.dataset_format import Format, Sign, head, json_keys
from mlcls_jax.data.convert.labelled import Labelled, size_of
from mlcls_jax.data.convert.places import Places
from mlcls_jax.data.convert.reading import (
    SPLIT_NAMES,
    LeftOut,
    Reading,
    Row,
    annotation_json,
    usual_places,
)
from mlcls_jax.errors import ConvertFailedError, raise_faults
from mlcls_jax.parsing import shorten

if TYPE_CHECKING:
    from pycocotools.coco import COCO

FIELDS = {  # what must be there of each section's entries; pycocotools needs it, too
    "images": {"id": int, "file_name": str},
    "categories": {"id": int, "name": str},
    "annotations": {"id": int, "image_id": int, "category_id": int},
}

OPTIONAL = {  # of what type the rest is that is used, if it is there and not null
    "images": {"width": (int | float, "a number"), "height": (int | float, "a number")},
    "annotations": {"iscrowd": (int, "0 or 1")},
}


def read(root: Path, label_file: Path, options: Convert) -> Reading:
    """Read rows by image id, columns by category id; without annotations there are no labels."""
    given = {
        "train": (options.train_annotations, options.train_images),
        "val": (options.val_annotations, options.val_images),
    }
    usual = usual_annotations(root, [split for split, (name, _) in given.items() if name])
    splits: dict[str, list[Row]] = {}
    folders, categories, left_out = {}, {}, {}
    for split in SPLIT_NAMES:
        annotations, images = given.get(split, (None, None))
        path = root / annotations if annotations else usual.get(split)
        if path is None:
            continue
        if not path.is_file():  # before minutes are spent on the other file
            raise ConvertFailedError(
                f"{path}: there is no such file",
                f"Check check_dataset.convert.{split}_annotations.",
            )
        places = Places(root, given=images, usual=_usual_images(root, path))
        coco = _load(path)
        categories[path] = {key: value["name"].strip() for key, value in coco.cats.items()}
        splits[split] = _rows(coco, places, options, left_out=left_out, name=path.name)
        folders |= places.folders
    if "train" not in splits:
        raise ConvertFailedError(
            f"{root}: holds no annotations/instance_train.json or instances_train*.json, no"
            " train/_annotations.coco.json and no result.json",
            "Set check_dataset.convert.train_annotations to the COCO file.",
        )
    names = _agreed(categories)
    labels = tuple(names[key] for key in sorted(names))
    return Reading(labels, splits, tuple(folders.values()), left_out)


def _usual(folder: Path) -> Iterator[Sign]:
    path = usual_annotations(folder, ()).get("train")
    if path and (path.parent != folder or _is_coco(path)):  # others' JSON may be called so, too
        yield Sign(f"COCO's {path.relative_to(folder)}")


def _of_file(file: Path) -> Iterator[Sign]:
    if file.suffix.lower() == ".json" and _is_coco(file):
        yield file_sign(file)


def _is_coco(file: Path) -> bool:
    keys = json_keys(head(file))
    return bool(keys & {*FIELDS}) and "[" not in keys


def file_sign(file: Path) -> Sign:
    """Return what a COCO file stands for: the folder above annotations/, or its own."""
    root = file.parent.parent if file.parent.name == "annotations" else file.parent
    return Sign(f"the COCO file {file.name}", str(file.relative_to(root)), root)


def usual_annotations(root: Path, given: Collection[str]) -> dict[str, Path]:
    """Find the files of the splits not `given`, in the layouts of PaddleX, COCO and Roboflow.

    Label Studio's result.json and CVAT's instances_default.json are for training. Where files are
    given, none is added for testing.
    """
    folder = root / "annotations"

    def places(name: str) -> list[Path]:
        if (given and name == "test") or name in given:
            return []
        exact, roboflow = folder / f"instance_{name}.json", root / name / "_annotations.coco.json"
        several = sorted(folder.glob(f"instances_{name}[!a-z]*.json"))
        # CVAT calls its subsets Train, Validation and Test.
        plain = [p for p in folder.glob("*.json") if p.name.lower() == f"instances_{name}.json"]
        return [exact] if exact.is_file() else [*plain, *several, roboflow, root / f"{name}.json"]

    found = usual_places(places)
    for alone in (root / "result.json", folder / "instances_default.json"):
        if not found and not given and alone.is_file():
            found = {"train": alone}
    return found


def _usual_images(root: Path, annotations: Path) -> list[Path]:
    """images/ or data/, or for instances_train2017.json train2017/; or where the file lies."""
    kind, _, name = annotations.stem.partition("_")
    named = [root / name, root / "images" / name] if kind == "instances" and name else []
    named = [folder for folder in named if folder.is_dir()][:1]
    if annotations.name.startswith("_annotations."):  # Roboflow's, among the images
        named = [annotations.parent]
    return [*named, root / "images", root / "data", root, annotations.parent]


def _load(path: Path) -> "COCO":
    with lazy.optional(
        "reading COCO files needs pycocotools", extra="coco", kind=ConvertFailedError
    ):
        from pycocotools.coco import COCO
    # Not by COCO(path), which reads in the machine's encoding and trips over a BOM.
    content = annotation_json(path)
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
        if not (isinstance(entry, dict) and _is(kind, entry.get(key)))
    ]
    faults += [
        f"{path}: {section}[{i}]: {key} is {shorten(repr(entry[key]))}, not {meant}"
        for section, fields in OPTIONAL.items()
        for i, entry in enumerate(content[section])
        if isinstance(entry, dict)
        for key, (kind, meant) in fields.items()
        if entry.get(key) is not None and not _is(kind, entry[key])
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


def _is(kind: Any, value: Any) -> bool:
    """Return whether a value is of a type; True and False are no integers."""
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def _is_list(content: dict, key: str) -> bool:
    return isinstance(content.get(key), list)


def _rows(
    coco: "COCO", places: Places, options: Convert, *, left_out: LeftOut, name: str
) -> list[Row]:
    column = {key: i for i, key in enumerate(sorted(coco.cats))}
    for key in coco.imgToAnns.keys() - coco.imgs.keys():
        unlisted = (f"{name}: annotation {a['id']}" for a in coco.imgToAnns[key])
        left_out.setdefault("boxes of images that are not listed", []).extend(unlisted)
    rows: dict[str, dict[int, int]] = {}
    for key in progress(sorted(coco.imgs), desc=name, unit=" images"):
        image = coco.imgs[key]
        if any((image.get(side) or 1) < 0 or image.get(side) == 0 for side in ("width", "height")):
            place = f"{name}: {image['file_name']}"
            left_out.setdefault("images of no width or height", []).append(place)
            continue
        if (path := places.listed(image["file_name"], left_out)) is None:
            continue
        positives = set()
        for annotation in cast(list[dict[str, Any]], coco.imgToAnns.get(key, ())):
            place = f"{name}: annotation {annotation['id']}"
            if reason := _why_not(annotation, place, options):
                left_out.setdefault(reason, []).append(place)
            else:
                positives.add(column[annotation["category_id"]])
        # A file that is listed under several ids is one image.
        rows[path] = dict.fromkeys(sorted(positives | {*rows.get(path, ())}), 1)
    return [*rows.items()]


def _why_not(annotation: dict[str, Any], place: str, options: Convert) -> str | None:
    if annotation.get("iscrowd") and not options.crowd:
        return "boxes around crowds"
    if options.min_area and _area(annotation, place) < options.min_area:
        return "boxes smaller than min_area"
    return None


def _area(annotation: dict[str, Any], place: str) -> float:
    """Of the box; of the outline only where there is no box."""
    box, area = annotation.get("bbox"), annotation.get("area")
    if isinstance(box, list) and len(box) == 4 and all(_is(int | float, side) for side in box):
        return box[2] * box[3]
    if area is None and not box:
        return 0
    if not isinstance(area, int | float) or isinstance(area, bool):
        raise ConvertFailedError(
            f"{place}: neither bbox {shorten(repr(box))} nor area {shorten(repr(area))} is made of"
            " numbers"
        )
    return area


def _agreed(categories: dict[Path, dict[int, str]]) -> dict[int, str]:
    """Return the categories by id, which must be the same in all files."""
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


def _write(data: Labelled, folder: Path, _: str | None) -> list[str]:
    """Write a box around the whole image for each of its labels: COCO knows no other label."""
    (folder / "annotations").mkdir()
    categories = [
        {"id": i, "name": name, "supercategory": ""} for i, name in enumerate(data.labels, start=1)
    ]
    for split, rows in data.splits.items():
        images, boxes = [], []
        for number, picture in enumerate(progress(rows, desc=split, unit=" images"), start=1):
            width, height = size_of(picture.file)
            name = picture.name.removeprefix("images/")
            images.append({"id": number, "file_name": name, "width": width, "height": height})
            for index in (picture.target == 1).nonzero()[0]:
                box = {"bbox": [0, 0, width, height], "area": width * height, "iscrowd": 0}
                ids = {"image_id": number, "category_id": int(index) + 1}
                boxes.append({"id": len(boxes) + 1, **ids, **box, "segmentation": []})
        content = {"info": {}, "licenses": [], "images": images, "annotations": boxes}
        path = folder / "annotations" / f"instances_{split}.json"
        files.write_text(path, json.dumps(content | {"categories": categories}, ensure_ascii=False))
    return []


FORMAT = Format(
    read,
    "COCO (annotations/instances_train*.json, CVAT's instances_default.json, Label Studio's"
    " result.json, or the JSON file)",
    _usual,
    of_file=_of_file,
    write=_write,
)
