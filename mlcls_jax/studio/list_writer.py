"""Bringing changes into the lists of a data set: only the lines of changed images differ."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TextIO

from mlcls_jax.data.backups import replace_files
from mlcls_jax.data.findings import Finding
from mlcls_jax.data.lists import raise_findings, read_list
from mlcls_jax.studio.changes import Change
from mlcls_jax.studio.dataset import UNLISTED, Dataset

_LINE_END = re.compile(r"(\r\n|\r|\n)")


def write_lists(dataset: Dataset, changes: Iterable[Change]) -> dict[str, str]:
    """Give the images in `changes` their last values, in all lists that name them.

    The files are read anew: what others wrote into them meanwhile stays. Images that no list names
    are added to the training list.

    Returns:
      {list: its backup} of the lists that were written.

    Raises:
      DataError: a list is not UTF-8; nothing was written.
    """
    column = {label: k for k, label in enumerate(dataset.labels)}
    values: defaultdict[str, dict[int, int]] = defaultdict(dict)
    for change in changes:
        if change.label in column:
            values[change.image][column[change.label]] = change.new
    listed: set[str] = set()
    lists = [name for name in dataset.lists if name != UNLISTED]
    texts = {name: _changed(dataset, name, values, listed) for name in lists}
    if new := {image: values[image] for image in values.keys() - listed if _is_new(dataset, image)}:
        name = dataset.config.train_list
        path = dataset.root / name
        before = texts.get(name) or (path.read_bytes().decode() if path.exists() else "")
        end = "" if not before or before.endswith(("\n", "\r")) else "\n"
        texts[name] = before + end + "".join(_lines(new, len(dataset.labels)))
    writers = {name: partial(_write, text=text) for name, text in texts.items() if text is not None}
    return replace_files(dataset.root, writers) if writers else {}


def _is_new(dataset: Dataset, image: str) -> bool:
    rows = dataset.rows_of.get(image, ())
    return bool(rows) and dataset.lists[dataset.list_number[rows[0]]] == UNLISTED


def _lines(new: dict[str, dict[int, int]], num_classes: int) -> Iterator[str]:
    """Yield a line for each image that no list names; what nobody has looked at is -1."""
    for image in sorted(new):
        target = [new[image].get(k, -1) for k in range(num_classes)]
        yield f"{image}\t{','.join(map(str, target))}\n"


def _changed(
    dataset: Dataset, name: str, values: dict[str, dict[int, int]], listed: set[str]
) -> str | None:
    """Return the new content of a list; None if nothing in it changes.

    Those of the images in `values` that it names are put into `listed`.
    """
    path, targets = dataset.root / name, dict[int, str]()
    for item in read_list(path, len(dataset.labels), name=name):
        if isinstance(item, Finding):
            raise_findings([item] if item.kind == "not_utf8" else [])
        elif item.image in values:
            listed.add(item.image)
            target = item.target.copy()
            for k, value in values[item.image].items():
                target[k] = value
            if (target != item.target).any():
                targets[item.line] = ",".join(map(str, target.tolist()))
    if not targets:
        return None
    parts = _LINE_END.split(Path(path).read_bytes().decode())  # line, its end, line, …
    for line, text in targets.items():
        image, tab, _ = parts[2 * line - 2].partition("\t")
        parts[2 * line - 2] = image + tab + text
    return "".join(parts)


def _write(file: TextIO, *, text: str) -> None:
    file.write(text)
