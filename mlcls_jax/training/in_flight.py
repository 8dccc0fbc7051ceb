"""How far the host may run ahead of the devices."""

from collections import deque
from typing import Any

import jax


class Ahead:
    """Keeps at most `limit` steps under way, so that a run can end soon after it is asked to.

    Steps are sent off long before they are computed. Two are enough for the devices never to wait:
    while one is computed, the next one lies ready.
    """

    def __init__(self, limit: int = 2) -> None:
        self._limit = limit
        self._under_way: deque[Any] = deque()

    def sent(self, numbers: Any) -> None:
        """To be called with what each step gives; waits for the one `limit - 1` steps before."""
        self._under_way.append(numbers)
        if len(self._under_way) == self._limit:
            jax.block_until_ready(self._under_way.popleft())
