"""Training of the head alone."""

import jax
import numpy as np
import pytest

from mlcls_jax.inference.bundle import read_bundle
from mlcls_jax.models.network import flatten
from mlcls_jax.modes.train import train
from mlcls_jax.training.run import first_variables, prepare
from tests.helpers.small_run import small

pytestmark = pytest.mark.usefixtures("toy", "compiled_once")


def test_a_frozen_backbone_keeps_every_bit_and_has_no_moments(tmp_path):
    config = small(epochs=1, train={"frozen_backbone": True, "ema_decay": 0.9})
    run = prepare(config, tmp_path)
    before = flatten(first_variables(run.network, run.weights, config.seed, run.mesh))
    paths = jax.tree_util.tree_leaves_with_path(run.abstract.opt_state)
    assert not any("backbone" in jax.tree_util.keystr(path) for path, _ in paths)
    result = train(config, tmp_path)
    assert result is not None and result.steps == 4
    for path, array in flatten(read_bundle(tmp_path / "best_model").model.variables).items():
        assert np.array_equal(array, before[path]) == path.startswith("backbone/"), path
