"""Packed data sets, which `data/pack.py` writes and `data/shards.py` describes."""

import bisect
import hashlib
import itertools
import logging
import shutil
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from mlcls_jax import files
from mlcls_jax.bars import progress
from mlcls_jax.config import Data
from mlcls_jax.data.fingerprint import digest
from mlcls_jax.data.shards import (
    MANIFEST,
    Manifest,
    Shard,
    decode_record,
    parse_manifest,
    read_manifest,
    size_fault,
)
from mlcls_jax.data.types import Split
from mlcls_jax.errors import DataError
from mlcls_jax.remote import download, open_store, store_errors

log = logging.getLogger(__name__)

DOWNLOADS = 8  # at once
HINT = "Run the `pack` command that wrote it again: it keeps good shards. Or copy it again."


class PackedSplit:
    """The records of one split's shards, one after the other."""

    def __init__(self, folder: Path, manifest: Manifest, shards: Iterable[Shard]) -> None:
        from array_record.python.array_record_data_source import ArrayRecordDataSource

        self.labels, self.groups = manifest.labels, manifest.groups
        shards = list(shards)
        self._checksums = [shard.sha256 for shard in shards]
        counts = {folder / shard.file: shard.images for shard in shards}
        self._files = list(counts)
        self._ends = list(itertools.accumulate(counts.values()))
        # As the counts are given, files are opened at their first use, in each process anew.
        self._records = ArrayRecordDataSource([f"{file}[0:{n}]" for file, n in counts.items()])

    def __len__(self) -> int:
        return self._ends[-1]

    def fingerprint(self) -> dict[str, str]:
        """Return a digest of the shards' checksums."""
        return {"shards": digest(checksum.encode() for checksum in self._checksums)}

    def __getitem__(self, index: int) -> tuple[bytes, np.ndarray]:
        image, target, _ = self._read(index)
        return image, target.astype(np.float32)

    def name(self, index: int) -> str:
        try:
            return self._read(index)[2]
        except DataError:
            return self._record(index)

    def place(self, index: int) -> str:
        return f"{self._record(index)}: {self.name(index)}"

    def _read(self, index: int) -> tuple[bytes, np.ndarray, str]:
        record = self._record(index)
        try:
            image, target, name = decode_record(self._records[index])
        except (RuntimeError, ValueError) as error:  # of array_record; of `decode_record`
            raise DataError(f"{record}: cannot be read: {error}", HINT) from error
        if len(target) != len(self.labels):
            counts = f"{len(target)} values, but {MANIFEST} has {len(self.labels)} labels"
            raise DataError(f"{record}: {counts}", HINT)
        return image, target, name

    def _record(self, index: int) -> str:
        shard = bisect.bisect_right(self._ends, index)
        first = self._ends[shard - 1] if shard else 0
        return f"{self._files[shard]}: record {index - first}"


def open_split(config: Data, split: Split) -> PackedSplit:
    """Open the split that `train_split` or `val_split` names, of the packed data in `config.dir`.

    `dir` is a folder, or a URL that fsspec knows, such as gs://bucket/folder or s3://…: the
    split's shards are fetched once into the user's cache folder.

    Raises:
      DataError: there is no such data set or split, it is unfinished, or shards are missing or
        not of their size; names each of them.
    """
    name = config.train_split if split == "train" else config.val_split
    if "://" in config.folder:
        folder, manifest = _fetch(config.folder.rstrip("/"), name)
    else:
        folder = Path(config.folder)
        manifest = read_manifest(folder)
        _require_split(manifest, name, str(folder / MANIFEST))
        faults = (size_fault(folder, shard) for shard in manifest.shards[name].values())
        if told := list(filter(None, faults)):
            raise DataError("\n".join(told), HINT)
    return PackedSplit(folder, manifest, manifest.shards[name].values())


def _require_split(manifest: Manifest, name: str, place: str) -> None:
    if not manifest.complete:
        raise DataError(f"{place}: packing was not finished", "Run the `pack` command again.")
    there = [split for split in manifest.shards if manifest.images(split)]
    if name not in there:
        told = f"{place}: has no images of {name}, but of {', '.join(there)}"
        raise DataError(told, "Set data.train_split and data.val_split.")


def _fetch(url: str, split: str) -> tuple[Path, Manifest]:
    """Return a folder of the cache, with the split's shards; those that it lacks are fetched."""
    place = f"{url}/{MANIFEST}"
    with store_errors(place, DataError, "Check data.dir and its permissions."):
        store, root = open_store(url)
        content = store.cat_file(f"{root}/{MANIFEST}")
    manifest = parse_manifest(content, place)
    _require_split(manifest, split, place)
    # Named after what it holds, so that a data set packed anew is fetched anew.
    folder = files.cache_folder("packed") / hashlib.sha256(content).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    shards = list(manifest.shards[split].values())
    missing = [shard for shard in shards if size_fault(folder, shard)]
    size = sum(shard.bytes for shard in missing)
    log.info(
        "%s: %d of the %d shards of %s, %.1f MB, are being downloaded to %s.",
        *(url, len(missing), len(shards), split, size / 1e6, folder),
    )
    if size > (free := shutil.disk_usage(folder).free):
        told = f"{folder}: {size / 1e9:.1f} GB are to be fetched, but {free / 1e9:.1f} GB are free"
        raise DataError(told, "Set XDG_CACHE_HOME to keep caches elsewhere.")

    def fetch(shard: Shard) -> str | None:
        source = f"{url}/{shard.file}"

        def check(file: Path) -> None:
            if files.sha256(file) != shard.sha256:
                raise DataError(f"{source}: damaged: its checksum is not that of {MANIFEST}")

        try:
            download(
                lambda path: store.get_file(f"{root}/{shard.file}", str(path)),
                folder / shard.file,
                check=check,
            )
        except DataError as error:
            return error.message
        except Exception as error:  # noqa: BLE001 (each store raises its own kinds)
            return f"{source}: cannot be fetched: {error!r}"
        return None

    with ThreadPoolExecutor(DOWNLOADS) as pool:
        faults = pool.map(fetch, missing)
        bar = progress(faults, total=len(missing), desc="fetching", unit="shard")
        if told := list(filter(None, bar)):
            raise DataError("\n".join(told), "Run it again: what was fetched is kept.")
    return folder, manifest
