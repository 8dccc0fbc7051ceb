"""Other formats made an MLClsDataset: label.txt and lists are written, images stay.

A new format is one file and one line in `FORMATS`.
"""

import os
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple, TextIO

from mlcls_jax.config import Convert, Data
from mlcls_jax.data.backups import recover, replace_files
from mlcls_jax.data.convert import (
    coco,
    csv_list,
    cvat,
    datumaro,
    fiftyone,
    folder,
    imagenet_txt,
    label_studio,
    labelme,
    numbered,
    nuswide,
    openimages,
    parquet_tables,
    roboflow,
    voc,
    webdataset,
    yolo,
)
from mlcls_jax.data.convert.dataset_format import Format
from mlcls_jax.data.convert.listings import Contents, Listing, resolve
from mlcls_jax.data.convert.reading import ImageFolder, LeftOut, Reading, Row, fits_line
from mlcls_jax.data.lists import COLUMNS, MAX_NAME, TEST_LIST, Label, find_root, labels_there
from mlcls_jax.errors import ConvertFailedError, DataError, raise_faults
from mlcls_jax.parsing import shorten
from mlcls_jax.readable import printable

# Name in check_dataset.convert.source_type → the format; the first that takes a file has it.
FORMATS: dict[str, Format] = {
    "coco": coco.FORMAT,
    "label_studio": label_studio.FORMAT,
    "cvat": cvat.FORMAT,
    "datumaro": datumaro.FORMAT,
    "imagenet_txt": imagenet_txt.FORMAT,
    "fiftyone": fiftyone.FORMAT,
    "labelme": labelme.FORMAT,
    "openimages": openimages.FORMAT,
    "yolo": yolo.FORMAT,
    "nuswide": nuswide.FORMAT,
    "webdataset": webdataset.FORMAT,
    "roboflow": roboflow.FORMAT,
    "csv": csv_list.FORMAT,
    "folder": folder.FORMAT,
    "numbered": numbered.FORMAT,
    "parquet": parquet_tables.FORMAT,
    "voc": voc.FORMAT,
}


class Conversion(NamedTuple):
    """Result of a conversion."""

    root: Path  # of the data set
    labels: tuple[str, ...]
    images: dict[str, int]  # split → images in its list; train, val and test as far as there are
    links: dict[str, Path]  # images/… → the folder that it was made a link to
    backups: dict[str, str]  # file → what it is called now
    left_out: LeftOut  # why → boxes and images
    told: tuple[str, ...]  # how files were read that may be read in several ways
    written: int  # images that lay within other files


def convert(data: Data, options: Convert, into: Path | None = None) -> Conversion:
    """Make the folder `data.dir` an MLClsDataset that trains and passes the check.

    With `into` that folder becomes one instead, with links to the images. Writes data.label_file,
    data.train_list, data.val_list and test.txt as far as the source has them, and takes away lists
    of these names that it has not: they do not fit the new labels. What was there becomes a backup.
    Image folders outside images/ are linked from there; images are neither moved nor copied.

    Raises:
      ConvertFailedError: the source is missing or malformed; lists every fault. All is as it was.
    """
    try:
        root = _find_root(Path(data.folder), options)
        target = into or root
        names = {"test": TEST_LIST, "val": data.val_list, "train": data.train_list}
        recover(target, {data.label_file, *names.values()})
        with Contents(target) as contents:
            reading = _read(root, root / data.label_file, options, contents)
            if into:
                reading = _apart(reading, root)
            writers = dict.fromkeys(names.values()) | {
                names[split]: partial(_write_rows, rows=rows, reading=reading)
                for split, rows in reading.splits.items()
            }
            writers[data.label_file] = partial(
                _write_labels, labels=reading.labels, before=labels_there(root / data.label_file)
            )
            with _links(target, reading.folders) as links:
                backups = replace_files(target, writers)
    except OSError as error:
        raise ConvertFailedError(f"{error.filename or data.dir}: {error.strerror}") from error
    except DataError as error:
        raise ConvertFailedError(error.message, error.hint) from error
    images = {split: len(rows) for split, rows in reading.splits.items()}
    return Conversion(
        target,
        reading.labels,
        images,
        links,
        backups,
        reading.left_out,
        reading.told,
        contents.written,
    )


def _read(root: Path, label_file: Path, options: Convert, contents: Contents) -> Reading:
    """Return what a format's reader finds, if it can be written.

    Raises:
      ConvertFailedError: nothing is left, or labels cannot stand in label.txt.
    """
    if options.source_type == "auto":
        raise ConvertFailedError("source_type=auto: name the format here", f"One of: {[*FORMATS]}")
    reading = FORMATS[options.source_type].read(root, label_file, options)
    if isinstance(reading, Listing):
        reading = resolve(reading, root, label_file, options, contents)
    if not options.keep_empty:
        reading = _drop_empty(reading)
    _check(reading)
    return reading


def remarks(conversion: Conversion) -> list[str]:
    """Return what a person should know of a conversion, one line each."""
    lines = doubts(conversion)
    if "val" not in conversion.images:
        lines.append(
            "there are no validation images: mode=check_dataset divides the training images, as"
            " check_dataset.split.enable=True does"
        )
    return lines


def doubts(conversion: Conversion) -> list[str]:
    """Return what was left out, and which labels look odd, one line each."""
    lines = [f"left out {_count(why, what)}" for why, what in conversion.left_out.items()]
    return [*lines, *_doubtful(conversion.labels)]


def _doubtful(labels: Sequence[str]) -> Iterator[str]:
    """Yield what looks like one label in several spellings, or like an empty cell."""
    alike: dict[str, list[str]] = {}
    for label in labels:
        alike.setdefault(unicodedata.normalize("NFKC", label).casefold(), []).append(label)
    for names in alike.values():
        if len(names) > 1:
            yield f"labels that differ in little stay apart: {', '.join(map(repr, names))}"
    for name in alike.keys() & {"nan", "none", "null", "na", "n/a"}:
        yield f"the label {alike[name][0]!r} is kept: empty its cells if it means none"


def _count(why: str, what: Sequence[str]) -> str:
    examples = ", ".join(shorten(printable(example)) for example in what[:3])
    return f"{len(what)} {why}: {examples}{', …' if len(what) > 3 else ''}"


def _find_root(folder: Path, options: Convert) -> Path:
    """`folder`; of COCO in PaddleX's layout, which may be nested, the one that holds images/."""
    if not folder.is_dir():
        raise ConvertFailedError(f"{folder}: there is no such folder", "Check the path.")
    if options.source_type != "coco" or options.train_annotations:
        return folder
    if (folder / "annotations").is_dir():
        return folder
    try:
        return find_root(folder)
    except DataError:
        return folder


def _drop_empty(reading: Reading) -> Reading:
    empty = [
        path for rows in reading.splits.values() for path, row in rows if 1 not in row.values()
    ]
    splits = {
        split: [(path, row) for path, row in rows if 1 in row.values()]
        for split, rows in reading.splits.items()
    }
    left_out = reading.left_out | ({"images without labels": empty} if empty else {})
    return reading._replace(splits=splits, left_out=left_out)


def _apart(reading: Reading, root: Path) -> Reading:
    """Return what another folder lists: images/ is no link there, since it holds the links."""
    names = {listed for _, listed in reading.folders}
    if "images" not in names:
        return reading
    inner = f"images/{root.resolve().name}"
    while inner in names:
        inner += "_"

    def moved(path: str) -> str:
        is_inside = any(f"{path}/".startswith(f"{name}/") for name in names - {"images"})
        return path if is_inside else f"{inner}{path.removeprefix('images')}"

    splits = {
        split: [(moved(path), row) for path, row in rows] for split, rows in reading.splits.items()
    }
    folders = tuple(
        ImageFolder(path, moved(f"{listed}/").rstrip("/")) for path, listed in reading.folders
    )
    return reading._replace(splits=splits, folders=folders)


def _check(reading: Reading) -> None:
    empty = [split for split, rows in reading.splits.items() if not rows]
    if empty:
        left_out = (f"left out {_count(why, what)}" for why, what in reading.left_out.items())
        raise ConvertFailedError(
            "\n".join([f"no images for {', '.join(empty)}", *left_out]),
            "Check check_dataset.convert.train_images and val_images.",
        )
    faults = [
        f"the label {shorten(repr(name))} cannot stand in label.txt: it is empty, has a line end or"
        " a NUL, or is not UTF-8"
        for name in reading.labels
        if not fits_line(name) or COLUMNS.search(name) or "\0" in name
    ]
    faults += [
        f"the label {shorten(repr(name), 60)} has {len(name):,} characters, more than {MAX_NAME:,}:"
        " are these several labels?"
        for name in reading.labels
        if len(name) > MAX_NAME
    ]
    faults += [
        f"several categories are named {shorten(repr(name))}"
        for name, count in Counter(reading.labels).items()
        if count > 1
    ]
    faults += [] if reading.labels else ["there are no labels"]
    raise_faults(ConvertFailedError, faults)


@contextmanager
def _links(root: Path, folders: Sequence[ImageFolder]) -> Iterator[dict[str, Path]]:
    """Link folders that lie elsewhere from images/; the links are removed after an exception."""
    images, made = root / "images", {}
    is_new = not images.exists()
    images.mkdir(exist_ok=True)
    try:
        for path, listed in folders:
            if not os.path.lexists(root / listed):
                (root / listed).parent.mkdir(parents=True, exist_ok=True)
                _link(root / listed, path)
                made[listed] = path
            elif not (root / listed).exists() or not path.samefile(root / listed):
                raise ConvertFailedError(
                    f"{root / listed}: is in the way of a link to {path}", "Rename it."
                )
        yield made
    except BaseException:
        for listed in made:
            (root / listed).unlink()
        if is_new:
            images.rmdir()
        raise


def _link(link: Path, folder: Path) -> None:
    # Relative inside the data set, so that it can be moved as a whole.
    is_inside = folder.is_relative_to(os.path.abspath(link.parents[1]))
    is_relative = is_inside and not link.parent.is_symlink()
    target = os.path.relpath(folder, link.parent) if is_relative else folder
    try:
        link.symlink_to(target, target_is_directory=True)
    except OSError as error:
        raise ConvertFailedError(
            f"{link}: cannot be made a link to {folder}: {error.strerror}",
            f"Move the folder to {link}, and set check_dataset.convert.train_images or val_images.",
        ) from error


def _write_labels(file: TextIO, *, labels: Sequence[str], before: Sequence[Label]) -> None:
    """Write label.txt, with the groups that somebody may have given labels in one `before`."""
    known, given = {*labels}, {label.name: label for label in before}
    for index, name in enumerate(labels):
        old = given.get(name, Label(name))
        parent = f"\tparent={old.parent}" if old.parent in known else ""
        group = f"\tgroup={old.group}" if old.group else ""
        file.write(f"{index} {name}{parent}{group}\n")


def _write_rows(file: TextIO, *, rows: Sequence[Row], reading: Reading) -> None:
    for path, row in rows:
        values = [str(reading.rest)] * len(reading.labels)
        for index, value in row.items():
            values[index] = str(value)
        file.write(f"{path}\t{','.join(values)}\n")
