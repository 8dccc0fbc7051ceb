"""Label Studio: tasks with choices, as it exports them (JSON, JSON-MIN, CSV) and as it imports.

`write_tasks` is for others, too, for images without labels for instance: the tasks, with what a
model finds as predictions, and the labelling interface for them. Label Studio shows images by their
URLs: by default those of its "local files", below LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit
from xml.sax.saxutils import quoteattr

from mlcls_jax import files
from mlcls_jax.config import Convert
from mlcls_jax.data.convert.dataset_format import Format, csv_columns, file_that, head, json_keys
from mlcls_jax.data.convert.labelled import Labelled, Picture
from mlcls_jax.data.convert.listings import Entry, Listing
from mlcls_jax.data.convert.reading import LeftOut, annotation_json, csv_rows, split_of
from mlcls_jax.data.image_files import is_image_name
from mlcls_jax.errors import ConvertFailedError, raise_faults
from mlcls_jax.parsing import parse_json, parse_xml, shorten

TASKS = "tasks.json"
INTERFACE = "label_config.xml"
LOCAL_FILES = "/data/local-files/?d="
FROM, TO = "labels", "image"  # what our interface calls the choices and the image
# What exports of records (JSON-MIN, CSV) have besides the data and the labels.
_FACTS = {"id", "annotator", "annotation_id", "created_at", "updated_at", "lead_time", "split"}
_UPLOAD = re.compile(r"[0-9a-f]{8}-(?=.)")  # before the name of a file that was uploaded
_SHOWN = "tasks without an annotation"


def write_tasks(
    folder: Path,
    labels: Sequence[str],
    pictures: Iterable[Picture],
    *,
    url: str = LOCAL_FILES,
    model: str = "mlcls",
    splits: Mapping[str, str] | None = None,
) -> Path:
    """Write tasks.json and label_config.xml for images, labelled or not, and return the first.

    Args:
      folder: it is there.
      labels: all of them, in their order.
      pictures: their names stand behind `url`; `target` becomes an annotation, `found` a
        prediction, from which people begin to label.
      url: what images are found behind.
      model: version of the model of the predictions.
      splits: what each image, by its name, is for.
    """
    tasks = [_task(picture, labels, url, model, splits or {}) for picture in pictures]
    files.write_text(folder / INTERFACE, interface(labels))
    path = folder / TASKS
    files.write_json(path, tasks)
    return path


def interface(labels: Iterable[str]) -> str:
    """Return a labelling interface of an image and choices."""
    values = (quoteattr(name, {"\t": "&#9;"}) for name in labels)
    choices = "".join(f"    <Choice value={value}/>\n" for value in values)
    return (
        f'<View>\n  <Image name="{TO}" value="$image"/>\n'
        f'  <Choices name="{FROM}" toName="{TO}" choice="multiple" showInline="true">\n'
        f"{choices}  </Choices>\n</View>\n"
    )


def choices(names: Iterable[str], *, from_name: str = FROM, to_name: str = TO) -> list[Any]:
    """Return the result of an annotation or prediction: these labels; none, if there are none."""
    names = list(names)
    shared = {"from_name": from_name, "to_name": to_name, "type": "choices"}
    return [{**shared, "value": {"choices": names}}] if names else []


def prediction(
    found: Mapping[str, float], model: str, *, from_name: str = FROM, to_name: str = TO
) -> dict[str, Any]:
    """Return a prediction: its score, the least of its labels', says how sure the model is."""
    result = choices(found, from_name=from_name, to_name=to_name)
    return {
        "model_version": model,
        "score": round(float(min(found.values(), default=0.0)), 5),
        "result": result,
    }


def _task(
    picture: Picture, labels: Sequence[str], url: str, model: str, splits: Mapping[str, str]
) -> dict[str, Any]:
    data = {TO: url + quote(picture.name)}
    if split := splits.get(picture.name):
        data["split"] = split
    task: dict[str, Any] = {"data": data}
    if picture.target is not None:
        # A model may know labels besides, which come last.
        present = [n for n, value in zip(labels, picture.target, strict=False) if value == 1]
        task["annotations"] = [{"result": choices(present)}]
    if picture.found is not None:
        task["predictions"] = [prediction(picture.found, model)]
    return task


def _write(data: Labelled, folder: Path, url: str | None) -> list[str]:
    pictures = [picture for rows in data.splits.values() for picture in rows]
    splits = {picture.name: split for split, rows in data.splits.items() for picture in rows}
    behind = url or f"{LOCAL_FILES}{quote(data.name)}/"
    labels = [*dict.fromkeys((*data.labels, *data.model_labels))]
    path = write_tasks(folder, labels, pictures, url=behind, model=data.model, splits=splits)
    told = [
        f"Label Studio: make a project with the labelling interface of {folder / INTERFACE}, and"
        f" import {path}."
    ]
    if url is None:
        told.append(
            "It finds the images where it is started with"
            " LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true"
            f" LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT={folder.resolve().parent}, and the project"
            f" has {folder.resolve()} as a local storage; --url gives another address."
        )
    return told


def read(root: Path, label_file: Path, options: Convert) -> Listing:
    """Read the tasks that are annotated; where annotators disagree on a label, it is -1.

    Labels are those of label_config.xml beside the file, if it is there, or those that occur.
    """
    named = options.train_annotations
    paths = {"train": root / named} if named else _usual_file(root)
    if options.val_annotations:
        paths["val"] = root / options.val_annotations
    if not paths:
        raise ConvertFailedError(
            f"{root}: holds no export of Label Studio", "Name the JSON or CSV file."
        )
    left_out: LeftOut = {}
    splits: dict[str, list[Entry]] = {}
    for split, path in paths.items():
        if path.suffix.lower() == ".csv":
            found = _records([*csv_rows(path)], str(path))
        else:
            found = _json_tasks(path, left_out)
        for own, entry in found:
            splits.setdefault(own or split, []).append(entry)
    interfaces = (paths["train"].parent / INTERFACE, root / INTERFACE)
    place = next((path for path in interfaces if path.is_file()), None)
    labels = _labels(place) if place else []
    declared = str(place) if labels else None
    return Listing(splits, labels, declared, left_out=left_out)


def _labels(path: Path) -> list[str]:
    tags = parse_xml(path, ConvertFailedError).iter()
    found = (tag for tag in tags if tag.tag in ("Choice", "Label"))
    names = (tag.get("alias") or tag.get("value") or "" for tag in found)
    return [*dict.fromkeys(name.strip() for name in names)]


def _usual_file(root: Path) -> dict[str, Path]:
    found = [path for path in sorted(root.glob("*.json")) if _is_export(path)]
    return {"train": found[0]} if len(found) == 1 else {}


def _json_tasks(path: Path, left_out: LeftOut) -> Iterator[tuple[str | None, Entry]]:
    """Yield what the images of a JSON or JSON-MIN export are for, and what is said of them."""
    tasks = annotation_json(path)
    if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
        raise ConvertFailedError(f"{path}: is no list of tasks, as Label Studio exports it")
    faults: list[str] = []
    if tasks and not any("data" in task for task in tasks):
        yield from _records([(f"{path}: [{i}]", task) for i, task in enumerate(tasks)], str(path))
        return
    for i, task in enumerate(tasks):
        place, data = f"{path}: [{i}]", task.get("data")
        given = task.get("annotations", task.get("completions", []))
        if not isinstance(data, dict) or not isinstance(given, list):
            faults.append(f"{place}: data is no object, or annotations no list")
            continue
        image = _image(data)
        if image is None:
            faults.append(f"{place}: data names no image: {shorten(json.dumps(data))}")
            continue
        try:
            said = [_chosen(one, f"{place}: annotations[{n}]") for n, one in enumerate(given)]
        except ConvertFailedError as error:
            faults.append(error.message)
            continue
        said = [names for names in said if names is not None]
        if not said:
            left_out.setdefault(_SHOWN, []).append(place)
            continue
        yield split_of(str(data.get("split"))), _entry(image, said, place)
    raise_faults(ConvertFailedError, faults)


def _chosen(annotation: Any, place: str) -> list[str] | None:
    """Return the labels of an annotation; None if it was skipped.

    Raises:
      ConvertFailedError: it is malformed.
    """
    if not isinstance(annotation, dict) or not isinstance(annotation.get("result"), list):
        raise ConvertFailedError(f"{place}: result is no list")
    if annotation.get("was_cancelled"):
        return None
    names = []
    for result in annotation["result"]:
        kind = result.get("type") if isinstance(result, dict) else None
        if not isinstance(kind, str):
            raise ConvertFailedError(f"{place}: a result has no type")
        if kind == "choices" or kind.endswith("labels"):  # rectanglelabels, brushlabels, …
            value = result.get("value")
            found = value.get(kind) if isinstance(value, dict) else None
            if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
                raise ConvertFailedError(f"{place}: value.{kind} is no list of texts")
            names += found
    return names


def _entry(image: str, said: Sequence[Sequence[str]], place: str) -> Entry:
    """Return an entry of the labels that all, some (-1) or none of its annotators chose."""
    counts = Counter(name for names in said for name in set(names))
    values = {name: 1 if count == len(said) else -1 for name, count in counts.items()}
    first, *others = _names(image)
    return Entry(first, values, place, tuple(others))


def _names(image: str) -> list[str]:
    """Return the names that an image of an address may have on this disk, the most likely first."""
    try:
        url = urlsplit(image)
    except ValueError:  # "//[" for instance
        return [image]
    if not url.scheme and not image.startswith("/data/"):
        return [image]
    path = unquote(url.path)
    if found := parse_qs(url.query).get("d"):
        path = found[0]
    parts = [part for part in path.split("/") if part not in ("", ".", "..")]
    names = ["/".join(parts[start:]) for start in range(len(parts))] or [image]
    plain = _UPLOAD.sub("", names[-1], count=1)
    return [*names, *([plain] if plain != names[-1] else [])]


def _image(data: Mapping[str, Any]) -> str | None:
    """Return the value that names an image: of the key `image`, or the only one that does."""
    texts = {key: value for key, value in data.items() if isinstance(value, str)}
    if TO in texts:
        return texts[TO]
    found = [text for text in texts.values() if is_image_name(_names(text)[-1])]
    return found[0] if len(found) == 1 else None


def _records(
    records: Sequence[tuple[str, dict[str, Any]]], path: str
) -> Iterator[tuple[str | None, Entry]]:
    """Yield the images of records: a task, and the annotation of one person, each."""
    said: dict[str, list[list[str]]] = {}  # image → what each annotator chose
    first: dict[str, tuple[str, str | None]] = {}
    faults = []
    column = _label_column([record for _, record in records], path)
    for place, record in records:
        data = {key: value for key, value in record.items() if key not in {column, *_FACTS}}
        names, image = _cell(record.get(column)), _image(data)
        if image is None or names is None:
            faults.append(f"{place}: no image, or no choices: {shorten(json.dumps(record))}")
            continue
        said.setdefault(image, []).append(names)
        first.setdefault(image, (place, split_of(str(record.get("split")))))
    raise_faults(ConvertFailedError, faults)
    for image, (place, split) in first.items():
        yield split, _entry(image, said[image], place)


def _label_column(records: Sequence[Mapping[str, Any]], path: str) -> str:
    """Return the column of the choices: the only one besides the image, or that has `choices`.

    Raises:
      ConvertFailedError: there is none, or there are several.
    """
    columns = {key for record in records for key in record if isinstance(key, str)} - _FACTS
    columns -= {TO, *(c for c in columns if any(_image({c: r.get(c)}) for r in records))}
    listed = {c for c in columns if any("choices" in str(record.get(c)) for record in records)}
    found = sorted(listed or columns)
    if len(found) != 1:
        raise ConvertFailedError(
            f"{path}: which column has the choices? There are: {', '.join(sorted(columns))}",
            "Export as JSON instead, which says so.",
        )
    return found[0]


def _cell(value: Any) -> list[str] | None:
    """Return the labels of a cell: a text, or `{"choices": [...]}`, written out or not."""
    if isinstance(value, str) and value.lstrip().startswith("{"):
        value = parse_json(value.encode(), "choices", ConvertFailedError)
    if isinstance(value, dict):
        value = value.get("choices")
    if value is None or value == "":
        return []
    names = [value] if isinstance(value, str) else value
    is_right = isinstance(names, list) and all(isinstance(name, str) for name in names)
    return names if is_right else None


def _is_export(file: Path) -> bool:
    if file.suffix.lower() == ".json":
        keys = json_keys(head(file))
        is_full = bool(keys & {"annotations", "predictions", "completions"}) and "data" in keys
        return "[" in keys and (is_full or {"annotation_id", "annotator"} <= keys)
    return {"annotation_id", "annotator"} <= csv_columns(file)


FORMAT = Format(
    read,
    "Label Studio's exports (the JSON or CSV file)",
    of_file=file_that("Label Studio's export", _is_export),
    write=_write,
)
