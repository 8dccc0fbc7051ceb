"""Training augmentation: pictures uint8 [H, W, 3] in, pictures of the same size out.

A new augmentation is one function and one line in `AUGMENTATIONS`. None of them writes to its
input, which may be the data set's own array. Mixup and CutMix, which need a whole batch, run on
the device: `training/mixing.py`.
"""

from collections.abc import Callable, Sequence

import numpy as np

from mlcls_jax.data.augment.enhance import color_jitter
from mlcls_jax.data.augment.erase import (
    cutout,
    grid_mask,
    half_cutout,
    hide_and_seek,
    random_erasing,
)
from mlcls_jax.data.augment.geometry import Box, flip, random_resized_crop
from mlcls_jax.data.augment.operations import OPERATIONS, Operation, magnitude
from mlcls_jax.data.augment.policies import auto_augment, rand_augment, rand_augment_v4
from mlcls_jax.errors import ConfigError, unknown

__all__ = [
    "AUGMENTATIONS",
    "CROPS",
    "OPERATIONS",
    "Augmentation",
    "Box",
    "Crop",
    "Operation",
    "augmentations",
    "crop_of",
    "cutout",
    "magnitude",
    "rand_augment_v4",
]

Augmentation = Callable[[np.ndarray, np.random.Generator], np.ndarray]
Crop = Callable[[np.random.Generator], Box]

# name in data.augment → function of a picture that has the network's size
AUGMENTATIONS: dict[str, Augmentation] = {
    "autoaugment": auto_augment,
    "color_jitter": color_jitter,
    "cutout": half_cutout,
    "flip": flip,
    "gridmask": grid_mask,
    "hide_and_seek": hide_and_seek,
    "randaugment": rand_augment,
    "randaugment_v4": rand_augment_v4,
    "random_erasing": random_erasing,
}

# name in data.augment → function that says which part of a picture is resized to that size
CROPS: dict[str, Crop] = {"random_resized_crop": random_resized_crop}


def augmentations(names: Sequence[str]) -> list[Augmentation]:
    """Return the functions that data.augment names, in its order, without the crop; see `crop_of`.

    Raises:
      ConfigError: lists every unknown name, with the nearest right one, and every crop that is
        not the first.
    """
    known = CROPS | AUGMENTATIONS
    faults = [
        unknown(f"data.augment has {name!r}", "augmentation", name, known)
        for name in names
        if name not in known
    ]
    faults += [
        f"data.augment has {name!r} at place {place}: a crop comes before the picture is resized,"
        " so it must be the first"
        for place, name in enumerate(names[1:], start=2)
        if name in CROPS
    ]
    if faults:
        raise ConfigError("\n".join(faults))
    return [AUGMENTATIONS[name] for name in names if name not in CROPS]


def crop_of(names: Sequence[str]) -> Crop | None:
    """Return the crop that data.augment begins with, if it does."""
    return CROPS.get(names[0]) if names else None
