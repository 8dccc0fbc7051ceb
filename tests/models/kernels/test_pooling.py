"""The gradient of max-pooling by hand equals XLA's own."""

import jax.numpy as jnp
import numpy as np
import pytest

from mlcls_jax.models.kernels.pooling import max_pool_by_hand, xla_max_pool
from tests.helpers.gradients import value_and_gradients
from tests.helpers.tiers import pairs

SHAPES = [(2, 8, 8, 4), (1, 7, 9, 3), (3, 4, 5, 1), (2, 1, 1, 2)]


@pytest.mark.parametrize(
    ("draw", "shape", "stride", "size"),
    pairs(["negative", "with many ties"], SHAPES, [1, 2, 3], [2, 3]),
)
def test_values_and_gradients_are_those_of_xla(size, stride, shape, draw):
    rng = np.random.default_rng(0)
    x = -rng.random(shape) - 1 if draw == "negative" else rng.integers(0, 3, shape)
    x = jnp.asarray(x, jnp.float32)

    ours = value_and_gradients(lambda x: max_pool_by_hand(x, size, stride), x)
    theirs = value_and_gradients(lambda x: xla_max_pool(x, size, stride), x)
    np.testing.assert_array_equal(ours[0], theirs[0])
    np.testing.assert_allclose(ours[1], theirs[1], atol=1e-6)


def test_bfloat16_stays_bfloat16():
    x = jnp.ones((1, 4, 4, 2), jnp.bfloat16)
    value, gradient = value_and_gradients(lambda x: max_pool_by_hand(x, 3, 2), x)
    assert value.dtype == gradient.dtype == jnp.bfloat16
