"""A new division of a data set's images: training, validation and test lists, or folds."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple, TextIO

import numpy as np

from mlcls_jax.bars import progress
from mlcls_jax.config import Data, Split
from mlcls_jax.data.backups import recover, replace_files
from mlcls_jax.data.findings import Finding, is_error
from mlcls_jax.data.lists import TEST_LIST, find_root, label_names, raise_findings, read_list
from mlcls_jax.data.stratify import divide
from mlcls_jax.errors import DataError, SplitFailedError
from mlcls_jax.files import regular


class SplitResult(NamedTuple):
    """Result of a split."""

    root: Path  # of the data set
    pooled: dict[str, int]  # list file → images that it had
    images: dict[str, int]  # list file → images that it has now
    groups: int  # of images that were kept together; an image alone counts as one
    unmatched: int  # images that split.group does not match; 0 without it
    backups: dict[str, str]  # file → what it is called now


class Pool(NamedTuple):
    """All listed images, in groups."""

    sizes: dict[str, int]  # list file → images
    group: np.ndarray  # int64 [N], of each image
    labels: list[Counter[int]]  # of each group: label → images that have it
    unmatched: int


def split(data: Data, options: Split, *, seed: int) -> SplitResult:
    """Divide the images of data.train_list and data.val_list anew, by the percentages of `options`.

    With a test_percent test.txt takes part too; without, it stays as it is. With `folds` the lists
    themselves stay, and those of the folds are written beside them; `images` of the result has the
    validation lists. Lines are taken over as they are and stay in their order. What was there
    becomes a backup. Lines with the same path always stay together.

    Raises:
      SplitFailedError: a list is missing or malformed, with every line at fault, or a new list
        would be empty. All is as it was.
    """
    lists = [data.train_list, data.val_list, *([TEST_LIST] if options.test_percent else [])]
    percents = (options.train_percent, options.val_percent, options.test_percent)
    shares = dict(zip(lists, percents, strict=False))
    written = {name: i for i, name in enumerate(lists)}  # list → its part
    rests: dict[str, int] = {}  # list → the part that it lacks
    if options.folds:
        lists = lists[:2]
        written = {f"fold{i + 1}_val.txt": i for i in range(options.folds)}
        rests = {f"fold{i + 1}_train.txt": i for i in range(options.folds)}
        shares = dict.fromkeys(written, 1)
    try:
        root = find_root(Path(data.folder))
        recover(root, {data.label_file, TEST_LIST, *lists, *written, *rests})
        pool = _read_pool(root, lists, label_file=data.label_file, group=options.group)
        weights = np.bincount(pool.group)  # [groups]
        labels = pool.labels if options.stratify else [Counter()] * len(weights)
        part = divide(labels, weights.tolist(), list(shares.values()), seed=seed)[pool.group]  # [N]
        images = np.bincount(part, minlength=len(shares)).tolist()
        if 0 in images:
            raise SplitFailedError(
                f"{list(shares)[images.index(0)]} would be empty: there are {len(part)} images in"
                f" {len(weights)} groups",
                "Take fewer folds, or add images."
                if options.folds
                else "Raise its share of check_dataset.split, or add images.",
            )
        chosen = {name: part == i for name, i in written.items()}
        chosen |= {name: part != i for name, i in rests.items()}
        writers = {
            name: partial(_write, root=root, lists=pool.sizes, chosen=rows)
            for name, rows in chosen.items()
        }
        backups = replace_files(root, writers)
    except OSError as error:
        raise SplitFailedError(f"{error.filename or data.dir}: {error.strerror}") from error
    except DataError as error:
        raise SplitFailedError(error.message, error.hint) from error
    sizes = dict(zip(shares, images, strict=True))
    return SplitResult(root, pool.sizes, sizes, len(weights), pool.unmatched, backups)


def _read_pool(root: Path, lists: Sequence[str], *, label_file: str, group: str | None) -> Pool:
    names = label_names(root / label_file, kind=SplitFailedError)
    faults: list[Finding] = []
    pattern = _compile(group)
    sizes: dict[str, int] = {}
    groups: dict[str, int] = {}  # match, or path where there is none → number
    group_of, labels, unmatched = [], [], 0
    for name in lists:
        if name != lists[0] and not (root / name).exists():
            continue  # of a data set that was never divided
        size = 0
        rows = read_list(root / name, len(names), name=str(root / name))
        for row in progress(rows, desc=name, unit=" images"):
            if isinstance(row, Finding):
                faults += [row] if is_error(row) and row.kind != "empty_list" else []
                continue
            match = _match(pattern, row.image)
            unmatched += match is None
            number = groups.setdefault(row.image if match is None else match, len(groups))
            if number == len(labels):
                labels.append(Counter())
            labels[number].update(np.flatnonzero(row.target == 1).tolist())
            group_of.append(number)
            size += 1
        sizes[name] = size
    raise_findings(faults, SplitFailedError)
    if not group_of:
        raise SplitFailedError(f"{root / lists[0]}: lists no images")
    if pattern and unmatched == len(group_of):
        raise SplitFailedError(
            f"check_dataset.split.group={group}: matches no image,"
            f" {next(iter(groups))} for instance"
        )
    return Pool(sizes, np.array(group_of, np.int64), labels, unmatched if pattern else 0)


def _compile(group: str | None) -> re.Pattern | None:
    try:
        return None if group is None else re.compile(group)
    except re.error as error:
        raise SplitFailedError(
            f"check_dataset.split.group={group}: is not a regular expression: {error}"
        ) from error


def _match(pattern: re.Pattern | None, image: str) -> str | None:
    match = pattern.search(image) if pattern else None
    return match[1 if match.re.groups else 0] if match else None


def _write(file: TextIO, *, root: Path, lists: Iterable[str], chosen: np.ndarray) -> None:
    """Return the chosen lines, bool [N], of the lists."""
    is_chosen = iter(chosen)
    for name in lists:
        with regular(root / name).open(encoding="utf-8-sig") as lines:
            for line in lines:
                if line.strip() and next(is_chosen):
                    file.write(line.rstrip("\n") + "\n")
