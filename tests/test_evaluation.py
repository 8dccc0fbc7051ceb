"""Scoring a data set: every readable image once, and labels that must agree."""

from pathlib import Path

import numpy as np
import pytest

from mlcls_jax import parallel
from mlcls_jax.config import Data
from mlcls_jax.data.frame import Frame
from mlcls_jax.data.pipeline import Reader, eval_batches
from mlcls_jax.errors import ConfigError, DataError, NonFiniteError
from mlcls_jax.evaluation import mean_loss, score
from mlcls_jax.inference.bundle import check_labels
from tests.helpers.photos import Numbers


def scored(source: Numbers, batch_size: int = 4):
    """Scores by two models that multiply the grey value by 1 and by 10."""
    batches = eval_batches(Reader(source, Frame((4, 4)), "skip"), Data(), batch_size=batch_size)
    models = {"one": np.float32(1), "ten": np.float32(10)}
    return score(lambda v, images: images[:, 0, 0, :2] * v, models, batches, parallel.make_mesh())


@pytest.mark.parametrize("count", [1, 4, 5, 11])
def test_every_image_is_scored_once_by_every_model_in_order(count):
    scores, targets = scored(Numbers(count))
    np.testing.assert_array_equal(scores["one"][:, 1], np.arange(count))
    np.testing.assert_array_equal(scores["ten"][:, 0], np.arange(count) * 10)
    np.testing.assert_array_equal(targets[:, 1], np.arange(count) % 2)


def test_the_device_has_the_next_batch_while_the_host_copies_one():
    begun, copied = [], []

    class Logits:
        def __init__(self, images):
            self.images = images
            begun.append(self)

        def __array__(self, *_, **__):
            copied.append(len(begun))
            return np.asarray(self.images[:, 0, 0, :2], np.float32)

    batches = eval_batches(Reader(Numbers(12), Frame((4, 4)), "skip"), Data(), batch_size=4)
    score(lambda _, images: Logits(images), {"": None}, batches, parallel.make_mesh())
    assert copied == [2, 3, 3]


def test_unreadable_images_are_left_out():
    scores, targets = scored(Numbers(7, broken=(0, 4, 5, 6)))
    np.testing.assert_array_equal(scores["one"][:, 0], [1, 2, 3])
    np.testing.assert_array_equal(targets[:, 0], [0, 1, 0])


def test_the_loss_is_that_of_full_batches_of_which_the_first_rows_fill_up_the_last():
    logits, targets = np.random.default_rng(0).normal(size=(2, 7, 3)).astype(np.float32)
    found = mean_loss(lambda x, y: ((x - y) ** 2).sum(), logits, targets, batch_size=4)
    errors = ((logits - targets) ** 2).sum(1)
    assert found == pytest.approx((errors.sum() + errors[0]) / 2, rel=1e-6)


def test_a_data_set_without_any_readable_image_cannot_be_evaluated():
    with pytest.raises(DataError, match="none of the images could be read"):
        scored(Numbers(3, broken=(0, 1, 2)))


def test_scores_that_are_not_numbers_end_the_evaluation():
    batches = eval_batches(Reader(Numbers(3), Frame((4, 4)), "raise"), Data(), batch_size=4)
    with pytest.raises(NonFiniteError, match="the raw weights give scores that are not numbers"):
        score(
            lambda v, images: images[:, 0, 0, :2] * v,
            {"raw": np.float32(np.nan)},
            batches,
            parallel.make_mesh(),
        )


@pytest.mark.parametrize(
    ("model", "data", "told"),
    [
        (("cat", "dog"), ("cat",), "has 2 labels, but the data has 1"),
        (("cat", "dog"), ("dog", "cat"), "label 0 is 'cat', but in the data it is 'dog'"),
    ],
)
def test_a_model_is_evaluated_on_its_own_labels_only(model, data, told):
    check_labels(Path("best_model"), model, model)
    with pytest.raises(ConfigError, match=f"best_model: {told}"):
        check_labels(Path("best_model"), model, data)
