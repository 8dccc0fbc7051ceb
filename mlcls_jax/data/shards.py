"""Format of a packed data set: `dataset.json`, and shards that hold records.

Shards are ArrayRecord files, called `train-00000-of-00004.array_record` and so on for every split.
A record is one image. Its bytes, little endian:

    0       version of this layout, 1
    1       0
    2…3     n, length of the name
    4…7     K, number of labels
    8…      target, K times int8: 1 present, 0 absent, -1 not annotated
            name, n bytes of UTF-8
            content of the image file, up to the end
"""

import json
import struct
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from mlcls_jax import files
from mlcls_jax.errors import DataError
from mlcls_jax.files import regular
from mlcls_jax.groups import NO_GROUPS, Groups
from mlcls_jax.parsing import shorten

MANIFEST = "dataset.json"
FORMAT = "mlcls_jax packed data set"
VERSION = 1

_HEADER = struct.Struct("<BxHI")


@dataclass(frozen=True)
class Shard:
    """One file of a split."""

    file: str
    images: int
    bytes: int
    sha256: str
    source_sha256: str  # of names, targets and images as they were before packing
    left_out: list[str] = field(default_factory=list)  # why images could not be read


class PackOptions(TypedDict):
    """What `pack` was told."""

    short_side: int | None
    shard_size: int


@dataclass
class Manifest:
    """Content of `dataset.json`."""

    labels: tuple[str, ...]
    options: PackOptions
    source_images: dict[str, int]  # split → images given to `pack`
    shards: dict[str, dict[str, Shard]]  # split → file → those finished
    complete: bool = False
    groups: Groups = NO_GROUPS

    def images(self, split: str) -> int:
        """Return the number of images in the shards of the split."""
        return sum(shard.images for shard in self.shards[split].values())

    def to_json(self) -> str:
        """Return the content of `dataset.json`."""
        splits = {
            split: {
                "images": self.images(split),
                "source_images": count,
                "shards": [asdict(shard) for _, shard in sorted(self.shards[split].items())],
            }
            for split, count in self.source_images.items()
        }
        value = {
            "format": FORMAT,
            "version": VERSION,
            "complete": self.complete,
            "labels": self.labels,
            **(asdict(self.groups) if self.groups else {}),
            "options": self.options,
            "splits": splits,
        }
        return json.dumps(value, indent=1, ensure_ascii=False) + "\n"


def read_manifest(folder: Path) -> Manifest:
    """Read the `dataset.json` of a folder.

    Raises:
      DataError: there is none, or it is not one of ours.
    """
    path = folder / MANIFEST
    try:
        content = regular(path).read_bytes()
    except OSError as error:
        hint = "A packed data set is the folder that `pack` wrote."
        raise DataError(f"{path}: cannot be read: {error.strerror}", hint) from error
    return parse_manifest(content, str(path))


def parse_manifest(content: bytes, place: str) -> Manifest:
    """Parse the content of a `dataset.json`; errors name `place`.

    Raises:
      DataError: it is not one of ours.
    """
    try:
        value: dict[str, Any] = json.loads(content)
        if (value["format"], value["version"]) != (FORMAT, VERSION):
            raise ValueError(f"it is of {value['format']!r}, version {value['version']}")
        shards = {
            split: {shard["file"]: Shard(**shard) for shard in entry["shards"]}
            for split, entry in value["splits"].items()
        }
        for name in (name for split in shards.values() for name in split):
            if Path(name).name != name:  # it may come from a stranger's server
                raise ValueError(f"{name!r} is not the name of a file beside it")
        return Manifest(
            labels=tuple(value["labels"]),
            options=value["options"],
            source_images={s: entry["source_images"] for s, entry in value["splits"].items()},
            shards=shards,
            complete=value["complete"],
            groups=Groups(*(tuple(value.get(k, ())) for k in ("parents", "exclusive"))),
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        cause = shorten(repr(error))
        told = f"{place}: does not describe a packed data set of version {VERSION}: {cause}"
        raise DataError(told, "Pack the data set again, into a new folder.") from error


def encode_record(image: bytes, target: np.ndarray, name: str) -> bytes:
    """Encode the content of an image file, the target [K] of 1, 0 and -1, and a name."""
    encoded = name.encode()
    header = _HEADER.pack(VERSION, len(encoded), len(target))
    return b"".join((header, target.astype(np.int8).tobytes(), encoded, image))


def decode_record(record: bytes) -> tuple[bytes, np.ndarray, str]:
    """Decode content of the image file, target int8 [K] and name; ValueError if it is no record."""
    if len(record) < _HEADER.size or record[0] != VERSION:
        raise ValueError(f"this is no record of version {VERSION}")
    _, name_size, num_labels = _HEADER.unpack_from(record)
    target_end = _HEADER.size + num_labels
    name_end = target_end + name_size
    if len(record) < name_end:
        raise ValueError("the record is cut off")
    target = np.frombuffer(record, np.int8, num_labels, _HEADER.size)
    return record[name_end:], target, record[target_end:name_end].decode()


def size_fault(folder: Path, shard: Shard) -> str | None:
    """Say what is wrong with a shard at first sight."""
    path = folder / shard.file
    if not path.is_file():
        return f"{path}: there is no such file"
    if (size := path.stat().st_size) != shard.bytes:
        return f"{path}: damaged: {size:,} bytes, but {MANIFEST} says {shard.bytes:,}"
    return None


def fault(folder: Path, shard: Shard) -> str | None:
    """Say what is wrong with a shard, its checksum included."""
    path = folder / shard.file
    if (found := size_fault(folder, shard)) is None and files.sha256(path) != shard.sha256:
        found = f"{path}: damaged: its checksum is not that of {MANIFEST}"
    return found
