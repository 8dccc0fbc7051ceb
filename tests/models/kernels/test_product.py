"""The product with a gradient for CPUs equals the plain one, gradients included."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlcls_jax.models.kernels.product import matmul_on_cpus
from tests.helpers.gradients import value_and_gradients


@pytest.mark.parametrize("shape", [(4,), (3, 4), (2, 3, 4), (2, 3, 5, 4)])
def test_values_and_gradients_equal_the_plain_product(shape):
    rng = np.random.default_rng(0)
    x, kernel = (jnp.asarray(rng.normal(size=s), jnp.float32) for s in (shape, (4, 6)))
    found = value_and_gradients(matmul_on_cpus, x, kernel)
    expected = value_and_gradients(jnp.matmul, x, kernel)
    np.testing.assert_array_equal(found[0], expected[0])
    for gradient, theirs in zip(found[1:], expected[1:], strict=True):
        np.testing.assert_allclose(gradient, theirs, atol=1e-5)


def test_gradients_have_the_dtypes_of_what_they_belong_to():
    x, kernel = jnp.ones((2, 4), jnp.bfloat16), jnp.ones((4, 3), jnp.float32)
    value, pull_back = jax.vjp(matmul_on_cpus, x, kernel)
    assert [g.dtype for g in pull_back(value)] == [jnp.bfloat16, jnp.float32]
