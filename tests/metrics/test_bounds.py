"""What missing labels leave possible, and labels by frequency: brute force."""

import itertools

import numpy as np
import pytest

from mlcls_jax.metrics import average_precision, mean_average_precision
from mlcls_jax.metrics.bounds import mean_precision_bounds, precision_bounds
from mlcls_jax.metrics.frequency import mean_by_frequency


def completions(targets):
    """Yield all ways to complete the targets."""
    missing = np.argwhere(targets < 0)
    for values in itertools.product((0, 1), repeat=len(missing)):
        whole = targets.copy()
        whole[tuple(missing.T)] = values
        yield whole


@pytest.mark.parametrize("levels", [3, 10_000], ids=["ties", "distinct"])
def test_bounds_are_those_of_all_completions(levels):
    rng = np.random.default_rng(levels)
    for _ in range(30):
        scores = rng.integers(0, levels, (7, 1)) / levels
        targets = rng.choice([-1, 0, 1], (7, 1), p=(0.5, 0.3, 0.2))
        values = [average_precision(scores, whole)[0] for whole in completions(targets)]
        low, high = precision_bounds(scores, targets)
        if np.isnan(values).all():
            assert np.isnan([low, high]).all()
            continue
        np.testing.assert_allclose([low[0], high[0]], [np.nanmin(values), np.nanmax(values)])


def test_bounds_of_the_mean_may_leave_out_labels_without_a_known_positive():
    rng = np.random.default_rng(0)
    for _ in range(15):
        scores = rng.random((4, 3))
        targets = rng.choice([-1, 0, 1], (4, 3), p=(0.5, 0.35, 0.15))
        values = [mean_average_precision(scores, whole) for whole in completions(targets)]
        expected = (
            [np.nan, np.nan] if np.isnan(values).all() else [np.nanmin(values), np.nanmax(values)]
        )
        np.testing.assert_allclose(mean_precision_bounds(scores, targets), expected)


def test_with_all_labels_known_the_bounds_meet():
    rng = np.random.default_rng(1)
    scores, targets = rng.random((50, 4)), rng.integers(0, 2, (50, 4))
    mean = mean_average_precision(scores, targets)
    np.testing.assert_allclose(mean_precision_bounds(scores, targets), [mean, mean])


def test_labels_are_divided_by_their_training_images():
    values, images = np.array([0.2, 0.4, np.nan, 0.8, 1.0]), np.array([101, 100, 20, 20, 19])
    found = mean_by_frequency(values, images)
    assert {name: (part["MultiLabelMAP"], part["labels"]) for name, part in found.items()} == {
        "head": (0.2, 1),
        "medium": (pytest.approx(0.6), 2),
        "tail": (1.0, 1),
    }
    assert mean_by_frequency(values[:1], images[:1])["tail"]["MultiLabelMAP"] is None
