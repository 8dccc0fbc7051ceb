"""The convolution whose kernel's gradient is summed by rows equals XLA's, gradients included."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlcls_jax.models.kernels.convolution import conv2d_by_rows, xla_conv2d
from tests.helpers.commands import on_devices
from tests.helpers.gradients import value_and_gradients
from tests.helpers.tiers import pairs

SHAPES = [(2, 8, 8, 4), (1, 7, 9, 3), (3, 4, 5, 1), (2, 1, 1, 2)]


@pytest.mark.parametrize(("shape", "stride", "size"), pairs(SHAPES, [1, 2], [1, 2, 3, 7]))
def test_values_and_gradients_equal_those_of_xla(size, stride, shape):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=shape), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(size, size, shape[-1], 5)), jnp.float32)
    value, x_grad, kernel_grad = value_and_gradients(
        lambda x, k: conv2d_by_rows(x, k, stride), x, kernel
    )
    expected = value_and_gradients(lambda x, k: xla_conv2d(x, k, stride=stride), x, kernel)
    np.testing.assert_array_equal(value, expected[0])
    np.testing.assert_array_equal(x_grad, expected[1])
    np.testing.assert_allclose(kernel_grad, expected[2], atol=1e-4)


def test_bfloat16_is_summed_in_float32():
    x, kernel = jnp.ones((1, 40, 40, 1), jnp.bfloat16), jnp.ones((1, 1, 1, 2), jnp.bfloat16)
    value, pull_back = jax.vjp(lambda x, k: conv2d_by_rows(x, k, 1), x, kernel)
    _, kernel_grad = pull_back(jnp.ones_like(value))
    assert kernel_grad.dtype == jnp.bfloat16
    np.testing.assert_array_equal(kernel_grad, 1600.0)  # in bfloat16, ones add up to 256 at most


PROGRAM = """
import jax, jax.numpy as jnp
from mlcls_jax.models.layers import conv2d, depthwise_form

def has_loop(channels):
    def total(kernel):
        return conv2d(jnp.ones((1, 4, 4, 3)), kernel).sum()

    return "scan" in str(jax.make_jaxpr(jax.grad(total))(jnp.ones((3, 3, 3, channels))))

print([channels for channels in (8, 32, 48, 256, 512) if has_loop(channels)])
with depthwise_form("plain"):
    assert not has_loop(48)
"""


@pytest.mark.parametrize(("devices", "channels"), [(1, "[48, 256]"), (2, "[]")])
def test_it_is_taken_where_it_is_the_faster_one(devices, channels):
    assert on_devices(devices, PROGRAM).strip() == channels
