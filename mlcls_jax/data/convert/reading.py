"""Shared by the readers of all formats: the form they read into, and how images are listed."""

import csv
import io
import os
import posixpath
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from mlcls_jax.config import Convert
from mlcls_jax.data.image_files import walk_images
from mlcls_jax.data.lists import labels_there
from mlcls_jax.errors import ConvertFailedError, DataError
from mlcls_jax.files import regular
from mlcls_jax.parsing import parse_json
from mlcls_jax.readable import printable

# Path as listed, and 1, 0 or -1 by index or by name of the labels that the source speaks of.
Row = tuple[str, Mapping[int, int]]
NamedRow = tuple[str, Mapping[str, int]]
LeftOut = dict[str, list[str]]  # why → what

# What files and folders of each split are called.
SPLIT_NAMES = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}
SPLIT_FOLDERS = tuple(name for names in SPLIT_NAMES.values() for name in names)


def split_of(*names: str) -> str | None:
    """Return the split that one of these names of folders or tags is usual for, in any case."""
    known = {name.strip().lower() for name in names}
    return next((split for split, usual in SPLIT_NAMES.items() if known & {*usual}), None)


def split_of_file(path: PurePath) -> str:
    """Return the split that a file's name, or else its folder's, begins with; or else train."""
    names = (path.name.lower(), path.parent.name.lower())
    return next(
        (s for n in names for s, usual in SPLIT_NAMES.items() if n.startswith(usual)), "train"
    )


class ImageFolder(NamedTuple):
    """A folder of images and its name in lists, which may have to become a link to it."""

    path: Path
    listed: str  # images/…


class Reading(NamedTuple):
    """A data set of any format, in memory."""

    labels: tuple[str, ...]
    splits: dict[str, list[Row]]  # train; val and test where the source has them
    folders: tuple[ImageFolder, ...]
    left_out: LeftOut
    told: tuple[str, ...] = ()  # how a file was read where that is not a matter of course
    rest: int = 0  # the value of labels of which a row says nothing: 0 or -1


def annotation_text(path: Path, *, kind: str) -> str:
    """Return the content of a list or image set, `kind` in the message where there is none.

    Raises:
      ConvertFailedError: there is no such file, or it is not UTF-8.
    """
    try:
        content = regular(path).read_bytes()
        return content.decode("utf-8-sig")
    except FileNotFoundError as error:
        raise ConvertFailedError(
            f"{path}: there is no such {kind}",
            "Check check_dataset.convert.train_annotations and val_annotations.",
        ) from error
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConvertFailedError(
            f"{path}:{line}: is not UTF-8: {error}", "Save it as UTF-8."
        ) from error


def annotation_json(path: Path) -> Any:
    """Return the value of a JSON file.

    Raises:
      ConvertFailedError: it is malformed.
      OSError: it is not there, or cannot be read.
    """
    return parse_json(regular(path).read_bytes(), path, ConvertFailedError)


def csv_rows(path: Path, *, columns: Collection[str] = ()) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield place and cells of the lines of a CSV file with a header.

    Raises:
      ConvertFailedError: it is not there, not UTF-8, no CSV, or lacks one of the columns.
    """
    text = io.StringIO(annotation_text(path, kind="file"), newline="")
    lines = csv.DictReader(text, strict=True)
    try:
        if not {*(lines.fieldnames or ())}.issuperset(columns):
            raise ConvertFailedError(f"{path}:1: has no columns {', '.join(sorted(columns))}")
        for line in lines:
            yield f"{path}:{lines.line_num}", dict(line)
    except csv.Error as error:
        raise ConvertFailedError(f"{path}:{lines.line_num}: is not CSV: {error}") from error


def image_folder(root: Path, folder: Path) -> ImageFolder:
    """Return the name under which the data set in `root` lists the images of `folder`.

    Every listed path lies in images/. A folder elsewhere is to be linked from there, by its name;
    inside `root` by its whole path: train/photos → images/train_photos.

    Raises:
      ConvertFailedError: there is no such folder, or it cannot be linked.
    """
    folder, images = (Path(os.path.abspath(path)) for path in (folder, root / "images"))
    if not folder.is_dir():
        raise ConvertFailedError(
            f"{folder}: there is no such folder of images",
            "Set check_dataset.convert.train_images and val_images to the images' folders.",
        )
    if folder == images or images in folder.parents:
        return ImageFolder(folder, folder.relative_to(images.parent).as_posix())
    if folder in images.parents:
        raise ConvertFailedError(
            f"{folder}: this folder holds images/ and cannot be linked from there",
            f"Move the images into a folder of their own, such as {images}.",
        )
    inside = images.parent in folder.parents
    parts = folder.relative_to(images.parent).parts if inside else (folder.name,)
    return ImageFolder(folder, f"images/{'_'.join(parts)}")


def listed_path(folder: ImageFolder, name: str, left_out: LeftOut) -> str | None:
    """Return the path of image `name` as listed; None, and a remark, if it cannot be listed."""
    path = posixpath.normpath(f"{folder.listed}/{name}")
    file = folder.path / path[len(folder.listed) + 1 :]
    if not path.startswith(f"{folder.listed}/"):
        left_out.setdefault("images outside their folder", []).append(name)
    elif not fits_line(path) or "\t" in path:
        reason = "images with tabs, line ends, a blank at the end or no UTF-8 in their names"
        left_out.setdefault(reason, []).append(ascii(name))  # others might not even be printable
    elif not os.path.isfile(file):  # Path.is_file raises for names that are too long
        left_out.setdefault("missing images", []).append(str(file))
    else:
        return path
    return None


def fits_line(name: str) -> bool:
    """Return whether a name can stand in a line: UTF-8 without line ends and outer blanks."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return bool(name) and name == name.strip() and "\n" not in name and "\r" not in name


def images_below(folder: Path, left_out: LeftOut) -> list[str]:
    """List the images in a folder and its subfolders, relative to it, as `walk_images` does.

    Raises:
      ConvertFailedError: a folder cannot be read.
    """

    def leave_out(why: str, path: Path) -> None:
        left_out.setdefault(why, []).append(printable(str(path)))

    found = []
    for image in walk_images(folder, leave_out):
        if isinstance(image, DataError):
            raise ConvertFailedError(image.message, image.hint)
        found.append(image.relative_to(folder).as_posix())
    return found


def annotation_files(
    root: Path, options: Convert, usual: Callable[[str], Iterable[Path]]
) -> dict[str, Path]:
    """Return the files of splits that the options name, or else those at `usual_places`."""
    given = {"train": options.train_annotations, "val": options.val_annotations}
    return {split: root / name for split, name in given.items() if name} or usual_places(usual)


def usual_places(places: Callable[[str], Iterable[Path]]) -> dict[str, Path]:
    """Find the place of each split that exists; `places` gives the candidates for a split's name.

    Raises:
      ConvertFailedError: several are there for one split.
    """
    usual = {}
    for split, names in SPLIT_NAMES.items():
        found = [path for name in names for path in places(name) if path.exists()]
        if len(found) > 1:
            what = "folders" if found[0].is_dir() else "files"
            raise ConvertFailedError(
                f"several {what} for {split}: {', '.join(map(str, found))}",
                f"Choose by check_dataset.convert.{split}_annotations or {split}_images.",
            )
        if found:
            usual[split] = found[0]
    return usual


def index_rows(
    splits: Mapping[str, list[NamedRow]], label_file: Path, *, declared: Sequence[str] = ()
) -> tuple[tuple[str, ...], dict[str, list[Row]]]:
    """Return the labels, and rows with their indices.

    The order of `label_file` is kept if it names all labels that occur; else they are sorted, or
    as they are `declared`, of which none needs to occur.
    """
    found = {name for rows in splits.values() for _, names in rows for name in names}
    found |= set(declared)
    known = [label.name for label in labels_there(label_file)]
    labels = tuple(known if found <= {*known} else declared or sorted(found))
    index = {name: i for i, name in enumerate(labels)}
    return labels, {
        split: [(path, {index[name]: v for name, v in values.items()}) for path, values in rows]
        for split, rows in splits.items()
    }
