"""What a model decided about every validation image, in a file, so that runs can be compared."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mlcls_jax import files
from mlcls_jax.metrics.intervals import bootstrap_differences
from mlcls_jax.reports.mistakes import Decisions

FILE = "decisions.npz"  # beside the report of an evaluation
MAX_CELLS = 400_000_000  # images times labels; of more nothing is kept
MAX_SCORES = 10_000_000  # of more the scores are not
_BITS = ("reported", "present", "known")


class Kept(NamedTuple):
    """The decisions of an evaluation."""

    images: np.ndarray  # [N] names
    labels: np.ndarray  # [K] names
    reported: np.ndarray  # bool [N, K]
    present: np.ndarray  # bool [N, K]
    known: np.ndarray  # bool [N, K], whether somebody has looked
    scores: np.ndarray | None = None  # float32 [N, K]; None: too many, or of an earlier version


class Difference(NamedTuple):
    """An image about which two runs decided differently."""

    image: str
    present: list[str]  # labels
    first: list[str]  # labels that the first run reported
    last: list[str]
    gain: int  # how many wrong decisions fewer the last has


def kept_of(decisions: Decisions, images: Sequence[str], labels: Sequence[str]) -> Kept:
    """Return what is kept of an evaluation of images, and labels, of these names."""
    targets = decisions.targets
    return Kept(
        images=np.array([*images], str),
        labels=np.array([*labels], str),
        reported=np.concatenate([decisions.reported(rows) for rows in decisions.chunks()]),
        present=targets >= 1,
        known=targets >= 0,
        scores=decisions.scores if targets.size <= MAX_SCORES else None,
    )


def write_decisions(
    folder: Path, decisions: Decisions, images: Sequence[str] | None, labels: Sequence[str]
) -> None:
    """Write the file of an evaluation into a folder, a bit a decision, and the scores.

    Where the images are not known, or are too many, that of an earlier evaluation is taken away:
    what it says is not about this one.
    """
    if images is None or decisions.targets.size > MAX_CELLS:
        (folder / FILE).unlink(missing_ok=True)
        return
    kept = {k: v for k, v in kept_of(decisions, images, labels)._asdict().items() if v is not None}
    kept |= {name: np.packbits(kept[name], axis=1) for name in _BITS}
    folder.mkdir(parents=True, exist_ok=True)
    with files.replacing(folder / FILE) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **kept)


def read_decisions(folder: Path) -> Kept | None:
    """Return what `write_decisions` has written; None where it is not, or cannot be read."""
    kept = files.read_arrays(folder / FILE, "images", "labels", *_BITS)
    if kept is None:
        return None
    count = len(kept["labels"])
    tables = (np.unpackbits(kept[name], axis=1, count=count).astype(bool) for name in _BITS)
    return Kept(kept["images"], kept["labels"], *tables, scores=kept.get("scores"))


def label_intervals(first: Kept, last: Kept) -> tuple[dict[str, tuple[float, float]], Any] | None:
    """Return the intervals by label, and of the mean, of the rises of average precision.

    Of images and labels that both know, by the last one's truth; None: scores are not kept.
    """
    if first.scores is None or last.scores is None:
        return None
    a, b, j, k = _shared(first, last)
    targets = np.where(last.known, last.present, -1)[np.ix_(b, k)].astype(np.float32)
    if not targets.size:
        return None
    found = bootstrap_differences(first.scores[np.ix_(a, j)], last.scores[np.ix_(b, k)], targets)
    if found is None:
        return None
    names = last.labels[k].tolist()
    return dict(zip(names, map(tuple, found[0].tolist()), strict=True)), found[1]


def _shared(first: Kept, last: Kept) -> tuple[np.ndarray, ...]:
    """Return where images that both know stand in the first and the last, and labels likewise."""
    _, a, b = np.intersect1d(first.images, last.images, return_indices=True)
    _, j, k = np.intersect1d(first.labels, last.labels, return_indices=True)
    return a, b, j, k


def differences(first: Kept, last: Kept) -> list[Difference]:
    """Return the images on which two runs differ, the largest gains first, losses last.

    Compared are the labels and images that both know, against the last run's truth.
    """
    a, b, j, k = _shared(first, last)
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
