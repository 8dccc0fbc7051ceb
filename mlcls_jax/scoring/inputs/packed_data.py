"""A packed data set: the records of all splits, or of one."""

import bisect
import itertools
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from mlcls_jax.config import Data
from mlcls_jax.data.shards import MANIFEST, read_manifest
from mlcls_jax.data.sources.packed import PackedSplit, open_split
from mlcls_jax.errors import InputError
from mlcls_jax.scoring.inputs.kind import Columns, Item, Kind, Read, Survey, digest


def _recognises(source: str) -> bool:
    return "://" not in source and (Path(source) / MANIFEST).exists()


def _survey(source: str, output: Path, columns: Columns) -> tuple[int, str]:
    manifest = read_manifest(Path(source))
    names = _splits(source, columns)
    shards = [shard for name in names for shard in manifest.shards[name].values()]
    count = sum(manifest.images(name) for name in names)
    return count, digest([[shard.file, shard.sha256] for shard in shards])


def _splits(source: str, columns: Columns) -> list[str]:
    manifest = read_manifest(Path(source))
    there = [split for split in manifest.shards if manifest.images(split)]
    if columns.split is None:
        return there
    if columns.split not in there:
        told = f"{source}: split={columns.split}: there is no such split"
        raise InputError(told, f"It has: {', '.join(there)}.")
    return [columns.split]


def _open(source: str, begun: Survey, output: Path, columns: Columns) -> Read:
    names = _splits(source, columns)
    splits = [open_split(Data(dir=source, val_split=name), "validation") for name in names]
    ends = list(itertools.accumulate(len(split) for split in splits))

    def read(rows: range) -> Iterator[Item]:
        for row in rows:
            which = bisect.bisect_right(ends, row)
            split, index = splits[which], row - ends[which] + len(splits[which])
            yield Item(split.name(index), partial(_record, split, index))

    return read


def _record(split: PackedSplit, index: int) -> bytes:
    return split[index][0]


KIND = Kind(_recognises, _survey, _open)
