"""Work done ahead of its consumer, in order and within a bound.

The image stream has a loop of another kind: it expands documents in place and spares a slow source.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def delayed(items: Iterable[Item], by: int) -> Iterator[Item]:
    """Yield each of the items once the next `by` have been taken.

    For what goes on by itself once it is begun: copies to devices, and what these compute.
    """
    waiting: deque[Item] = deque()
    for item in items:
        waiting.append(item)
        if len(waiting) > by:
            yield waiting.popleft()
    yield from waiting


def map_ahead(
    pool: Executor, function: Callable[[Item], Result], items: Iterable[Item], ahead: int
) -> Generator[Result, None, None]:
    """Map like `pool.map`, but with at most `ahead` calls begun and not yet taken.

    An exception of a call is raised when its turn comes, one of `items` at once. When the generator
    is closed, calls that no thread has begun are dropped.
    """
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) >= ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
