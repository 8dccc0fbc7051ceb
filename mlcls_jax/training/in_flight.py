"""The steps under way, and their numbers until they are read."""

import math
from collections import deque
from collections.abc import Iterator

import jax

Numbers = dict[str, jax.Array]


class InFlight:
    """Keep at most two steps under way, so that a run can end soon after it is asked to.

    Steps are sent off long before they are computed. Two are enough for the devices never to wait:
    while one is computed, the next one lies ready. Numbers are read later, for the same reason.
    """

    def __init__(self) -> None:
        self._under_way: deque[Numbers] = deque()
        self._unread: deque[tuple[int, Numbers]] = deque()

    def sent(self, step: int, numbers: Numbers) -> None:
        """Take note of a step that was sent off; wait for the one before it."""
        self._unread.append((step, numbers))
        self._under_way.append(numbers)
        if len(self._under_way) == 2:
            jax.block_until_ready(self._under_way.popleft())

    def read(self, *, before: float = math.inf) -> Iterator[tuple[int, dict[str, float]]]:
        """Yield the numbers of each step up to `before`, once; waits for those steps."""
        due = []
        while self._unread and self._unread[0][0] <= before:
            due.append(self._unread.popleft())
        for step, numbers in jax.device_get(due):  # begins all copies, then waits for them
            yield step, {name: float(value) for name, value in numbers.items()}
