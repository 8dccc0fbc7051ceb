"""Little data sets for tests: in MLClsDataset form on disk, and in memory."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from mlcls_jax.errors import DataError

LABELS = ("cat", "dog", "bird")


def write_image(path: Path, seed: int = 0, size: tuple[int, int] = (12, 10)) -> np.ndarray:
    """A noisy PNG [H, W, 3]; returns its pixels."""
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, format="PNG")
    return pixels


def cells(
    seed: int, size: tuple[int, int], resampling: Image.Resampling = Image.Resampling.NEAREST
) -> Image.Image:
    """A picture, height and width in `size`, of 5 x 6 cells in colours drawn from the seed."""
    drawn = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return Image.fromarray(drawn).resize(size[::-1], resampling)


def write_photos(
    root: Path, *, train: int = 4, val: int = 2, labels: Sequence[str] = LABELS
) -> Path:
    """Images with the labels 1, 0, 0 / 0, 1, 0 / … in turn; returns `root`."""
    (root / "images").mkdir(parents=True)
    write_lines(root / "label.txt", [f"{i} {name}" for i, name in enumerate(labels)])
    for split, count in (("train", train), ("val", val)):
        names = [f"images/{split}_{i}.png" for i in range(count)]
        for seed, name in enumerate(names):
            write_image(root / name, seed)
        rows = (row(i % len(labels), len(labels)) for i in range(count))
        write_lines(root / f"{split}.txt", [f"{n}\t{r}" for n, r in zip(names, rows, strict=True)])
    return root


def row(present: int, num_classes: int = len(LABELS)) -> str:
    """The values of an image with one label: 0,1,0."""
    return ",".join("1" if k == present else "0" for k in range(num_classes))


def write_lines(path: Path, lines: Sequence[str], *, end: str = "\n") -> None:
    path.write_bytes("".join(line + end for line in lines).encode())


class Numbers:
    """`count` flat images, each showing its own number; the indices in `broken` raise."""

    labels = ("even", "odd")

    def __init__(self, count: int, broken: tuple[int, ...] = ()) -> None:
        self.count, self.broken = count, broken

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        if index in self.broken:
            raise DataError(f"list.txt:{index + 1}: image {index} is broken")
        image = np.full((5 + index % 3, 4, 3), index, np.uint8)
        return image, np.float32([index % 2 == 0, index % 2])

    def name(self, index: int) -> str:
        return str(index)

    def place(self, index: int) -> str:
        return f"list.txt:{index + 1}"
