"""What a model decided about every validation image, in a file, so that runs can be compared."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mlcls_jax import files
from mlcls_jax.reports.mistakes import Decisions

FILE = "decisions.npz"  # beside the report of an evaluation
MAX_CELLS = 400_000_000  # images times labels; of more nothing is kept


class Kept(NamedTuple):
    """The decisions of an evaluation."""

    images: np.ndarray  # [N] names
    labels: np.ndarray  # [K] names
    reported: np.ndarray  # bool [N, K]
    present: np.ndarray  # bool [N, K]
    known: np.ndarray  # bool [N, K], whether somebody has looked


class Difference(NamedTuple):
    """An image about which two runs decided differently."""

    image: str
    present: list[str]  # labels
    first: list[str]  # labels that the first run reported
    last: list[str]
    gain: int  # how many wrong decisions fewer the last has


def write_decisions(
    folder: Path, decisions: Decisions, images: Sequence[str], labels: Sequence[str]
) -> None:
    """Write the file of an evaluation into a folder, a bit a decision."""
    if decisions.targets.size > MAX_CELLS:
        return
    parts = [decisions.reported(rows) for rows in decisions.chunks()]
    tables = (np.concatenate(parts), decisions.targets >= 1, decisions.targets >= 0)
    reported, present, known = (np.packbits(table, axis=1) for table in tables)
    folder.mkdir(parents=True, exist_ok=True)
    with files.replacing(folder / FILE) as temporary, temporary.open("wb") as file:
        np.savez_compressed(
            file,
            images=np.array([*images], str),
            labels=np.array([*labels], str),
            reported=reported,
            present=present,
            known=known,
        )


def read_decisions(folder: Path) -> Kept | None:
    """Return what `write_decisions` has written; None where it is not, or cannot be read."""
    try:
        with np.load(folder / FILE) as kept:
            count = len(kept["labels"])
            tables = (
                np.unpackbits(kept[name], axis=1, count=count).astype(bool)
                for name in ("reported", "present", "known")
            )
            return Kept(kept["images"], kept["labels"], *tables)
    except (OSError, ValueError, KeyError):
        return None


def differences(first: Kept, last: Kept) -> list[Difference]:
    """Return the images on which two runs differ, the largest gains first, losses last.

    Compared are the labels and images that both know, against the last run's truth.
    """
    _, a, b = np.intersect1d(first.images, last.images, return_indices=True)
    _, j, k = np.intersect1d(first.labels, last.labels, return_indices=True)
    before, after = first.reported[np.ix_(a, j)], last.reported[np.ix_(b, k)]
    present, known = last.present[np.ix_(b, k)], last.known[np.ix_(b, k)]
    gains = (((before != present) & known).sum(1) - ((after != present) & known).sum(1)).tolist()
    differing = np.flatnonzero(((before != after) & known).any(1)).tolist()
    order = sorted(differing, key=lambda i: (-gains[i], i))
    names = last.labels[k]
    return [
        Difference(
            str(last.images[b[i]]),
            *(names[table[i]].tolist() for table in (present, before, after)),
            gain=int(gains[i]),
        )
        for i in order
    ]
