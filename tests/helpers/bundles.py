"""A small bundle with drawn weights, for tests of what uses one."""

from pathlib import Path
from typing import Any

import numpy as np

from mlcls_jax.config import model_from_dict
from mlcls_jax.data.frame import Frame
from mlcls_jax.inference.bundle import write_bundle
from mlcls_jax.models.network import Network
from tests.helpers.photos import cells

LABELS = ("cat", "dog", "fire truck", "猫", "tree")


def write_small(
    folder: Path,
    name: str = "PP-LCNet_x0_25_ML",
    *,
    labels: tuple[str, ...] = LABELS,
    size: tuple[int, int] = (32, 48),
    threshold: float | tuple[float, ...] = 0.5,
    frame: Frame | None = None,
    **options: Any,
) -> Path:
    """A bundle of weights that make scores differ by image and label; returns its folder."""
    small = {"embed_dim": 32, "hidden_dim": 32, "num_heads": 4} if name.endswith("_ML") else {}
    values = {"name": name, "num_classes": len(labels), "image_size": size, "initial": "paddle"}
    values |= small | options
    network = Network.of(model_from_dict(values))
    variables = network.init(0, put=_spread)
    write_bundle(
        folder,
        network.config,
        variables,
        labels=labels,
        threshold=threshold,
        facts={"epoch": 1},
        frame=frame,
    )
    return folder


def _spread(path: str, array: np.ndarray) -> np.ndarray:
    """Weights so large that images, and places in them, differ in more than the sixth digit."""
    if path.startswith("backbone/") and path.endswith("norm/scale"):
        return array * 2
    if path == "head/group_kernel":
        return array * 3
    if path == "head/fc/kernel":
        return array / 50
    return array * 2 if path.endswith(("q_proj/kernel", "k_proj/kernel")) else array


def write_images(folder: Path, count: int, *, size: tuple[int, int] = (40, 60)) -> list[Path]:
    """Pictures of coloured noise that differ strongly from each other, `00.png` and on."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{index:02d}.png" for index in range(count)]
    for index, path in enumerate(paths):
        cells(index, size).save(path)
    return paths
