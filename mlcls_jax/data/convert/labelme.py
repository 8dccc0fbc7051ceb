"""LabelMe's flags: a JSON file beside each image, with the flags of the image as true or false.

Shapes count where no file has a flag. A flag that an image's file lacks is not known of it: -1.
"""

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from mlcls_jax.config import Convert
from mlcls_jax.data.convert.dataset_format import Format, Sign, head, in_object, json_keys
from mlcls_jax.data.convert.listings import Entry, Listing
from mlcls_jax.data.convert.reading import annotation_json, split_of
from mlcls_jax.errors import ConvertFailedError, raise_faults


def read(root: Path, label_file: Path, options: Convert) -> Listing:
    """Read all files below `root`: in val/ or test/ for these, else for training.

    Labels are the flags; where no file has any, those of the shapes, and the others are absent.
    """
    splits: dict[str, list[Entry]] = {}
    faults: list[str] = []
    files = sorted(path for path in root.rglob("*.json") if _is_ours(path))
    if not files:
        raise ConvertFailedError(f"{root}: there are no JSON files of LabelMe")
    shapes: dict[str, dict[str, int]] = {}  # file → labels
    for path in files:
        try:
            content = annotation_json(path)
            flags = in_object(content, "flags", dict, str(path))
            image = in_object(content, "imagePath", str, str(path)).replace("\\", "/")
        except ConvertFailedError as error:
            faults.append(error.message)
            continue
        wrong = [name for name, value in flags.items() if not isinstance(value, bool)]
        faults += [f"{path}: the flag {name!r} is neither true nor false" for name in wrong]
        drawn = content.get("shapes")
        drawn = [one for one in drawn if isinstance(one, dict)] if isinstance(drawn, list) else []
        shapes[str(path)] = {str(one["label"]): 1 for one in drawn if one.get("label")}
        below = path.parent.relative_to(root)
        split = split_of(*below.parts[:1]) or "train"
        name = os.path.normpath(below / image)
        values = {label: int(value) for label, value in flags.items()}
        entry = Entry(name, values, str(path), (os.path.normpath(f"images/{name}"),))
        splits.setdefault(split, []).append(entry)
    raise_faults(ConvertFailedError, faults)
    if not any(entry.values for entries in splits.values() for entry in entries):
        for entries in splits.values():
            entries[:] = [entry._replace(values=shapes[entry.place]) for entry in entries]
        return Listing(splits)
    mixed = [file for file, labels in shapes.items() if labels]
    told = {"files with shapes, of which only the flags are read": mixed} if mixed else {}
    return Listing(splits, rest=-1, left_out=told)


def _is_ours(path: Path) -> bool:
    return {"flags", "shapes"} <= json_keys(head(path))


def _usual(folder: Path) -> Iterator[Sign]:
    for place in (folder, folder / "images", folder / "train"):
        if any(map(_is_ours, islice(place.glob("*.json"), 3))):
            yield Sign("LabelMe's JSON files")
            return


FORMAT = Format(read, "LabelMe's flags or shapes (a JSON file beside each image)", _usual)
