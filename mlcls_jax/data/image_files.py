"""Image files: which they are, where they lie in folders, and reading them, still encoded."""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mlcls_jax.data.left_out import LeftOut
from mlcls_jax.errors import DataError, InputError
from mlcls_jax.files import regular

# Pillow's suffixes of FORMATS, and OpenCV's ".sr": what is decoded when named is found in folders.
IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".gif", ".tif", ".tiff"),
    *(".bmp", ".dib", ".pbm", ".pgm", ".ppm", ".pnm", ".pfm", ".ras", ".sr"),
)
OTHER_SUFFIX = "files without the suffix of an image"
SUFFIX_HINT = f"An image ends in one of: {', '.join(IMAGE_SUFFIXES)}."


def read_file(path: str | Path) -> bytes:
    """Read the content of an image file, still encoded.

    Raises:
      DataError: it cannot be read; names the file.
    """
    try:
        return regular(path).read_bytes()
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such file", hint="Check the path.") from error
    except IsADirectoryError as error:
        hint = "Name one image, or list the folder with list_images."
        raise DataError(f"{path}: this is a folder, not an image", hint=hint) from error
    except (OSError, ValueError) as error:  # ValueError: a path with a zero byte in it
        cause = getattr(error, "strerror", None) or error
        hint = "Check the permissions of the file."
        raise DataError(f"{path}: cannot be opened: {cause}", hint=hint) from error


@dataclass(frozen=True)
class Files:
    """Image files as a source; each has all of its labels, of which there may be none."""

    paths: Sequence[Path]
    labels: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[bytes, np.ndarray]:
        return read_file(self.paths[index]), np.ones(len(self.labels), np.float32)

    def name(self, index: int) -> str:
        return str(self.paths[index])

    place = name


def list_images(path: str | Path) -> list[Path]:
    """List the images of a folder and its subfolders, sorted; a file gives itself.

    `walk_images` says which files these are.

    Raises:
      InputError: there is no such path, or no image in the folder.
    """
    path = Path(path)
    if path.is_file():
        return [path]
    if not path.exists():
        raise InputError(f"{path}: there is no such file or folder", hint="Check the path.")
    if not path.is_dir():
        raise InputError(f"{path}: is a pipe or a device, not an image or a folder")
    found = []
    for file in walk_images(path):
        if isinstance(file, DataError):
            raise InputError(file.message, file.hint)
        found.append(file)
    if not found:
        raise InputError(f"{path}: no image in this folder", hint=SUFFIX_HINT)
    return found


def walk_images(
    folder: Path, leave_out: Callable[[str, Path], None] | None = None
) -> Iterator[Path | DataError]:
    """Yield what `list_images` lists; in place of a folder that cannot be read, an error.

    A folder's images are known by IMAGE_SUFFIXES in any case. Hidden files and folders are passed
    over. Linked folders are followed, but only once each, and not where they lead back to what is
    walked anyway. Of everything else that is left out, `leave_out` is told why and what; without
    it, a warning counts it. Only one folder per level is in memory, as names.
    """
    left_out = LeftOut()
    yield from _walk(folder, leave_out or left_out.add)
    left_out.warn(folder)


def _walk(folder: Path, leave_out: Callable[[str, Path], None]) -> Iterator[Path | DataError]:
    top = Path(os.path.realpath(folder))
    followed: set[tuple[int, int]] = set()
    # Not by recursion, as paths may be deeper than Python's stack: where, name, whether it is a
    # folder, whether a link is on the way there from `folder`.
    waiting = [(folder, "", True, False)]
    while waiting:
        here, name, is_folder, is_linked = waiting.pop()
        path = here / name
        if not is_folder:
            yield path
            continue
        try:
            if is_linked and not _is_new(path, top, followed):
                leave_out("linked folders that are walked on another way", path)
                continue
            inside = _entries(path, leave_out)
        except OSError as error:
            hint = "Check the permissions of the folder."
            yield DataError(f"{path}: this folder cannot be read: {error.strerror}", hint)
            continue
        for name, is_folder, is_link in reversed(inside):
            waiting.append((path, name, is_folder, is_linked or is_link))


def _entries(folder: Path, leave_out: Callable[[str, Path], None]) -> list[tuple[str, bool, bool]]:
    """Return images and folders, sorted by name: name, whether a folder, whether a link."""
    found = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            is_folder = is_file = False
            with contextlib.suppress(OSError):  # a link in a circle, or to where one may not look
                is_folder, is_file = entry.is_dir(), entry.is_file()
            if is_folder or (is_file and is_image_name(entry.name)):
                # Folders among files: the order of sorted paths.
                found.append((entry.name, is_folder, entry.is_symlink()))
            elif is_file:
                leave_out(OTHER_SUFFIX, folder / entry.name)
            else:
                why = "links that lead nowhere" if entry.is_symlink() else "pipes, devices and such"
                leave_out(why, folder / entry.name)
    return sorted(found)


def _is_new(linked: Path, top: Path, followed: set[tuple[int, int]]) -> bool:
    """Return whether a folder behind a link is neither in `followed` nor walked without that link.

    A new one is put into `followed`.
    """
    target = Path(os.path.realpath(linked))
    if top.is_relative_to(target):
        return False
    if target.is_relative_to(top):
        below = target.relative_to(top).parts
        if not any(part.startswith(".") for part in below):  # hidden ones are not walked
            return False
    status = os.stat(target)
    identity = (status.st_dev, status.st_ino)
    is_new = identity not in followed
    followed.add(identity)
    return is_new


def is_image_name(name: str) -> bool:
    """Return whether a file of this name is taken for an image in folders."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES
