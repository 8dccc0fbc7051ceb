"""The files of a data set against its lists: unlisted, missing, spelled otherwise, linked away."""

import os
import posixpath
import unicodedata
from bisect import bisect_left
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np

from mlcls_jax.data.check_tables import Images, Lines
from mlcls_jax.data.findings import Collector, Finding
from mlcls_jax.readable import printable


def report_missing_and_unlisted(
    root: Path, lines: Lines, images: Images, findings: Collector
) -> None:
    """Report both together, because a missing image may be a file that is spelled otherwise."""
    missing = images.lines[~images.is_there]
    alike = {_spelling(lines.image(line)): "" for line in missing}  # → file that is spelled alike
    listed = np.sort(lines.path)
    for file, is_listed in _files(root / "images", listed, alike):
        spelling = _spelling(file) if alike else ""
        if alike.get(spelling) == "":
            alike[spelling] = file
        elif not is_listed:
            findings.add(Finding("unlisted", printable(file), "is in no list"))
    for line in missing:
        image, message = lines.image(line), "there is no such image"
        kind = "missing_image"
        if file := alike[_spelling(image)]:
            kind = "backslash" if "\\" in image else "spelling"
            message += f", but there is {file}"
        findings.add(Finding(kind, lines.place(line), f"{image}: {message}", image))


def link_out(root: Path, image: str, folders: set[str], *, is_link: bool) -> str | None:
    """Return the part of an image's path that is a link out of `root`.

    `is_link` says whether the image itself is one; a folder is told once, and then is in `folders`.
    """
    path = posixpath.normpath(image)
    folder = posixpath.dirname(path)
    parts = [path] if is_link else []
    while folder and folder not in folders:
        folders.add(folder)
        parts.append(folder)
        folder = posixpath.dirname(folder)
    top = os.path.realpath(root) if parts else ""
    for part in reversed(parts):  # the topmost first
        target = os.path.realpath(root / part)
        if os.path.islink(root / part) and os.path.commonpath([top, target]) != top:
            return part
    return None


def _files(images: Path, listed: np.ndarray, alike: Collection[str]) -> Iterator[tuple[str, bool]]:
    """Yield the files below images/, and whether they are among the sorted hashes `listed`.

    Of those that are, only the ones whose spelling is in `alike` are given. Nothing is given of
    folders behind links that is not listed: they may hold what belongs to other data sets. Only
    what is given is kept and sorted: a folder may hold millions that are listed.
    """
    seen: set[str] = set()
    waiting = [(images, "images", False)]
    while waiting:
        folder, name, is_linked = waiting.pop()
        found, folders = [], []
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    file = f"{name}/{entry.name}"
                    if entry.name.startswith("."):
                        continue
                    if entry.is_dir():
                        folders.append((entry.name, is_linked or entry.is_symlink()))
                        continue
                    place = bisect_left(listed, hash(file))
                    is_listed = place < len(listed) and listed[place] == hash(file)
                    is_wanted = bool(alike) and _spelling(file) in alike
                    if is_wanted or not (is_listed or is_linked):
                        found.append((file, is_listed))
        except OSError:  # it may not be read
            continue
        yield from sorted(found)
        for inner, is_linked in sorted(folders, reverse=True):
            if is_linked:  # only for the spelling, and each once
                target = os.path.realpath(folder / inner)
                if not alike or target in seen:
                    continue
                seen.add(target)
            waiting.append((folder / inner, f"{name}/{inner}", is_linked))


def _spelling(path: str) -> str:
    """Return a path without differences in case, form of accents and kind of slash."""
    path = posixpath.normpath(path.replace("\\", "/"))
    return unicodedata.normalize("NFC", path).casefold()
