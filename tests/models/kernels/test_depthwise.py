"""The CPU form of the depthwise convolution equals XLA's grouped convolution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlcls_jax.models.kernels.convolution import xla_conv2d
from mlcls_jax.models.kernels.depthwise import depthwise_shifted
from tests.helpers.gradients import value_and_gradients
from tests.helpers.tiers import pairs


def grouped(x, kernel, stride):
    """The same by XLA."""
    return xla_conv2d(x, kernel[:, :, None], stride=stride, groups=x.shape[-1])


SHAPES = [(2, 8, 8, 4), (1, 7, 9, 3), (3, 4, 5, 1), (2, 1, 1, 2)]


@pytest.mark.parametrize(("shape", "stride", "size"), pairs(SHAPES, [1, 2], [1, 2, 3, 5]))
def test_values_and_gradients_equal_the_grouped_convolution(size, stride, shape):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=shape), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(size, size, shape[-1])), jnp.float32)
    ours = value_and_gradients(lambda x, k: depthwise_shifted(x, k, stride), x, kernel)
    theirs = value_and_gradients(lambda x, k: grouped(x, k, stride), x, kernel)
    np.testing.assert_allclose(ours[0], theirs[0], atol=1e-5)
    for gradient, expected in zip(ours[1:], theirs[1:], strict=True):
        np.testing.assert_allclose(gradient, expected, atol=1e-4)


def test_bfloat16_stays_bfloat16():
    x = jnp.ones((1, 4, 4, 2), jnp.bfloat16)
    kernel = jnp.ones((3, 3, 2), jnp.bfloat16)
    value, pull_back = jax.vjp(lambda x, k: depthwise_shifted(x, k, 1), x, kernel)
    assert value.dtype == jnp.bfloat16
    assert {g.dtype for g in pull_back(value)} == {jnp.dtype(jnp.bfloat16)}
