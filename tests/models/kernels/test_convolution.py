"""Every form of a convolution equals XLA's, gradients included."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlcls_jax.models.kernels import CPUS, NVIDIA, ONE_CPU, PLAIN, PORTABLE
from mlcls_jax.models.kernels.convolution import conv2d_by_hand, conv2d_of_squares, xla_conv2d
from tests.helpers.gradients import value_and_gradients
from tests.helpers.tiers import pairs

SHAPES = [(2, 8, 8, 4), (1, 7, 9, 3), (3, 4, 5, 1), (2, 1, 1, 2)]


@pytest.mark.parametrize(("shape", "stride", "size"), pairs(SHAPES, [1, 2], [1, 2, 3, 7]))
def test_values_and_gradients_equal_those_of_xla(size, stride, shape):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=shape), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(size, size, shape[-1], 5)), jnp.float32)
    value, x_grad, kernel_grad = value_and_gradients(
        lambda x, k: conv2d_by_hand(x, k, stride, True), x, kernel
    )
    expected = value_and_gradients(lambda x, k: xla_conv2d(x, k, stride=stride), x, kernel)
    np.testing.assert_array_equal(value, expected[0])
    np.testing.assert_allclose(x_grad, expected[1], atol=1e-4)
    np.testing.assert_allclose(kernel_grad, expected[2], atol=1e-4)


@pytest.mark.parametrize("size", [2, 3, 4, 7])
@pytest.mark.parametrize("shape", [(2, 8, 6, 3), (1, 7, 9, 1)])
def test_squares_of_pixels_as_channels_give_the_convolution_of_stride_2(shape, size):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=shape), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(size, size, shape[-1], 5)), jnp.float32)
    found = value_and_gradients(conv2d_of_squares, x, kernel)
    expected = value_and_gradients(lambda x, k: xla_conv2d(x, k, stride=2), x, kernel)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_bfloat16_is_summed_in_float32():
    x, kernel = jnp.ones((1, 40, 40, 1), jnp.bfloat16), jnp.ones((1, 1, 1, 2), jnp.bfloat16)
    value, pull_back = jax.vjp(lambda x, k: conv2d_by_hand(x, k, 1, True), x, kernel)
    _, kernel_grad = pull_back(jnp.ones_like(value))
    assert kernel_grad.dtype == jnp.bfloat16
    np.testing.assert_array_equal(kernel_grad, 1600.0)  # in bfloat16, ones add up to 256 at most


def test_rows_are_summed_where_that_is_the_faster_one():
    def has_loop(conv2d, channels, size):
        def total(kernel):
            return conv2d(jnp.ones((1, 4, 4, 3)), kernel).sum()

        return "scan" in str(jax.make_jaxpr(jax.grad(total))(jnp.ones((size, size, 3, channels))))

    def with_loop(kernels, size=3):
        return [n for n in (8, 32, 48, 256, 512) if has_loop(kernels.conv2d, n, size)]

    assert with_loop(ONE_CPU) == [48, 256]
    assert with_loop(ONE_CPU, size=7) == [8, 32, 48, 256, 512]
    assert with_loop(CPUS) == with_loop(PLAIN) == []


def test_gradients_with_strides_multiply_by_no_zeros_on_cpus():
    def dilated(kernels):
        def total(x):
            return kernels.conv2d(x, jnp.ones((3, 3, 3, 8)), stride=2).sum()

        traced = str(jax.make_jaxpr(jax.grad(total))(jnp.ones((1, 4, 4, 3))))
        return "lhs_dilation=(2, 2)" in traced

    assert dilated(PLAIN) and not dilated(CPUS) and not dilated(ONE_CPU)


@pytest.mark.parametrize("kernels", [PORTABLE, CPUS, ONE_CPU, NVIDIA])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize(
    ("size", "groups", "outputs"), [(1, 1, 5), (3, 1, 48), (3, 4, 4), (2, 2, 6)]
)
def test_every_form_of_a_convolution_gives_the_plain_values(kernels, stride, size, groups, outputs):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, 7, 8, 4)), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(size, size, 4 // groups, outputs)), jnp.float32)
    found, expected = (
        value_and_gradients(partial(f, stride=stride, groups=groups), x, kernel)
        for f in (kernels.conv2d, PLAIN.conv2d)
    )
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)
