"""Captions of the picture of predictions."""

import numpy as np
import pytest

from mlcls_jax.reports.predictions import caption, judge


@pytest.mark.parametrize(
    ("predicted", "target", "told"),
    [
        ([1, 1, 0, 0], [1, 0, 1, 0], "cat\nwrong: dog\nmissed: sky"),
        ([1, 0, 1, 0], [1, 0, 1, 0], "cat, sky"),
        ([1, 0, 0, 1], [-1, -1, 0, 1], "sea\nnot annotated: cat"),
        ([0, 0, 0, 0], [0, -1, 0, 0], "none"),
    ],
)
def test_labels_are_told_apart_by_right_wrong_and_missed(predicted, target, told):
    labels = ("cat", "dog", "sky", "sea")
    assert caption(labels, judge(np.array(predicted, bool), np.int8(target))) == told
