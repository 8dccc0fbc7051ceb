"""Thresholds that a run chooses at its end."""

from dataclasses import replace

import numpy as np
import pytest

from mlcls_jax import config as schema
from mlcls_jax.inference.bundle import read_bundle
from mlcls_jax.modes.train import train
from tests.helpers.small_run import small

pytestmark = pytest.mark.usefixtures("toy", "compiled_once")


def config_of(wish: str, **evaluate) -> schema.Config:
    # The asymmetric loss asks absent labels for no score below its clip, here nearly 1.
    config = small(
        epochs=1,
        loss=schema.Loss(clip=0.9),
        optimizer={"learning_rate": 1e-2},
        train={"fit_thresholds": wish, "ema_decay": 0.0},
    )
    return replace(config, evaluate=replace(config.evaluate, **evaluate))


@pytest.mark.slow
def test_a_model_that_would_report_everything_gets_thresholds(tmp_path):
    result = train(config_of("auto"), tmp_path)
    assert result is not None and result.thresholds is not None
    assert result.thresholds["before"]["OR"] > 0.9
    assert not any("mlcls thresholds" in told for told in result.warnings)
    # It tells labels apart, or the run says that it cannot.
    reports_all = result.thresholds["after"]["OR"] > 0.9
    assert not reports_all or any("scores say little" in told for told in result.warnings)
    threshold = read_bundle(tmp_path / "best_model").threshold
    assert isinstance(threshold, tuple) and len(threshold) == 10
    lines = result.summary(config_of("auto"), tmp_path, "")
    assert any(line.startswith("  thresholds   chosen for each label: OF1") for line in lines)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("wish", "evaluate", "threshold"), [("never", {}, 0.5), ("auto", {"threshold": 0.1}, 0.1)]
)
def test_a_threshold_that_was_asked_for_stays_and_is_warned_of(tmp_path, wish, evaluate, threshold):
    result = train(config_of(wish, **evaluate), tmp_path)
    assert result is not None and result.thresholds is None
    assert any("every label is reported on every" in told for told in result.warnings)
    assert read_bundle(tmp_path / "best_model").threshold == np.float32(threshold)
