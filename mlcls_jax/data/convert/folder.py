"""A folder a class: train/CLASS/*.jpg and val/CLASS/*.jpg (and test/), or CLASS/*.jpg alone."""

from pathlib import Path

from tqdm import tqdm

from mlcls_jax.config import Convert
from mlcls_jax.data.convert.reading import (
    ImageFolder,
    LeftOut,
    NamedRow,
    Reading,
    image_folder,
    images_below,
    index_rows,
    listed_path,
)
from mlcls_jax.errors import ConvertFailedError


def read(root: Path, label_file: Path, options: Convert) -> Reading:
    """Every image with the one label that its folder is named after, in order of the paths."""
    given = {"train": options.train_images, "val": options.val_images}
    if any(given.values()):
        trees = {split: root / name for split, name in given.items() if name}
    else:
        trees = _usual_trees(root)
    splits: dict[str, list[NamedRow]] = {}
    folders: list[ImageFolder] = []
    left_out: LeftOut = {}
    for split, tree in trees.items():
        # Without train/ the classes lie beside images/ and are linked one by one.
        above = None if tree == root else image_folder(root, tree)
        rows: list[NamedRow] = []
        for name in tqdm(_classes(tree), desc=split, unit=" classes", disable=None):
            folder = (
                ImageFolder(above.path / name, f"{above.listed}/{name}")
                if above
                else image_folder(root, tree / name)
            )
            paths = [listed_path(folder, image, left_out) for image in images_below(folder.path)]
            rows += ((path, (name.strip(),)) for path in paths if path)
            if not paths:
                left_out.setdefault("folders without images", []).append(str(folder.path))
            elif not above:
                folders.append(folder)
        folders += [above] if above else []
        splits[split] = rows
    labels, indexed = index_rows(splits, label_file)
    return Reading(labels, indexed, tuple(folders), left_out)


def _usual_trees(root: Path) -> dict[str, Path]:
    for base in (root, root / "images"):
        if (base / "train").is_dir():
            names = ("train", "val", "test")
            return {split: base / split for split in names if (base / split).is_dir()}
        if _classes(base):
            return {"train": base}
    raise ConvertFailedError(
        f"{root}: holds neither train/ nor folders of classes",
        "An ImageFolder has train/CLASS/*.jpg and val/CLASS/*.jpg, or CLASS/*.jpg.",
    )


def _classes(tree: Path) -> list[str]:
    if not tree.is_dir():
        return []
    return sorted(
        path.name
        for path in tree.iterdir()
        if path.is_dir() and not path.name.startswith(".") and path.name != "images"
    )
