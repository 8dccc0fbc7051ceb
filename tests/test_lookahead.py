"""Work ahead of its consumer: order, bound, exceptions and dropping."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from mlcls_jax.lookahead import delayed, map_ahead


@pytest.mark.parametrize("ahead", [1, 3, 100])
def test_results_come_in_order_and_no_more_are_begun_than_asked_for(ahead):
    begun, taken = [], 0
    with ThreadPoolExecutor(4) as pool:
        for result in map_ahead(pool, lambda i: begun.append(i) or 2 * i, range(20), ahead):
            assert result == 2 * taken
            taken += 1
            assert len(begun) <= taken + ahead
    assert taken == 20 and sorted(begun) == list(range(20))


@pytest.mark.parametrize("by", [0, 2, 9])
def test_delayed_items_come_in_order_once_the_next_ones_are_taken(by):
    taken = []
    for item in delayed((taken.append(i) or i for i in range(5)), by):
        assert taken == list(range(min(5, item + by + 1)))
    assert item == 4


def test_an_exception_comes_after_the_results_before_it():
    with ThreadPoolExecutor(2) as pool:
        results = map_ahead(pool, lambda i: 6 / (3 - i), range(6), 4)
        assert [next(results), next(results), next(results)] == [2, 3, 6]
        with pytest.raises(ZeroDivisionError):
            next(results)


def test_what_has_not_begun_is_dropped_when_it_is_closed():
    go, done = threading.Event(), []

    def work(i):
        if i:
            go.wait()
        done.append(i)

    with ThreadPoolExecutor(1) as pool:
        with closing(map_ahead(pool, work, range(9), 5)) as results:
            next(results)
        go.set()
    assert done in ([0], [0, 1])  # the call in a thread's hands is finished
