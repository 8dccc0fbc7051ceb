"""The largest batch that fits, where only trying tells."""

from collections.abc import Callable


def largest(fits: Callable[[int], bool], guess: int, *, grain: int = 1) -> int:
    """Return the largest multiple of `grain` that fits, by bisection from a guess; 0 if none does.

    What fits is taken to fit when it is made smaller. Each try may be dear: the guess is widened by
    a quarter until the answer lies between two tries.
    """
    low, high = 0, None  # multiples: fits; does not fit
    step = max(1, round(guess / grain))
    while high is None or high - low > 1:
        if fits(step * grain):
            low = step
        else:
            high = step
        if high is None:
            step = low + max(1, low // 4)
        elif low == 0:
            step = min(high - 1, max(1, high * 4 // 5))
        else:
            step = (low + high) // 2
    return low * grain
