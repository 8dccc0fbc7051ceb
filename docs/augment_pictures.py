"""Makes the pictures of docs/augmentation.md: the original and seven draws of each augmentation.

python -m docs.augment_pictures [--folder docs/augmentation]
"""

import argparse
from functools import partial
from pathlib import Path

import jax
import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_image

from mlcls_jax.data.augment import AUGMENTATIONS, CROPS
from mlcls_jax.data.images import resize
from mlcls_jax.training.mixing import mix

SIZE = (448, 448)  # the recipes', at which everything is applied
TILE, GAP, DRAWS = 112, 4, 7
SEED = 8  # several draws of each change something
ALPHAS = {"mixup": (1.0, 0.0), "cutmix": (0.0, 1.0)}


def main() -> None:
    """Write one JPEG an augmentation."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path(__file__).parent / "augmentation")
    folder = parser.parse_args().folder
    folder.mkdir(exist_ok=True)
    photos = [load_sample_image(name) for name in ("china.jpg", "flower.jpg")]
    first, second = (resize(photo, SIZE) for photo in photos)
    for name, function in AUGMENTATIONS.items():
        rng = np.random.default_rng(SEED)
        _save(folder / f"{name}.jpg", [first, *(function(first, rng) for _ in range(DRAWS))])
    for name, crop in CROPS.items():
        rng = np.random.default_rng(SEED)
        parts = [resize(crop(rng).of(photos[0]), SIZE) for _ in range(DRAWS)]
        _save(folder / f"{name}.jpg", [first, *parts])
    for name in ALPHAS:
        _save(folder / f"{name}.jpg", [first, second, *_mixed(name, first, second)])


def _mixed(name: str, *pair: np.ndarray) -> list[np.ndarray]:
    """Draws in which the two pictures are each other's partners."""
    mixup, cutmix = ALPHAS[name]
    batch = {
        "image": np.stack(pair),
        "target": np.zeros((2, 1), np.float32),
        "mask": np.ones(2, bool),
        "index": np.arange(2),
    }
    mix_batch = partial(mix, mixup_alpha=mixup, cutmix_alpha=cutmix, probability=1.0)
    results = (mix_batch(batch, jax.random.key(seed))["image"][0] for seed in range(100))
    changed = [np.asarray(image) for image in results if (image != pair[0]).any()]
    return changed[: DRAWS - 1]


def _save(path: Path, images: list[np.ndarray]) -> None:
    width = len(images) * (TILE + GAP) - GAP
    sheet = np.full((TILE, width, 3), 255, np.uint8)
    for i, image in enumerate(images):
        left = i * (TILE + GAP)
        sheet[:, left : left + TILE] = resize(image, (TILE, TILE))
    Image.fromarray(sheet).save(path, quality=75)


if __name__ == "__main__":
    main()
