"""Brightness, contrast and saturation by chance."""

import numpy as np

from mlcls_jax.data.augment.enhance import brightness, contrast, saturation


def color_jitter(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Brightness, contrast and saturation, each times 0.6 to 1.4, in random order.

    The usual jitter of ImageNet training (0.4 of each). The hue stays: colours tell labels apart,
    and changing it would cost more than everything else here.
    """
    factors = rng.uniform(0.6, 1.4, 3).tolist()
    for kind in rng.permutation(3).tolist():
        image = (brightness, contrast, saturation)[kind](image, factors[kind])
    return image
