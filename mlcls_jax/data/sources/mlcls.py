"""MLClsDataset, the originals' format: `images/`, `label.txt` and one list a split."""

import os
from itertools import islice
from pathlib import Path

import numpy as np

from mlcls_jax.config import Data
from mlcls_jax.data.images import read_file
from mlcls_jax.errors import DataError

MAX_FAULTS = 20  # shown in one message


class MLClsList:
    """The images of one list file."""

    def __init__(
        self, root: Path, list_file: Path, labels: tuple[str, ...], *, on_error: str
    ) -> None:
        self.labels = labels
        self._root, self._list_file = root, list_file
        self._paths, self._targets, self._lines = _read_list(list_file, len(labels))
        if on_error == "raise":
            _require_images(root, list_file, self._paths, self._lines)

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> tuple[bytes, np.ndarray]:
        try:
            content = read_file(self._root / self._paths[index])
        except DataError as error:
            place = f"{self._list_file}:{self._lines[index]}: "
            raise DataError(place + error.message, error.hint) from error
        return content, self._targets[index].astype(np.float32)

    def name(self, index: int) -> str:
        return str(self._root / self._paths[index])

    def place(self, index: int) -> str:
        return f"{self._list_file}:{self._lines[index]}: {self.name(index)}"


def open_splits(config: Data) -> tuple[MLClsList, MLClsList]:
    """The training and validation lists of the data set in `config.dir`.

    Raises:
      DataError: a file is missing, or lines are malformed; lists every fault with file and line.
    """
    root = find_root(Path(config.dir))
    labels = read_labels(root / config.label_file)
    splits, faults = [], []
    for name in (config.train_list, config.val_list):
        try:
            splits.append(MLClsList(root, root / name, labels, on_error=config.on_error))
        except DataError as error:
            faults.append(error)
    if faults:
        raise DataError("\n".join(fault.message for fault in faults), faults[0].hint)
    train, validation = splits
    return train, validation


def find_root(folder: Path) -> Path:
    """The folder that holds `images`, which may be nested below `folder`."""
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder", "Check data.dir.")
    if (folder / "images").is_dir():
        return folder
    found = []
    for here, folders, _ in os.walk(folder):
        if "images" in folders:
            found.append(Path(here))
            folders.clear()  # images/ may hold another folder named images
    if len(found) == 1:
        return found[0]
    if not found:
        raise DataError(
            f"{folder}: holds no folder named images",
            "An MLClsDataset has images/, label.txt, train.txt and val.txt.",
        )
    listed = ", ".join(map(str, found[:5]))
    raise DataError(f"{folder}: several data sets in it: {listed}", "Set data.dir to one of them.")


def read_labels(path: Path) -> tuple[str, ...]:
    """Label names from lines `<index> <name>`, indices 0 … K - 1 in any order.

    Raises:
      DataError: unreadable, or malformed lines; lists every fault.
    """
    names: dict[int, str] = {}
    faults = []
    for number, line in _lines(path):
        index, _, name = line.strip().partition(" ")
        if not index.isdecimal() or not name.strip():
            faults.append(f"{path}:{number}: {line!r} is not `<index> <name>`")
        elif int(index) in names:
            faults.append(f"{path}:{number}: index {index} was given before")
        elif name.strip() in names.values():
            faults.append(f"{path}:{number}: the name {name.strip()!r} was given before")
        else:
            names[int(index)] = name.strip()
    gaps = (i for i in range(max(names, default=-1) + 1) if i not in names)
    missing = list(islice(gaps, 10))  # one wrong index may leave millions
    if missing and not faults:
        shown = ", ".join(map(str, missing))
        faults.append(f"{path}: indices must run from 0 without gaps; missing: {shown}")
    if not names and not faults:
        faults.append(f"{path}: is empty")
    _raise_all(faults)
    return tuple(names[i] for i in range(len(names)))


def _read_list(path: Path, num_classes: int) -> tuple[list[str], np.ndarray, list[int]]:
    """Relative paths, targets uint8 [N, K], and the line number of each."""
    paths, rows, numbers, faults = [], [], [], []
    for number, line in _lines(path):
        image, tab, values = line.partition("\t")
        row = np.array("".join(values.split()).split(","), dtype=object)
        if not tab or not image.strip():
            faults.append(f"{path}:{number}: {_shorten(line)} is not `<image><TAB>0,1,0,…`")
        elif len(row) != num_classes:
            faults.append(f"{path}:{number}: {len(row)} values, but there are {num_classes} labels")
        elif (wrong := row[(row != "0") & (row != "1")]).size:
            faults.append(f"{path}:{number}: {_shorten(wrong[0])} is neither 0 nor 1")
        else:
            paths.append(image.strip())
            rows.append((row == "1").astype(np.uint8))
            numbers.append(number)
    if not paths and not faults:
        faults.append(f"{path}: lists no images")
    _raise_all(faults)
    return paths, np.stack(rows), numbers


def _require_images(root: Path, list_file: Path, paths: list[str], lines: list[int]) -> None:
    missing = [(p, n) for p, n in zip(paths, lines, strict=True) if not (root / p).is_file()]
    _raise_all([f"{list_file}:{n}: {root / p}: there is no such image" for p, n in missing])


def _lines(path: Path) -> list[tuple[int, str]]:
    """Number and text of every line that is not blank; BOM and CRLF are taken off."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such file") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8: {error}", "Save it as UTF-8.") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    lines = enumerate(text.split("\n"), start=1)
    return [(number, line.rstrip("\r")) for number, line in lines if line.strip()]


def _raise_all(faults: list[str]) -> None:
    if faults:
        more = len(faults) - MAX_FAULTS
        lines = faults[:MAX_FAULTS] + ([f"… and {more} more faults"] if more > 0 else [])
        raise DataError("\n".join(lines))


def _shorten(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "…")
