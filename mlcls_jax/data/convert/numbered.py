"""Single-label lists as PaddleClas has them: train_list.txt and val_list.txt of lines `path 12`.

The names of the numbers are in label_list.txt, or *_label_list.txt, in lines `12 sunflower`.
"""

import posixpath
import re
from pathlib import Path

from mlcls_jax.config import Convert
from mlcls_jax.data.convert.dataset_format import Format, files_named
from mlcls_jax.data.convert.listings import Entry, Listing
from mlcls_jax.data.convert.reading import annotation_files, annotation_text
from mlcls_jax.data.lists import label_names
from mlcls_jax.errors import ConvertFailedError, raise_faults
from mlcls_jax.parsing import shorten

# The number is what follows the last blank: paths may hold blanks.
_LINE = re.compile(r"(.*\S)[ \t]+(\d{1,6})")


def read(root: Path, label_file: Path, options: Convert) -> Listing:
    """Read each image with the one label of its number, in the order of the lists.

    A path is relative to train_images or val_images, or else to `root`.
    """
    lists = annotation_files(root, options, lambda name: [root / f"{name}_list.txt"])
    if "train" not in lists:
        raise ConvertFailedError(
            f"{root}: no train_list.txt of lines `path 12`",
            "Name it by check_dataset.convert.train_annotations.",
        )
    numbers = {split: _numbers(path) for split, path in lists.items()}
    highest = max((n for rows in numbers.values() for n in rows.values()), default=-1)
    names, told = _names(root, highest)
    splits = {
        split: [Entry(path, {names[n]: 1}, str(lists[split])) for path, n in rows.items()]
        for split, rows in numbers.items()
    }
    return Listing(splits, names, told=(told,))


def _numbers(path: Path) -> dict[str, int]:
    """Return the number of each image.

    Raises:
      ConvertFailedError: lines are malformed, or give an image two numbers; lists all of them.
    """
    numbers: dict[str, int] = {}
    faults = []
    text = annotation_text(path, kind="list")
    for place, line in enumerate(re.split(r"\r\n|\r|\n", text), start=1):
        if not line.strip():
            continue
        if not (found := _LINE.fullmatch(line.strip())):
            faults.append(f"{path}:{place}: {shorten(line)} is not `path 12`")
            continue
        image, number = posixpath.normpath(found[1]), int(found[2])
        if numbers.setdefault(image, number) != number:
            faults.append(f"{path}:{place}: {image} had label {numbers[image]} before")
    raise_faults(ConvertFailedError, faults, "A line is a path, a blank, and one whole number.")
    return numbers


def _names(root: Path, highest: int) -> tuple[list[str], str]:
    """Return the names of the numbers, and where they are from.

    Raises:
      ConvertFailedError: the list of names is malformed, or lacks numbers that occur.
    """
    files = sorted({*root.glob("*label_list.txt")})
    if len(files) > 1:
        raise ConvertFailedError(
            f"{root}: several lists of names: {', '.join(path.name for path in files)}",
            "Leave one of them there.",
        )
    if not files:
        names = [str(number) for number in range(highest + 1)]
        return names, f"{root}: there is no *label_list.txt: labels are named by their numbers"
    names = [*label_names(files[0], kind=ConvertFailedError)]
    if highest >= len(names):
        raise ConvertFailedError(
            f"{files[0]}: has names for 0 to {len(names) - 1}, but label {highest} occurs"
        )
    return names, f"{files[0]}: {len(names)} names of labels"


FORMAT = Format(read, "PaddleClas' train_list.txt", files_named("PaddleClas'", "train_list.txt"))
