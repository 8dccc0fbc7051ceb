"""datumaro's ImageNet lists: lines `path 0 2` in train.txt, and the labels' names in synsets.txt.

A path is relative to images/, and has quotes where it holds blanks: `"a cat".jpg 0 2`.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from mlcls_jax.config import Convert
from mlcls_jax.data.convert.dataset_format import Format, Sign, in_object
from mlcls_jax.data.convert.listings import Entry, Listing
from mlcls_jax.data.convert.reading import annotation_files, annotation_json, annotation_text
from mlcls_jax.errors import ConvertFailedError, raise_faults
from mlcls_jax.parsing import shorten

NAMES, META = "synsets.txt", "dataset_meta.json"
_ALONE = "default.txt"  # datumaro's name of a list that is none of training, validation and test
_LINE = re.compile(r'(?:"(?P<stem>[^"]+)"(?P<ending>\S*)|(?P<plain>\S+))(?P<numbers>(\s+\d{1,6})*)')


def read(root: Path, label_file: Path, options: Convert) -> Listing:
    """Read train.txt, and val.txt and test.txt where they are; or else default.txt."""
    lists = annotation_files(root, options, lambda name: [root / f"{name}.txt"])
    lists = lists or {"train": root / _ALONE}
    labels, declared_in = _labels(root)
    faults: list[str] = []
    splits = {split: [*_entries(path, labels, faults)] for split, path in lists.items()}
    raise_faults(ConvertFailedError, faults, f"Numbers count the lines of {declared_in} from 0.")
    return Listing(splits, labels, folders={split: [root / "images"] for split in splits})


def _labels(root: Path) -> tuple[list[str], Path]:
    """Return the names of the labels, and the file that has them."""
    if not (root / META).is_file():
        text = annotation_text(root / NAMES, kind="list of labels")
        return [line.strip() for line in text.strip().splitlines()], root / NAMES
    content = annotation_json(root / META)
    return [*map(str, in_object(content, "labels", list, str(root / META)))], root / META


def _entries(path: Path, labels: list[str], faults: list[str]) -> Iterator[Entry]:
    for number, line in enumerate(annotation_text(path, kind="list").splitlines(), start=1):
        if not line.strip():
            continue
        place = f"{path}:{number}"
        if not (found := _LINE.fullmatch(line.strip())):
            faults.append(f"{place}: {shorten(line)!r} is not `path 0 2`")
            continue
        indices = [int(text) for text in found["numbers"].split()]
        if max(indices, default=0) >= len(labels):
            faults.append(f"{place}: label {max(indices)}, but there are {len(labels)}")
            continue
        image = found["plain"] or found["stem"] + found["ending"]
        yield Entry(image, {labels[index]: 1 for index in indices}, place)


def _usual(folder: Path) -> Iterator[Sign]:
    names = next((name for name in (NAMES, META) if (folder / name).is_file()), None)
    lists = ("train.txt", _ALONE)
    if names and (folder / "images").is_dir() and any((folder / n).is_file() for n in lists):
        yield Sign(f"datumaro's {names} and lists")


FORMAT = Format(read, f"datumaro's imagenet_txt ({NAMES}, train.txt, images/)", _usual)
