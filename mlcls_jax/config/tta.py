"""What an option of test-time augmentation means, `("flip", "scale:1.15")`."""

import re
from collections.abc import Iterator, Sequence

FLIP = "flip"
HELP = (
    "test-time augmentation: flip and scale:FACTOR, such as scale:1.15; logits are averaged over"
    " all views; (): none"
)
SCALES = (0.25, 4.0)


def scales_of(tta: Sequence[str]) -> list[float]:
    """Return the factors of valid views, without the 1 that is always there."""
    return [float(view.removeprefix("scale:")) for view in tta if view != FLIP]


def tta_faults(key: str, tta: Sequence[str]) -> Iterator[str]:
    """Yield a message for each view that is none."""
    low, high = SCALES
    for view in tta:
        number = re.fullmatch(r"scale:(\d+(?:\.\d+)?)", view)
        if view != FLIP and not (number and low <= float(number[1]) <= high):
            yield (
                f"{key} has {view!r}: must be {FLIP}, or scale:FACTOR with a factor from {low:g}"
                f" to {high:g}, scale:1.15 for instance"
            )
