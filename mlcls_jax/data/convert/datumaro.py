"""datumaro's own format: annotations/train.json and images/train/, and so for other subsets."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlcls_jax import files
from mlcls_jax.config import Convert
from mlcls_jax.data.convert.dataset_format import Format, Sign, head, in_object, json_keys
from mlcls_jax.data.convert.labelled import Labelled
from mlcls_jax.data.convert.listings import Entry, Listing
from mlcls_jax.data.convert.reading import LeftOut, annotation_files, annotation_json, split_of_file
from mlcls_jax.errors import ConvertFailedError, raise_faults

_FOLDER = "annotations"
_IMAGES = 2  # media_type


def read(root: Path, label_file: Path, options: Convert) -> Listing:
    """Read all subsets: those called as splits are, and any other as training images.

    Labels of images and of shapes count. What declares no labels, or others than its neighbours, is
    an error.
    """
    paths = [*annotation_files(root, options, lambda _: ()).items()]
    paths = paths or [(split_of_file(p), p) for p in sorted((root / _FOLDER).glob("*.json"))]
    splits: dict[str, list[Entry]] = {}
    folders: dict[str, list[Path]] = {}
    labels: list[str] | None = None
    left_out: LeftOut = {}
    for split, path in paths:
        content = annotation_json(path)
        own = _labels(content, path)
        if labels not in (None, own):
            raise ConvertFailedError(f"{path}: has other labels than {paths[0][1]}")
        labels = own
        images = path.parent.parent / "images"
        splits.setdefault(split, []).extend(_entries(content, own, path, left_out))
        folders.setdefault(split, []).extend((images / path.stem, images))
    return Listing(splits, labels or [], folders=folders, left_out=left_out)


def _labels(content: Any, path: Path) -> list[str]:
    categories = in_object(content, "categories", dict, str(path))
    told = in_object(categories, "label", dict, f"{path}: categories")
    names = in_object(told, "labels", list, f"{path}: categories: label")
    place = f"{path}: categories: label: labels"
    return [in_object(one, "name", str, f"{place}[{n}]") for n, one in enumerate(names)]


def _entries(content: Any, labels: list[str], path: Path, left_out: LeftOut) -> list[Entry]:
    rows, faults = list[Entry](), list[str]()
    for number, item in enumerate(in_object(content, "items", list, str(path))):
        place = f"{path}: items[{number}]"
        try:
            name = in_object(item, "id", str, place)
            if not isinstance(image := item.get("image"), dict):
                left_out.setdefault("items without an image", []).append(name)
                continue
            found = in_object(item, "annotations", list, place)
            indices = [
                in_object(one, "label_id", int, f"{place}: annotations[{n}]")
                for n, one in enumerate(found)
                if not isinstance(one, dict) or one.get("label_id") is not None
            ]
        except ConvertFailedError as error:
            faults.append(error.message)
            continue
        if bad := [index for index in indices if not 0 <= index < len(labels)]:
            faults.append(f"{place}: label_id {bad[0]}, but there are {len(labels)} labels")
            continue
        values = {labels[index]: 1 for index in indices}
        rows.append(Entry(str(image.get("path") or f"{name}.jpg"), values, place))
    raise_faults(ConvertFailedError, faults)
    return rows


def _write(data: Labelled, folder: Path, _: str | None) -> list[str]:
    """Write annotations/ for each split; images stay where they are in images/."""
    (folder / _FOLDER).mkdir()
    index = {name: number for number, name in enumerate(data.labels)}
    labels = [{"name": name, "parent": "", "attributes": []} for name in data.labels]
    for split, rows in data.splits.items():
        items, used = [], set[str]()
        for picture in rows:
            path = picture.name.removeprefix("images/")
            name = os.path.splitext(path)[0]  # to which datumaro adds an ending
            name = path if name in used else name
            used.add(name)
            found = [{"type": "label", "label_id": index[n]} for n in data.present(picture)]
            found = [{"id": 0, "attributes": {}, "group": 0, **one} for one in found]
            items.append({"id": name, "annotations": found, "image": {"path": path}})
        content = {
            "dm_format_version": "1.0",
            "media_type": _IMAGES,
            "infos": {},
            "categories": {"label": {"labels": labels, "label_groups": [], "attributes": []}},
            "items": items,
        }
        path = folder / _FOLDER / f"{split}.json"
        files.write_text(path, json.dumps(content, ensure_ascii=False))
    return [f"datumaro: dm.Dataset.import_from({str(folder)!r}, 'datumaro')"]


def _is_ours(file: Path) -> bool:
    keys = json_keys(head(file)) if file.suffix.lower() == ".json" else set()
    return "dm_format_version" in keys or {"categories", "items"} <= keys


def _usual(folder: Path) -> Iterator[Sign]:
    for path in sorted((folder / _FOLDER).glob("*.json")):
        if _is_ours(path):
            yield Sign(f"datumaro's {_FOLDER}/{path.name}")
            return


def _of_file(file: Path) -> Iterator[Sign]:
    if file.parent.name == _FOLDER and _is_ours(file):
        yield Sign(f"datumaro's {file.name}", f"{_FOLDER}/{file.name}", file.parent.parent)


FORMAT = Format(
    read,
    "datumaro's (annotations/train.json, images/train/)",
    _usual,
    of_file=_of_file,
    write=_write,
)
