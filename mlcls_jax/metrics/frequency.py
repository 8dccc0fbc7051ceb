"""Average precision of frequent, less frequent and rare labels apart."""

from typing import Any

import numpy as np

# As papers on long tails count: more training images, as many or fewer, and fewer than that.
HEAD, TAIL = 100, 20
TEXTS = {
    "head": f"more than {HEAD}",
    "medium": f"{TAIL} to {HEAD}",
    "tail": f"fewer than {TAIL}",
}


def mean_by_frequency(values: np.ndarray, images: np.ndarray) -> dict[str, dict[str, Any]]:
    """Return the mean of values [K] over the labels with many, some and few training images.

    Args:
        values: average precision, for instance; NaN counts nowhere.
        images: [K], training images with each label.

    Returns:
        By "head", "medium" and "tail": the mean ("MultiLabelMAP", None without labels), the number
        of labels that it is of, and which they are ("training_images").

    Example:
        >>> found = mean_by_frequency(np.array([0.9, 0.5, 0.3]), np.array([500, 19, 3]))
        >>> [round(found[part]["MultiLabelMAP"], 2) for part in ("head", "tail")]
        [0.9, 0.4]
    """
    parts = {"head": images > HEAD, "medium": (images >= TAIL) & (images <= HEAD)}
    parts["tail"] = images < TAIL
    told = {}
    for name, is_in in parts.items():
        mine = values[is_in & ~np.isnan(values)]
        told[name] = {
            "MultiLabelMAP": float(mine.mean()) if mine.size else None,
            "labels": int(mine.size),
            "training_images": TEXTS[name],
        }
    return told
