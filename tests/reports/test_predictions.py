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


def test_a_caption_has_room_for_the_first_labels_of_a_kind():
    """All of 142,857 labels made a picture that its reader took for a bomb."""
    labels = [str(k) for k in range(150)]
    told = caption(labels, judge(np.ones(150, bool), np.arange(150) > 9))
    assert told.startswith("10, 11, ") and told.splitlines()[0].endswith(", 109, (and 40 more)")
    assert told.splitlines()[1] == "wrong: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9"
