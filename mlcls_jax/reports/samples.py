"""Images of a checked data set with their labels."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from mlcls_jax.data.findings import CheckReport
from mlcls_jax.data.image_files import read_file
from mlcls_jax.data.images import decode_image
from mlcls_jax.errors import DataError, DatasetFileNotFoundError
from mlcls_jax.files import replace_folder
from mlcls_jax.inference.drawing import draw_labels
from mlcls_jax.readable import first_of, shorten

MAX_SAMPLES = 10  # per list
MAX_SAMPLE_SIDE = 1024  # pixels


def draw_samples(report: CheckReport, folder: Path) -> dict[str, list[Path]]:
    """Write the first images of train and val with their labels; replace `folder`.

    Images that cannot be read are left out; larger ones than `MAX_SAMPLE_SIDE` pixels shrunk.

    Returns:
      List ("train", "val") → the JPEG files written, in the order of the list.
    """
    written: dict[str, list[Path]] = {"train": [], "val": []}

    def fill(new: Path) -> None:
        for name, files in written.items():
            split = report.splits.get(name)
            for path, target in split.samples[:MAX_SAMPLES] if split else ():
                try:
                    image = read_listed(report.root, path, MAX_SAMPLE_SIDE)
                except DataError:
                    continue
                texts = sample_entries(report.labels, target)
                entries = [shorten(" ".join(text.split()), 80) for text in texts]
                picture = draw_labels(np.asarray(image), entries)
                file_name = f"{name}_{len(files):02d}.jpg"
                picture.save(new / file_name, quality=90, subsampling=0)  # else text is blurred
                files.append(folder / file_name)

    replace_folder(folder, fill)
    return written


def read_listed(root: Path, name: str, side: int) -> Image.Image:
    """Return an image that a list names, in RGB and at most `side` pixels wide and high.

    Raises:
      DatasetFileNotFoundError: it is not there.
      DataError: it cannot be shown; says why in a few words. Files outside the data set are not
        shown either: lists may name any file of the machine, and reports are passed on.
    """
    if os.path.isabs(name) or Path(os.path.normpath(name)).parts[:1] == ("..",):
        raise DataError("outside the data set")
    try:
        is_file = (root / name).is_file()  # a device or a pipe could be read for ever
    except OSError:  # a name too long for the file system
        is_file = False
    if not is_file:
        raise DatasetFileNotFoundError("no such file")
    try:
        pixels = decode_image(read_file(root / name), name=name, at_least=(side, side))
    except DataError as error:
        raise DataError("cannot be decoded") from error
    picture = Image.fromarray(pixels)
    picture.thumbnail((side, side))
    return picture


def sample_entries(labels: Sequence[str], target: np.ndarray) -> list[str]:
    """Return what is written below a sample with the target int8 [K]; never empty."""
    present = [labels[k] for k in np.flatnonzero(target == 1).tolist()]
    entries = first_of(present) or ["(no label)"]
    if unknown := np.count_nonzero(target == -1):
        entries.append(f"({unknown} not annotated)")
    return entries
