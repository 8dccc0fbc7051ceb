"""A folder a class: train/CLASS/*.jpg and val/CLASS/*.jpg (and test/), or CLASS/*.jpg alone.

val/ may be called valid/ or validation/. An image has the labels of all folders that hold it or a
link to it.
"""

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from mlcls_jax.bars import progress
from mlcls_jax.config import Convert
from mlcls_jax.data.convert.dataset_format import Format, Sign
from mlcls_jax.data.convert.listings import Entry, Listing
from mlcls_jax.data.convert.reading import (
    SPLIT_FOLDERS,
    LeftOut,
    fits_line,
    images_below,
    usual_places,
)
from mlcls_jax.data.image_files import is_image_name
from mlcls_jax.errors import ConvertFailedError
from mlcls_jax.readable import printable


def read(root: Path, label_file: Path, options: Convert) -> Listing:
    """Read every image with the label that its folder is named after, in path order."""
    given = {"train": options.train_images, "val": options.val_images}
    left_out: LeftOut = {}
    if any(given.values()):
        trees = {split: root / name for split, name in given.items() if name}
    else:
        trees = _usual_trees(root, left_out)
    splits = {split: _entries(root, tree, split, left_out) for split, tree in trees.items()}
    folders = {split: [tree] for split, tree in trees.items()}
    return Listing(splits, folders=folders, left_out=left_out)


def _entries(root: Path, tree: Path, split: str, left_out: LeftOut) -> list[Entry]:
    """Return the images of a tree; one that links to it show in other classes, too, is one."""
    entries: dict[tuple[str, bool], Entry] = {}  # by the file itself
    for name in progress(_classes(root, tree, left_out), desc=split, unit=" classes"):
        images = images_below(tree / name, left_out)
        if not images:
            left_out.setdefault("folders without images", []).append(str(tree / name))
        for image in images:
            file = f"{tree / name}/{image}"
            # A name that no list can hold is left out, and must not take others with it.
            key = os.path.realpath(file), fits_line(image) and "\t" not in image
            known = entries.get(key) or Entry(f"{name}/{image}", {}, file)
            entries[key] = known._replace(values={**known.values, name: 1})
    return list(entries.values())


def _usual_trees(root: Path, left_out: LeftOut) -> dict[str, Path]:
    for base in (root, root / "images"):
        if (base / "train").is_dir():
            found = usual_places(lambda name, base=base: [base / name])
            trees = {split: path for split, path in found.items() if path.is_dir()}
            others = [path for path in _folders(base) if path not in trees.values()]
            for other in others:
                if other != root / "images" and not other.is_symlink():
                    left_out.setdefault("folders beside train", []).append(printable(str(other)))
            return trees
        if _classes(root, base, left_out={}):
            return {"train": base}
    raise ConvertFailedError(
        f"{root}: holds neither train/ nor folders of classes",
        "An ImageFolder has train/CLASS/*.jpg and val/CLASS/*.jpg, or CLASS/*.jpg.",
    )


def _classes(root: Path, tree: Path, left_out: LeftOut) -> list[str]:
    if not tree.is_dir():
        return []
    # Where the classes lie beside images/, that is where they are linked from.
    found = [path.name for path in _folders(tree) if path != root / "images"]
    for path in sorted(tree.iterdir()):
        if is_image_name(path.name) and path.is_file():
            left_out.setdefault("images in no folder of a class", []).append(printable(str(path)))
    return found


def _folders(tree: Path) -> list[Path]:
    if not tree.is_dir():
        return []
    return sorted(p for p in tree.iterdir() if p.is_dir() and not p.name.startswith("."))


_NO_CLASSES = {"images", "annotations", "labels", "masks", "jpegimages", "imagesets", "data"}
_SHOWN = 64  # entries of a folder that are looked at, in search of an image


def _usual(folder: Path) -> Iterator[Sign]:
    inside = (path for path in _folders(folder / "train") if path.name.lower() not in _NO_CLASSES)
    if any(map(_has_image, inside)):
        yield Sign("a folder per class in train/")


def _unusual(folder: Path) -> Iterator[Sign]:
    classes = [
        path
        for path in _folders(folder)
        if path.name.lower() not in {*_NO_CLASSES, *SPLIT_FOLDERS} and _has_image(path)
    ]
    if len(classes) > 1:
        yield Sign(f"a folder per class ({classes[0].name}/, {classes[1].name}/ …)")


def _has_image(folder: Path) -> bool:
    with os.scandir(folder) as entries:
        return any(is_image_name(entry.name) for entry in islice(entries, _SHOWN))


FORMAT = Format(
    read, "a folder per class (CLASS/*.jpg, or train/CLASS/ and val/CLASS/)", _usual, _unusual
)
