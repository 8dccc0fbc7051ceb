"""FiftyOne's exports: FiftyOneImageClassificationDataset, and FiftyOneDataset.

The first has labels.json and data/, or data.json with the paths of the images; the second
samples.json, whose fields of classifications or detections are labels.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlcls_jax import files
from mlcls_jax.config import Convert
from mlcls_jax.data.convert.dataset_format import (
    Format,
    Sign,
    file_that,
    head,
    in_object,
    json_keys,
)
from mlcls_jax.data.convert.labelled import Labelled
from mlcls_jax.data.convert.listings import Entry, Listing
from mlcls_jax.data.convert.reading import LeftOut, annotation_json, split_of, usual_places
from mlcls_jax.errors import ConvertFailedError, raise_faults
from mlcls_jax.parsing import shorten

LABELS, SAMPLES, MANIFEST = "labels.json", "samples.json", "data.json"
_KINDS = ("Classification", "Classifications", "Detection", "Detections")


def read(root: Path, label_file: Path, options: Convert) -> Listing:
    """Read labels.json of the folder or of its train/, val/ and test/; or samples.json.

    Of samples.json the field is read that is called ground_truth, or the only one with labels; tags
    called as splits say what an image is for. Images without labels there are left out.
    """
    if options.train_annotations:
        paths = {"train": root / options.train_annotations}
        paths |= {"val": root / options.val_annotations} if options.val_annotations else {}
    else:
        paths = usual_places(lambda name: [root / name / LABELS])
        alone = next((root / n for n in (LABELS, SAMPLES) if (root / n).is_file()), None)
        paths = {"train": alone} if alone else paths
    if "train" not in paths:
        raise ConvertFailedError(f"{root}: holds neither {LABELS} nor {SAMPLES}")
    splits: dict[str, list[Entry]] = {}
    labels: dict[str, None] = {}
    folders: dict[str, list[Path]] = {}
    left_out: LeftOut = {}
    for usual, path in paths.items():
        content = annotation_json(path)
        is_samples = isinstance(content, dict) and "samples" in content
        reader = _samples if is_samples else _classification
        names, rows = reader(content, path, left_out)
        labels |= dict.fromkeys(names)
        for split, entry in rows:
            splits.setdefault(split or usual, []).append(entry)
            folders.setdefault(split or usual, [path.parent / "data", path.parent])
    return Listing(
        splits, [*labels], str(paths["train"]) if labels else None,
        folders=folders, left_out=left_out,
    )  # fmt: skip


def _classification(
    content: Any, path: Path, left_out: LeftOut
) -> tuple[list[str], list[tuple[str | None, Entry]]]:
    targets = in_object(content, "labels", dict, str(path))
    classes = content.get("classes") or []
    manifest = path.parent / MANIFEST
    places: dict[str, Any] = {}
    if manifest.is_file():
        places = annotation_json(manifest)
        if not isinstance(places, dict):
            raise ConvertFailedError(f"{manifest}: is no JSON object")
    rows: list[tuple[str | None, Entry]] = []
    faults = []
    for key, target in targets.items():
        place = f"{path}: labels: {shorten(key)}"
        if target is None:
            left_out.setdefault("images without labels", []).append(key)
            continue
        try:
            names = [_name(one, classes) for one in _labels(target)]
        except (ValueError, IndexError, KeyError, TypeError):
            faults.append(f"{place}: {shorten(target)} names no label")
            continue
        if key in places:
            image = os.path.abspath(os.path.join(path.parent, str(places[key])))
        else:
            image = key
        rows.append((None, Entry(image, dict.fromkeys(names, 1), place)))
    raise_faults(ConvertFailedError, faults)
    return [*map(str, classes)], rows


def _name(target: Any, classes: list[Any]) -> str:
    """Return the label of a number, a text, or an object that has one of these.

    Raises:
      ValueError, IndexError, KeyError, TypeError: there is none.
    """
    if isinstance(target, dict):
        target = target["label"]
    if isinstance(target, bool) or not isinstance(target, int | str):
        raise ValueError
    if isinstance(target, str):
        return target
    if target < 0:
        raise IndexError
    return str(classes[target])


def _samples(
    content: Any, path: Path, left_out: LeftOut
) -> tuple[list[str], list[tuple[str | None, Entry]]]:
    samples = in_object(content, "samples", list, str(path))
    field = _field(samples, path)
    rows: list[tuple[str | None, Entry]] = []
    faults = []
    for number, sample in enumerate(samples):
        place = f"{path}: samples[{number}]"
        try:
            image = in_object(sample, "filepath", str, place)
            labels = sample.get(field)
            if labels is None:
                left_out.setdefault("images without labels", []).append(image)
                continue
            values = {_name(one, []): 1 for one in _labels(labels)}
        except ConvertFailedError as error:
            faults.append(error.message)
            continue
        except (ValueError, IndexError, KeyError, TypeError):
            faults.append(f"{place}: {field} holds no labels")
            continue
        split = split_of(*map(str, sample.get("tags") or []))
        rows.append((split, Entry(image, values, place, (os.path.basename(image),))))
    raise_faults(ConvertFailedError, faults)
    return [], rows


def _labels(value: Any) -> list[Any]:
    for key in ("classifications", "detections"):
        if isinstance(value, dict) and key in value:
            value = value[key]
    return value if isinstance(value, list) else [value]


def _field(samples: list[Any], path: Path) -> str:
    """Return the field of the labels.

    Raises:
      ConvertFailedError: there are none, or several and none called ground_truth.
    """
    found = {
        key
        for sample in samples
        if isinstance(sample, dict)
        for key, value in sample.items()
        if isinstance(value, dict) and value.get("_cls") in _KINDS
    }
    if "ground_truth" in found:
        return "ground_truth"
    if len(found) != 1:
        raise ConvertFailedError(
            f"{path}: which field has the labels? There are {', '.join(sorted(found)) or 'none'}",
            "Export that field alone, or call it ground_truth.",
        )
    return found.pop()


def _write(data: Labelled, folder: Path, _: str | None) -> list[str]:
    """Write labels.json and data.json for each split.

    Keys are numbers: FiftyOne takes what follows a point in a key for a suffix.
    """
    index = {name: number for number, name in enumerate(data.labels)}
    for split, rows in data.splits.items():
        (folder / split).mkdir()
        keys = [f"{number:07}" for number in range(len(rows))]
        numbers = [[index[name] for name in data.present(picture)] for picture in rows]
        labels = {"classes": [*data.labels], "labels": dict(zip(keys, numbers, strict=True))}
        files.write_text(folder / split / LABELS, json.dumps(labels, ensure_ascii=False))
        paths = [f"../{picture.name}" for picture in rows]
        files.write_json(folder / split / MANIFEST, dict(zip(keys, paths, strict=True)))
    return [
        f"FiftyOne: fo.Dataset.from_dir({str(folder / 'train')!r},"
        ' dataset_type=fo.types.FiftyOneImageClassificationDataset, data_path="data.json")'
    ]


def _is_ours(file: Path) -> bool:
    keys = json_keys(head(file)) if file.suffix.lower() == ".json" else set()
    return "samples" in keys or {"classes", "labels"} <= keys or keys == {"labels"}


def _usual(folder: Path) -> Iterator[Sign]:
    for name in (SAMPLES, LABELS, f"train/{LABELS}"):
        if (folder / name).is_file() and _is_ours(folder / name):
            yield Sign(f"FiftyOne's {name}")
            return


FORMAT = Format(
    read,
    "FiftyOne's exports (labels.json with data/, or samples.json)",
    _usual,
    of_file=file_that("FiftyOne's", _is_ours),
    write=_write,
)
