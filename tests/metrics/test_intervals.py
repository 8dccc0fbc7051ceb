"""Intervals of metrics: against their formulas, plain resampling, and their own promise."""

import numpy as np
import pytest

from mlcls_jax.metrics import average_precision
from mlcls_jax.metrics import intervals as module
from mlcls_jax.metrics.intervals import (
    bootstrap_differences,
    bootstrap_map,
    intervals,
    wilson,
)


def drawn(images, seed, labels=10):
    rng = np.random.default_rng(seed)
    targets = (rng.random((images, labels)) < 0.2).astype(np.float32)
    return rng.normal(size=(images, labels)) + 1.5 * targets, targets


@pytest.mark.parametrize(("share", "count"), [(0.0, 10), (0.5, 40), (0.93, 700), (1.0, 3)])
def test_at_wilsons_bounds_the_share_is_just_as_far_off_as_chance_allows(share, count):
    for bound in wilson(share, count):
        deviation = np.sqrt(max(bound * (1 - bound), 0.0) / count)
        assert abs(share - bound) == pytest.approx(1.959964 * deviation, abs=1e-9)


def test_a_draw_has_the_average_precision_of_its_images():
    scores, targets = drawn(60, 0, labels=4)
    scores = scores.round(1)  # ties
    targets[np.random.default_rng(1).random(targets.shape) < 0.1] = -1  # not annotated
    counts = np.random.default_rng(2).multinomial(60, np.full(60, 1 / 60), size=5)
    for label in range(4):
        ours = module._weighted_precision(
            scores[:, label], targets[:, label], counts.astype(np.float32)
        )
        for value, count in zip(ours, counts, strict=True):
            rows = np.repeat(np.arange(60), count)
            plain = average_precision(scores[rows][:, [label]], targets[rows][:, [label]])
            assert value == pytest.approx(plain[0], abs=1e-6)


def test_about_nineteen_of_twenty_intervals_hold_the_truth():
    truth = 0.63872  # of 200,000 images
    found = [bootstrap_map(*drawn(200, seed)) for seed in range(40)]
    assert sum(low <= truth <= high for low, high in found) in range(35, 41)
    widths = [high - low for low, high in found]
    assert 0.07 < np.mean(widths) < 0.11


def test_what_has_no_interval_has_none(monkeypatch):
    scores, targets = drawn(50, 0)
    metrics = {"MultiLabelMAP": 0.6, "SampleAccuracy": 0.5, "OF1": 0.5}
    assert intervals(metrics, scores, targets).keys() == {"MultiLabelMAP", "SampleAccuracy"}
    assert intervals(metrics, scores, targets, "11point").keys() == {"SampleAccuracy"}
    assert intervals({"MultiLabelMAP": np.nan}, scores, np.zeros_like(targets)) == {}
    assert intervals(metrics, scores, np.full_like(targets, -1)) == {}
    half = np.where(np.arange(50)[:, None] < 25, targets, -1)  # a share of 25 images
    assert intervals(metrics, scores, half)["SampleAccuracy"] == wilson(0.5, 25)
    monkeypatch.setattr(module, "_LARGEST", 50 * 10 * (module.FEWEST - 1))  # too many images
    assert bootstrap_map(scores, targets) is None


def test_the_difference_of_two_models_is_certain_where_one_is_better_throughout():
    rng = np.random.default_rng(0)
    targets = (rng.random((300, 3)) < 0.3).astype(np.float32)
    targets[:, 2] = 0  # a label without positives
    noise = rng.random((300, 3)).astype(np.float32)
    better = targets + noise * [1.2, 3, 1]
    labels, mean = bootstrap_differences(noise, better, targets)
    rises = average_precision(better, targets) - average_precision(noise, targets)
    for (low, high), rise in zip(labels[:2], rises, strict=False):
        assert 0 < low < rise < high
    assert np.isnan(labels[2]).all() and 0 < mean[0] < rises[:2].mean() < mean[1]
    # Of the same images for both: what makes them hard drops out.
    same, mean = bootstrap_differences(better, better, targets)
    assert (same[:2] == 0).all() and mean == (0, 0)


@pytest.mark.filterwarnings("error")
def test_draws_without_any_positive_count_nowhere():
    scores, targets = drawn(3, 0, labels=2)
    targets[:] = 0
    targets[0, 0] = 1  # the only positive, which about a third of the draws leave out
    low, high = bootstrap_map(scores, targets)
    assert 0 <= low <= high <= 1
    labels, mean = bootstrap_differences(scores, -scores, targets)
    assert np.isfinite(labels[0]).all() and np.isnan(labels[1]).all()
    np.testing.assert_allclose(mean, labels[0])
