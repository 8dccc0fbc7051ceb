"""A CSV file that says which images somebody should look at, in which order, and why."""

import csv
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mlcls_jax.errors import DataError
from mlcls_jax.files import regular
from mlcls_jax.studio.dataset import Dataset

IMAGE, LABEL = "image", "label"


@dataclass(frozen=True)
class Queue:
    """Rows to be looked at, and what the file says of them."""

    rows: np.ndarray  # int64 [Q], each once
    told: dict[int, list[dict[str, str]]]  # by row: lines of the file, without the image
    unknown: int = 0  # lines whose image is in no list


def no_queue() -> Queue:
    """Return a queue of nothing."""
    return Queue(np.zeros(0, np.int64), {})


def read_queue(path: Path, dataset: Dataset) -> Queue:
    """Read the columns `image`, perhaps `label`, and any others.

    Images are named as in the lists, or by a path to the same file.

    Raises:
      DataError: it cannot be read, or has no column `image`.
    """
    told: defaultdict[int, list[dict[str, str]]] = defaultdict(list)
    unknown = 0
    try:
        with regular(path).open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            if IMAGE not in (reader.fieldnames or ()):
                raise DataError(f"{path}: has no column {IMAGE}", "Its first line names columns.")
            for line in reader:
                image = (line.pop(IMAGE) or "").strip()
                rows = dataset.rows_of.get(image) or dataset.rows_of.get(
                    image.removeprefix(f"{dataset.root}/"), ()
                )
                unknown += not rows
                for row in rows[:1]:
                    told[row].append({str(k): str(v or "") for k, v in line.items() if k})
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    return Queue(np.array(list(told), np.int64), dict(told), unknown)
