"""MLClsDataset, the originals' format: `images/`, `label.txt` and one list a split."""

import os
from pathlib import Path

import numpy as np

from mlcls_jax.config import Data
from mlcls_jax.data.findings import Finding, is_error
from mlcls_jax.data.fingerprint import digest
from mlcls_jax.data.image_files import read_file
from mlcls_jax.data.lists import checked_labels, find_root, groups_of, raise_findings, read_list
from mlcls_jax.data.types import Split
from mlcls_jax.errors import DataError
from mlcls_jax.groups import Groups, close


class MLClsList:
    """The images of one list file; what the groups of labels say is filled in."""

    def __init__(
        self,
        root: Path,
        list_file: Path,
        labels: tuple[str, ...],
        groups: Groups,
        *,
        on_error: str,
    ) -> None:
        self.labels, self.groups = labels, groups
        self._root, self._list_file = root, list_file
        self._paths: list[str] = []
        self._lines: list[int] = []
        targets = bytearray()  # grows in place, unlike a list of rows that is stacked in the end
        faults = []
        for item in read_list(list_file, len(labels), name=str(list_file)):
            if isinstance(item, Finding):
                faults += [item] if is_error(item) else []
                continue
            # Not Path.is_file, which raises for names that are too long.
            if on_error == "raise" and not os.path.isfile(root / item.image):
                message = f"{root / item.image}: there is no such image"
                faults.append(Finding("missing_image", f"{list_file}:{item.line}", message))
            self._paths.append(item.image)
            self._lines.append(item.line)
            targets += item.target.tobytes()
        raise_findings(faults)
        self.targets = np.frombuffer(targets, np.int8).reshape(-1, len(labels))  # [N, K]
        self.contradicted = int(close(self.targets, groups).sum())  # images against the groups

    def __len__(self) -> int:
        return len(self._paths)

    def fingerprint(self) -> dict[str, str]:
        """Return digests of the images and the targets as listed."""
        names = (path.encode(errors="surrogateescape") for path in self._paths)
        return {
            "images listed": digest(names),
            "targets": digest([self.targets.tobytes()]),
            "groups": digest([repr(self.groups).encode()]),
        }

    def __getitem__(self, index: int) -> tuple[bytes, np.ndarray]:
        try:
            content = read_file(self._root / self._paths[index])
        except DataError as error:
            place = f"{self._list_file}:{self._lines[index]}: "
            raise DataError(place + error.message, error.hint) from error
        return content, self.targets[index].astype(np.float32)

    def name(self, index: int) -> str:
        return str(self._root / self._paths[index])

    def place(self, index: int) -> str:
        return f"{self._list_file}:{self._lines[index]}: {self.name(index)}"


def open_split(config: Data, split: Split) -> MLClsList:
    """Return the training or the validation list of the data set in `config.dir`.

    Raises:
      DataError: a file is missing, or lines are malformed; lists every fault with file and line.
    """
    root = find_root(Path(config.folder))
    labels = checked_labels(root / config.label_file)
    list_file = root / (config.train_list if split == "train" else config.val_list)
    names = tuple(label.name for label in labels)
    return MLClsList(root, list_file, names, groups_of(labels), on_error=config.on_error)
