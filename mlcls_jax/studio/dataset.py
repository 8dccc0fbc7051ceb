"""The lines of all lists of a data set as columns: what a studio shows, filters and mends."""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mlcls_jax.config import Data
from mlcls_jax.data.findings import Finding, is_error
from mlcls_jax.data.image_files import walk_images
from mlcls_jax.data.lists import TEST_LIST, checked_labels, find_root, groups_of, read_list
from mlcls_jax.errors import DataError
from mlcls_jax.groups import NO_GROUPS, Groups
from mlcls_jax.readable import printable

UNLISTED = "(in no list)"  # in the place of a list, for images that none names


@dataclass(frozen=True)
class Dataset:
    """N lines of lists that name an image each, in the order of the files."""

    root: Path
    config: Data  # names of its files
    labels: tuple[str, ...]  # K names
    lists: tuple[str, ...]  # names of the files, and perhaps UNLISTED
    images: list[str]  # [N] paths relative to `root`
    list_number: np.ndarray  # uint8 [N], of `lists`
    targets: np.ndarray  # int8 [N, K]: 1 present, 0 absent, -1 not sure
    rows_of: dict[str, tuple[int, ...]]  # by image: an image may stand in several lines
    faults: tuple[Finding, ...]  # lines that are left out
    groups: Groups = NO_GROUPS

    def __len__(self) -> int:
        return len(self.images)

    def path(self, row: int) -> Path:
        """Return where the image of a row lies."""
        return self.root / self.images[row]


def read_dataset(config: Data, *, unlisted: bool = False) -> Dataset:
    """Read those of the lists in `config.dir` that there are, and `test.txt` beside them.

    With `unlisted` the images that none of them names follow, of which no label is known.
    Malformed lines are left out, and told in `faults`.

    Raises:
      DataError: there is no data set, its labels are malformed, or no list names an image.
    """
    root = find_root(Path(config.folder))
    label_file, lists = root / config.label_file, (config.train_list, config.val_list)
    labels = checked_labels(label_file)
    wanted = dict.fromkeys((*lists, TEST_LIST))
    there = tuple(name for name in wanted if (root / name).is_file())
    images: list[str] = []
    list_number, targets, faults = bytearray(), bytearray(), list[Finding]()
    for number, name in enumerate(there):
        for item in read_list(root / name, len(labels), name=name):
            if isinstance(item, Finding):
                faults += [item] if is_error(item) else []
                continue
            images.append(item.image)
            list_number.append(number)
            targets += item.target.tobytes()
    if unlisted:
        named = {*images, *(fault.image for fault in faults)}
        for path in walk_images(root / "images"):
            if isinstance(path, DataError):
                raise path
            image = path.relative_to(root).as_posix()
            if image not in named and printable(image) == image == image.strip():  # fits a line
                images.append(image)
                list_number.append(len(there))
                targets += np.full(len(labels), -1, np.int8).tobytes()
        there = (*there, UNLISTED)
    if not images:
        shown = faults[0].message if faults else f"there is no {' and no '.join(lists)}"
        raise DataError(f"{root}: no list names an image: {shown}", "See `mlcls check`.")
    rows: defaultdict[str, tuple[int, ...]] = defaultdict(tuple)
    for row, image in enumerate(images):
        rows[image] += (row,)
    return Dataset(
        root=root,
        config=config,
        labels=tuple(label.name for label in labels),
        lists=there,
        images=images,
        list_number=np.frombuffer(list_number, np.uint8),
        targets=np.frombuffer(targets, np.int8).reshape(-1, len(labels)),
        rows_of=dict(rows),
        faults=tuple(faults),
        groups=groups_of(labels),
    )
