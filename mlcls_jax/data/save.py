"""A data set of any format that is read, written in one that is written."""

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from mlcls_jax import files
from mlcls_jax.config import Data
from mlcls_jax.data.convert import FORMATS, Conversion, convert, doubts
from mlcls_jax.data.convert.labelled import Labelled, Picture
from mlcls_jax.data.detect import Found
from mlcls_jax.data.findings import Finding, is_error
from mlcls_jax.data.image_files import list_images
from mlcls_jax.data.lists import TEST_LIST, find_root, label_names, raise_findings, read_list
from mlcls_jax.errors import DataError

MLCLS = "mlcls"
WRITTEN = (MLCLS, *(name for name, known in FORMATS.items() if known.write))


@dataclass(frozen=True)
class Predictions:
    """What a model finds in images."""

    labels: tuple[str, ...]  # all that it knows
    model: str  # its name, or version
    find: Callable[[list[Path]], Iterator[Mapping[str, float]]]  # of each image: label → score


@dataclass(frozen=True)
class Saved:
    """What was written."""

    images: dict[str, int]  # split → images
    labels: tuple[str, ...]
    told: tuple[str, ...]  # what was found, what does not fit the format, and what to do next


def save(
    found: Found | Path,
    output: Path,
    to: str,
    *,
    copy: bool = False,
    url: str | None = None,
    predictions: Predictions | None = None,
) -> Saved:
    """Write a data set into a new folder, with links to its images.

    Args:
      found: what is read; or a folder of images without labels, for predictions.
      output: the folder; it is not there yet, or is empty.
      to: one of `WRITTEN`.
      copy: images are copied, not linked.
      url: for Label Studio: what images are found behind.
      predictions: for Label Studio beside the labels, in other formats in their place.

    Raises:
      DataError: the source is missing or malformed; tells every fault. Or `output` is in use.
    """
    _check_new(output)
    place, written = Path(os.path.realpath(output)), list[Saved]()

    def fill(new: Path) -> None:
        told, data = _open(found, new, predictions)
        told += _write(replace(data, name=place.name), new, to, url, copy)
        images = {split: len(rows) for split, rows in data.splits.items()}
        labels = (*dict.fromkeys((*data.labels, *data.model_labels)),)
        told = (line.replace(new.name, place.name) for line in told)
        written.append(Saved(images, labels, tuple(told)))
        _check_new(output)  # by now another process may have written there

    files.replace_folder(place, fill, durable=False)
    return written[0]


def _check_new(output: Path) -> None:
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise DataError(f"{output}: is in use", "Give a new folder.")


def _open(
    found: Found | Path, output: Path, predictions: Predictions | None
) -> tuple[list[str], Labelled]:
    """Lay the images out in `output`, and return what was found and all that is known of them."""
    if isinstance(found, Found):
        told = list(_lay(found, output))
        data = _read(output)
    else:
        told = []
        pictures = [
            Picture(f"images/{path.relative_to(found).as_posix()}", path)
            for path in list_images(found)
        ]
        (output / "images").symlink_to(found.resolve(), target_is_directory=True)
        data = Labelled((), {"train": pictures})
    if predictions is None:
        return told, data
    seen = predictions.find([picture.file for rows in data.splits.values() for picture in rows])
    splits = {
        split: [picture._replace(found=next(seen)) for picture in rows]
        for split, rows in data.splits.items()
    }
    return told, Labelled(data.labels, splits, predictions.model, predictions.labels)


def _write(data: Labelled, output: Path, to: str, url: str | None, copy: bool) -> Iterator[str]:
    """Write what is known of images in `output`, and tell what to do next."""
    if data.model_labels and to != "label_studio":
        yield "The labels are those that the model finds."
        data = data.as_predicted()
    if to != MLCLS:
        known = FORMATS[to]
        if not known.holds_unknown:
            yield from _lost(data, to)
        assert known.write
        yield from known.write(data, output, url)
        for path in _lists(output):
            path.unlink()
        if known.embeds:
            _remove(output / "images")
    if copy and (number := _copy_linked(output)):
        yield f"Copied what {number:,} links led to."


def copy_lists(root: Path, folder: Path, names: Iterable[str]) -> None:
    """Copy these lists of an MLClsDataset into a folder, and link its images there."""
    for name in names:
        shutil.copyfile(root / name, folder / name)
    (folder / "images").symlink_to((root / "images").resolve(), target_is_directory=True)


def _lists(root: Path) -> list[Path]:
    usual = Data()
    names = (usual.label_file, usual.train_list, usual.val_list, TEST_LIST)
    return [root / name for name in names if (root / name).is_file()]


def _lay(found: Found, output: Path) -> Iterator[str]:
    """Make `output` an MLClsDataset with links to the images, and tell what was found."""
    if found.form == "packed":
        raise DataError(
            f"{found.root}: shards of `mlcls pack` are not converted",
            "Name the data set that they were made of.",
        )
    reader = found.convert
    if reader is None:
        root = find_root(found.root)
        copy_lists(root, output, [path.name for path in _lists(root)])
        return
    is_far = "://" in str(reader.train_annotations)
    conversion: Conversion = convert(
        Data(source="mlcls", dir=str(output if is_far else found.root)), reader, output
    )
    yield from conversion.told
    yield from doubts(conversion)


def _read(root: Path) -> Labelled:
    """Return what the lists of an MLClsDataset say.

    Raises:
      DataError: they are malformed; tells every fault.
    """
    usual = Data()
    names = label_names(root / usual.label_file, name=usual.label_file)
    lists = {"train": usual.train_list, "val": usual.val_list, "test": TEST_LIST}
    splits: dict[str, list[Picture]] = {}
    for split, name in lists.items():
        if not (root / name).is_file():
            continue
        items = list(read_list(root / name, len(names), name=name))
        raise_findings([item for item in items if isinstance(item, Finding) and is_error(item)])
        splits[split] = [
            Picture(item.image, root / item.image, item.target)
            for item in items
            if not isinstance(item, Finding)
        ]
    return Labelled(names, splits)


def _lost(data: Labelled, to: str) -> Iterator[str]:
    counts = [
        int((picture.target == -1).sum())
        for rows in data.splits.values()
        for picture in rows
        if picture.target is not None
    ]
    if images := sum(map(bool, counts)):
        yield (
            f"{to} cannot say that a label is not known: {sum(counts):,} values of -1, in"
            f" {images:,} images, are written as 0 (absent). csv and parquet keep them."
        )


def _remove(path: Path) -> None:
    """Remove a link, or what was written; what links lead to stays."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.is_dir():
        shutil.rmtree(path)


def _copy_linked(folder: Path) -> int:
    """Put copies in the place of links, and return how many there were."""
    links = [path for path in folder.rglob("*") if path.is_symlink()]
    for link in links:
        target = link.resolve()
        link.unlink()
        if target.is_dir():
            shutil.copytree(target, link)
        else:
            shutil.copyfile(target, link)
    return len(links)
