"""The faults that `benchmarks.labels` makes in labels are those that its table tells of."""

import numpy as np
import pytest

from benchmarks.labels import FALL, damaged


@pytest.fixture(scope="module")
def targets():
    return (np.random.default_rng(0).random((2000, 8)) < np.linspace(0.5, 0.2, 8)).astype(float)


def made(targets, fault):
    return damaged(targets, fault, np.random.default_rng(1))


def test_half_of_all_labels_or_of_those_that_are_present_go(targets):
    _, half = made(targets, "half")
    for value in (0, 1):
        assert abs((half[targets == value] == -1).mean() - 0.5) < 0.03
    _, missing = made(targets, "missing")
    assert (missing[targets == 0] == 0).all()
    assert abs(missing[targets == 1].mean() - 0.5) < 0.03


def test_one_label_that_is_present_is_left_of_each_image(targets):
    _, single = made(targets, "single")
    assert ((single >= 0).sum(1) == (targets == 1).any(1)).all()
    assert (targets[single >= 0] == 1).all()


def test_labels_of_a_tail_get_rarer_and_keep_their_values(targets):
    kept, tail = made(targets, "tail")
    assert (tail == targets[kept]).all()
    images, before = tail.sum(0), targets.sum(0)
    allowed = before.max() * FALL ** -np.linspace(0, 1, 8)
    assert (images[np.argsort(-before)] <= np.round(allowed)).all()
    assert images.min() > 0
