"""WebDataset's shards: tar files in which KEY.jpg stands beside KEY.json, KEY.cls or KEY.txt.

`.cls` is a number or a text; `.txt` a label a line; `.json` has the labels at one of the usual
names, as a list of texts or numbers, one of these, or an object {label: 1, 0 or -1}. Numbers get
the names of `classes.txt` or `label.txt` beside the shards.
"""

import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

from mlcls_jax.config import Convert
from mlcls_jax.data.convert.dataset_format import Format, Sign, file_ending
from mlcls_jax.data.convert.listings import Entry, Listing
from mlcls_jax.data.convert.parquet_tables import LABELS
from mlcls_jax.data.convert.reading import SPLIT_FOLDERS, annotation_text, split_of_file
from mlcls_jax.data.image_files import is_image_name
from mlcls_jax.data.lists import label_names
from mlcls_jax.errors import ConvertFailedError
from mlcls_jax.files import regular
from mlcls_jax.parsing import parse_json, shorten

_NAMES = "classes.txt"
_KINDS = ("json", "cls", "txt")
# Bytes of a file, a sample and a header: each is read into memory, and a shard may be compressed.
_MAX_LABELS, _MAX_IMAGE, _MAX_HEADER = 2**20, 2**29, 2**20


class _Member(tarfile.TarInfo):
    """A member whose headers are bounded."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        found = super().frombuf(buf, encoding, errors)
        if found.type not in tarfile.REGULAR_TYPES and found.size > _MAX_HEADER:
            raise tarfile.ReadError(f"a header of {found.size:,} bytes")
        return found


def read(root: Path, label_file: Path, options: Convert) -> Listing:
    """Read the shards in the order of their names, which tell what they are for."""
    files = [root / options.train_annotations] if options.train_annotations else _shards(root)
    if not files:
        raise ConvertFailedError(f"{root}: there are no tar files")
    splits: dict[str, list[Path]] = {}
    for path in files:
        splits.setdefault(split_of_file(path), []).append(path)
    if options.val_annotations:
        splits["val"] = [root / options.val_annotations]
    names: list[str] = []
    if (root / _NAMES).is_file():
        lines = annotation_text(root / _NAMES, kind="list").splitlines()
        names = [line.strip() for line in lines if line.strip()]
    elif label_file.is_file():
        names = [*label_names(label_file, kind=ConvertFailedError)]
    return Listing({split: _entries(paths, names) for split, paths in splits.items()}, names)


def _shards(root: Path) -> list[Path]:
    places = (root, *(root / name for name in SPLIT_FOLDERS))
    return sorted(path for place in places for path in place.glob("*.tar"))


def _entries(paths: Sequence[Path], names: list[str]) -> Iterator[Entry]:
    """Yield the samples: files side by side whose names are the same up to the first point.

    Raises:
      ConvertFailedError: a shard is damaged, or a sample has no labels that can be read.
    """
    for path in paths:
        key, parts = None, dict[str, bytes]()
        try:
            # Nothing of it is unpacked by its name.
            with tarfile.open(regular(path), "r|*", tarinfo=_Member) as shard:
                for member in shard:
                    folder, _, name = member.name.rpartition("/")
                    stem, _, kind = name.partition(".")
                    if not member.isfile() or not stem or not kind:
                        continue
                    if (folder, stem) != key and key is not None:
                        yield from _sample(path, "/".join(key), parts, names)
                        parts = {}
                    key, kind = (folder, stem), kind.lower()
                    size = member.size + sum(map(len, parts.values()))
                    if (member.size > _MAX_LABELS and kind in _KINDS) or size > _MAX_IMAGE:
                        raise ConvertFailedError(f"{path}: {member.name}: is too large")
                    file = shard.extractfile(member)
                    if file and (kind in _KINDS or is_image_name(f"x.{kind}")):
                        parts[kind] = file.read()
        except (tarfile.TarError, EOFError, OSError) as error:
            raise ConvertFailedError(f"{path}: is no tar file, or cut off: {error}") from error
        if key:
            yield from _sample(path, "/".join(key), parts, names)


def _sample(path: Path, key: str, parts: dict[str, bytes], names: list[str]) -> Iterator[Entry]:
    place = f"{path}: {key}"
    images = [content for kind, content in parts.items() if kind not in _KINDS]
    kind = next((kind for kind in _KINDS if kind in parts), None)
    if not images:
        return
    if kind is None or len(images) > 1:
        raise ConvertFailedError(f"{place}: has {len(images)} images and no json, cls or txt")
    yield Entry(images[0], _values(parts[kind], kind, names, f"{place}.{kind}"), place)


def _values(content: bytes, kind: str, names: list[str], place: str) -> dict[str, int]:
    """Return the labels of a sample.

    Raises:
      ConvertFailedError: there are none that can be read.
    """
    found: Any
    if kind == "json":
        found = parse_json(content, place, ConvertFailedError)
        if isinstance(found, dict):
            found = next((found[key] for key in LABELS if key in found), None)
    else:
        try:
            lines = content.decode("utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise ConvertFailedError(f"{place}: is not UTF-8") from error
        found = [line.strip() for line in lines if line.strip()]
        if kind == "cls" and names:
            found = [int(name) if name.isdecimal() and len(name) < 9 else name for name in found]
    if isinstance(found, dict) and all(value in (1, 0, -1) for value in found.values()):
        return {str(name): int(value) for name, value in found.items()}
    found = found if isinstance(found, list) else [found]
    if not all(isinstance(one, int | str) and not isinstance(one, bool) for one in found):
        raise ConvertFailedError(
            f"{place}: no labels: {shorten(found)}", f"They are at one of {', '.join(LABELS)}."
        )
    wrong = [one for one in found if isinstance(one, int) and names and not 0 <= one < len(names)]
    if wrong:
        raise ConvertFailedError(f"{place}: label {wrong[0]}, but there are {len(names)} names")
    return {names[one] if names and isinstance(one, int) else str(one): 1 for one in found}


def _usual(folder: Path) -> Iterator[Sign]:
    if files := _shards(folder):
        yield Sign(f"WebDataset's shards ({files[0].name}{', …' if len(files) > 1 else ''})")


FORMAT = Format(
    read,
    "WebDataset (*.tar of images with .json, .cls or .txt)",
    _usual,
    of_file=file_ending("WebDataset's shard", ".tar"),
)
