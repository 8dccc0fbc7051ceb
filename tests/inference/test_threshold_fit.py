"""Thresholds are put into a bundle only where images tell them."""

from typing import cast

import numpy as np
import pytest

from mlcls_jax import config as schema
from mlcls_jax.errors import DataError
from mlcls_jax.inference.bundle import Bundle
from mlcls_jax.inference.threshold_fit import fit_thresholds


@pytest.mark.parametrize("value", [-1, 0])
def test_without_a_label_that_is_present_the_bundle_keeps_its_thresholds(tmp_path, value):
    logits, targets = np.ones((4, 3), np.float32), np.full((4, 3), value, np.float32)
    with pytest.raises(DataError, match="keeps its thresholds: there are 4 images, and no label"):
        fit_thresholds(tmp_path, cast(Bundle, None), logits, targets, schema.Thresholds())
    assert not [*tmp_path.iterdir()]
