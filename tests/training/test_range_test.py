"""A learning rate by a test of rising rates: the arithmetic, and a whole run of it."""

import csv
import itertools
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from mlcls_jax.modes.find_lr import find_lr
from mlcls_jax.training.range_test import (
    HIGHEST,
    LOWEST,
    STEPS,
    Curve,
    has_diverged,
    rising_rate,
)
from tests.helpers.small_run import small

RATES = np.geomspace(LOWEST, HIGHEST, STEPS)


def test_the_rate_rises_by_equal_factors():
    assert np.allclose([float(rising_rate(step)) for step in range(STEPS)], RATES, rtol=1e-4)


def test_a_rate_between_the_steepest_and_the_lowest_loss_is_suggested():
    x = np.log10(RATES)
    # Falls around 1e-4, is lowest at 1e-2 and rises again.
    losses = (
        2 - np.tanh(2 * (x + 4)) + 0.2 * np.maximum(0, x + 2) ** 2 - 0.02 * np.minimum(x + 2, 0)
    )
    noise = np.random.default_rng(0).normal(0, 0.02, STEPS)
    curve = Curve(RATES, losses + noise)
    assert curve.lowest is not None and 1e-3 < curve.lowest < 3e-2
    assert curve.suggestion is not None and 2e-4 < curve.suggestion < 3e-3


def test_a_loss_that_does_not_fall_suggests_nothing():
    noise = np.random.default_rng(1).normal(0, 0.01, STEPS)
    curve = Curve(RATES, 1 + noise + np.where(RATES > 1, RATES, 0))
    assert curve.lowest is None and curve.suggestion is None


def test_a_loss_has_diverged_when_it_stays_high_or_is_not_finite():
    assert not has_diverged([1.0, 0.5, 9.0])  # one bad batch
    assert has_diverged([1.0, 0.5, 9.0, 9.0, 9.0, 9.0])
    assert has_diverged([1.0, float("nan")])
    assert not has_diverged([3.0])


@pytest.mark.slow
@pytest.mark.usefixtures("toy", "compiled_once")
def test_a_rate_is_found_by_the_run_s_own_steps_and_nothing_of_a_run_is_touched(tmp_path):
    (tmp_path / "config.yaml").write_text("train: {epochs: 3}\nmode: train\nmodel: {}\n")
    config = replace(
        small(optimizer={"rate_scaling": "linear", "base_batch_size": 4}), mode="find_lr"
    )
    result = find_lr(config, tmp_path)
    assert result is not None and result.suggestion is not None
    assert {path.name for path in tmp_path.iterdir()} == {"config.yaml", "find_lr"}
    with open(result.table, encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    rates = [float(row["learning_rate"]) for row in rows]
    assert rates[0] == pytest.approx(LOWEST / 2)  # the batch of 8 doubles the option
    assert all(b > a for a, b in itertools.pairwise(rates))
    assert Image.open(result.picture).size == (760, 440)
    *_, command = result.summary(config, tmp_path, "mlcls --workdir=x")
    assert f"--config.optimizer.learning_rate={result.suggestion:.1e}" in command
