"""Augmentations that draw one or more of the operations."""

from typing import NamedTuple

import numpy as np

from mlcls_jax.data.augment.operations import OPERATIONS, apply_randomly, magnitude


def rand_augment_v4(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Two operations of random kind and strength, each of them left out with probability 0.5.

    PaddleClas' `RandAugmentV4`, which the ML-Decoder recipes train with: the ordered pair is one
    of 135 x 135, all equally likely, and an operation may meet itself. One thing differs: there
    every rotation is counter-clockwise, here either direction is as likely.
    """
    names = tuple(OPERATIONS)
    for kind, index in rng.integers((0, 1), (len(names), 10), (2, 2)).tolist():
        if rng.random() < 0.5:
            strength = magnitude(names[kind], index)
            image = apply_randomly(image, rng, name=names[kind], strength=strength)
    return image


# RandAugment's operations at magnitude 5 of 10
STRENGTHS = {
    "shearX": 0.15,
    "shearY": 0.15,
    "translateX": 75 / 331,
    "translateY": 75 / 331,
    "rotate": 15.0,
    "color": 0.45,
    "posterize": 2.0,
    "solarize": 128.0,
    "contrast": 0.45,
    "sharpness": 0.45,
    "brightness": 0.45,
    "autocontrast": 0.0,
    "equalize": 0.0,
    "invert": 0.0,
}


def rand_augment(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Two of 14 operations, of equal chances, at one strength for all; one may meet itself.

    Cubuk et al., 2020; PaddleClas' `RandAugment` with its defaults, two layers of magnitude 5, but
    turning in either direction.
    """
    names = tuple(STRENGTHS)
    for kind in rng.integers(len(names), size=2).tolist():
        image = apply_randomly(image, rng, name=names[kind], strength=STRENGTHS[names[kind]])
    return image


class Step(NamedTuple):
    """Half of a sub-policy."""

    operation: str
    probability: float
    index: int  # of the operation's magnitudes


# Of the ImageNet policy, in the paper's order. The last five repeat earlier ones.
SUB_POLICIES = (
    (Step("posterize", 0.4, 8), Step("rotate", 0.6, 9)),
    (Step("solarize", 0.6, 5), Step("autocontrast", 0.6, 5)),
    (Step("equalize", 0.8, 8), Step("equalize", 0.6, 3)),
    (Step("posterize", 0.6, 7), Step("posterize", 0.6, 6)),
    (Step("equalize", 0.4, 7), Step("solarize", 0.2, 4)),
    (Step("equalize", 0.4, 4), Step("rotate", 0.8, 8)),
    (Step("solarize", 0.6, 3), Step("equalize", 0.6, 7)),
    (Step("posterize", 0.8, 5), Step("equalize", 1.0, 2)),
    (Step("rotate", 0.2, 3), Step("solarize", 0.6, 8)),
    (Step("equalize", 0.6, 8), Step("posterize", 0.4, 6)),
    (Step("rotate", 0.8, 8), Step("color", 0.4, 0)),
    (Step("rotate", 0.4, 9), Step("equalize", 0.6, 2)),
    (Step("equalize", 0.0, 7), Step("equalize", 0.8, 8)),
    (Step("invert", 0.6, 4), Step("equalize", 1.0, 8)),
    (Step("color", 0.6, 4), Step("contrast", 1.0, 8)),
    (Step("rotate", 0.8, 8), Step("color", 1.0, 2)),
    (Step("color", 0.8, 8), Step("solarize", 0.8, 7)),
    (Step("sharpness", 0.4, 7), Step("invert", 0.6, 8)),
    (Step("shearX", 0.6, 5), Step("equalize", 1.0, 9)),
    (Step("color", 0.4, 0), Step("equalize", 0.6, 3)),
    (Step("equalize", 0.4, 7), Step("solarize", 0.2, 4)),
    (Step("solarize", 0.6, 5), Step("autocontrast", 0.6, 5)),
    (Step("invert", 0.6, 4), Step("equalize", 1.0, 8)),
    (Step("color", 0.6, 4), Step("contrast", 1.0, 8)),
    (Step("equalize", 0.8, 8), Step("equalize", 0.6, 3)),
)


def auto_augment(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return one of 25 pairs of operations, each with its own probability and strength.

    Cubuk et al., 2019, the policy found on ImageNet; PaddleClas' `ImageNetPolicy`, but turning in
    either direction.
    """
    for name, probability, index in SUB_POLICIES[rng.integers(len(SUB_POLICIES))]:
        if rng.random() < probability:
            strength = float(OPERATIONS[name].magnitudes[index])
            image = apply_randomly(image, rng, name=name, strength=strength)
    return image
