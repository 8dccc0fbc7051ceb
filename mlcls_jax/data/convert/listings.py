"""What a reader of a format yields, images by name or content with their labels; and the rest.

A reader says which images there are, what is said of each, and where that stands. Finding the
images, joining what several lines say of one, numbering the labels and refusing unknown ones is
done here, once for all formats.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from mlcls_jax.bars import progress
from mlcls_jax.config import Convert
from mlcls_jax.data.convert.places import Places
from mlcls_jax.data.convert.reading import ImageFolder, LeftOut, NamedRow, Reading, index_rows
from mlcls_jax.errors import ConvertFailedError, raise_faults
from mlcls_jax.parsing import shorten

_SUFFIXES = {b"\xff\xd8": ".jpg", b"\x89P": ".png", b"RI": ".webp", b"GI": ".gif", b"BM": ".bmp"}


class Entry(NamedTuple):
    """An image, and what is said of it."""

    image: str | bytes  # its name, or path, or the content of its file
    values: Mapping[str, int]  # label → 1 present, 0 absent, -1 not known
    place: str  # where this stands, for messages
    others: tuple[str, ...] = ()  # other names that its file may have


@dataclass(frozen=True)
class Listing:
    """A data set as a format's reader returns it; entries may be made while they are read."""

    splits: Mapping[str, Iterable[Entry]]  # train; val and test where the source has them
    labels: Sequence[str] = ()  # those that are declared, in their order
    declared_in: str | None = None  # the file that declares them all; None: others may occur
    rest: Literal[0, -1] = 0  # the value of labels of which an entry says nothing
    # Where the images of each split are looked for, before the usual places.
    folders: Mapping[str, Sequence[Path]] = field(default_factory=dict)
    left_out: LeftOut = field(default_factory=dict)  # filled while entries are read
    told: tuple[str, ...] = ()


class Contents:
    """Writes images that lie within other files to images/ of a data set; a fault takes them back.

    A context: what was written is removed if an exception leaves it.
    """

    def __init__(self, root: Path) -> None:
        self._images = root / "images"
        self._is_new = not self._images.exists()
        self._made: list[Path] = []
        self.written = 0

    def __enter__(self) -> "Contents":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            return
        for file in self._made:
            file.unlink(missing_ok=True)
        if self._is_new and self._images.is_dir() and not any(self._images.iterdir()):
            self._images.rmdir()

    def write(self, content: bytes, name: str) -> str:
        """Return the path as listed of an image called `name` without its suffix.

        Raises:
          ConvertFailedError: there is another file of this name.
        """
        file = self._images / f"{name}{_SUFFIXES.get(content[:2], '.tiff')}"
        if not os.path.lexists(file):
            self._images.mkdir(parents=True, exist_ok=True)
            self._made.append(file)
            file.write_bytes(content)
        elif not file.is_file() or file.read_bytes() != content:
            raise ConvertFailedError(f"{file}: is in the way of an image", "Rename it.")
        self.written += 1
        return f"images/{file.name}"


def resolve(
    listing: Listing, root: Path, label_file: Path, options: Convert, contents: Contents
) -> Reading:
    """Return the rows of a listing: images by their paths, labels by their numbers.

    What several entries say of one image is joined: 1 counts before 0, and 0 before -1.

    Raises:
      ConvertFailedError: a label is empty or not declared; tells all of them.
    """
    given = {"train": options.train_images, "val": options.val_images or options.train_images}
    splits: dict[str, list[NamedRow]] = {}
    folders: dict[str, ImageFolder] = {}
    faults: list[str] = []
    known, found = set(listing.labels), dict[str, None]()
    for split, entries in (listing.splits or {"train": []}).items():
        usual = [*listing.folders.get(split, ()), root, root / "images"]
        places = Places(root, given=given.get(split), usual=usual)
        rows: dict[str, dict[str, int]] = {}
        for number, entry in enumerate(progress(entries, desc=split, unit=" images")):
            values = {name.strip(): value for name, value in entry.values.items()}
            for name in values:
                if listing.declared_in and name not in known:
                    told = f"is not among the labels of {listing.declared_in}"
                    faults.append(f"{entry.place}: {shorten(repr(name))} {told}")
                elif not name:
                    faults.append(f"{entry.place}: a label is empty")
            path = _listed(entry, places, contents, f"{split}_{number:07}", listing.left_out)
            if path is None:
                continue
            found |= dict.fromkeys(values)
            values = {name: value for name, value in values.items() if value != listing.rest}
            if path in rows:
                if listing.rest == -1:
                    note_contradictions(path, rows[path], values, -1, listing.left_out)
                values = joined(rows[path], values, listing.rest)
            rows[path] = values
        splits[split] = list(rows.items())
        folders |= places.folders
    raise_faults(ConvertFailedError, faults)
    others = sorted(found.keys() - known)
    labels, indexed = index_rows(splits, label_file, declared=[*listing.labels, *others])
    linked, told = tuple(folders.values()), listing.told
    return Reading(labels, indexed, linked, listing.left_out, told, listing.rest)


def joined(one: Mapping[str, int], other: Mapping[str, int], rest: int) -> dict[str, int]:
    """Return what two say of an image: 1 counts before 0, and 0 before -1."""
    names = one.keys() | other.keys()
    return {name: max(one.get(name, rest), other.get(name, rest)) for name in names}


def note_contradictions(
    image: str, one: Mapping[str, int], other: Mapping[str, int], rest: int, left_out: LeftOut
) -> None:
    """Note the labels that one of two entries of an image says are present, the other absent."""
    for name in one.keys() | other.keys():
        if {one.get(name, rest), other.get(name, rest)} == {0, 1}:
            told = f"{image}: {name}"
            left_out.setdefault("zeros where the same image has a 1, too", []).append(told)


def _listed(
    entry: Entry, places: Places, contents: Contents, name: str, left_out: LeftOut
) -> str | None:
    """Return the path of an entry's image as listed; None, and a remark, if there is none."""
    if isinstance(entry.image, bytes):
        if entry.image:
            return contents.write(entry.image, name)
        left_out.setdefault("rows without an image", []).append(entry.place)
        return None
    names = (entry.image, *entry.others)
    found = next((n for n in names if places.has(n)), names[0]) if entry.others else names[0]
    return places.listed(found, left_out)
