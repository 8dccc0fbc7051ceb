"""Weights of classes from how often their labels occur."""

import numpy as np

CLASS_WEIGHTS = ("none", "inverse", "effective")
BETA = 0.999  # of the effective number: the paper's for small sets


def weights_of_classes(how: str, positives: np.ndarray) -> np.ndarray:
    """Return the factor of each class in the loss, float64 [K] with mean 1.

    "inverse": 1/n, with n images that have the label. "effective": (1-β) / (1-β^n), the inverse of
    the effective number of images (Cui et al., 2019), β = 0.999. Classes without an image count as
    having one.

    Args:
        how: "inverse" or "effective".
        positives: [K], images with each label.

    Raises:
        ValueError: there is no such rule.

    Example:
        >>> import numpy as np
        >>> weights_of_classes("inverse", np.array([10, 30])).tolist()
        [1.5, 0.5]
    """
    counts = np.maximum(np.asarray(positives, np.float64), 1)
    if how == "inverse":
        weights = 1 / counts
    elif how == "effective":
        weights = (1 - BETA) / (1 - BETA**counts)
    else:
        raise ValueError(f"class weights are {how!r}; they must be inverse or effective")
    return weights / weights.mean()
