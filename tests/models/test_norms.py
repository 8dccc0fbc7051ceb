"""Batch normalisation in training: values, statistics and gradients against autodiff's."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlcls_jax.models.kernels.moments import moments, moments_in_one_pass
from mlcls_jax.models.norms import _normalise

EPSILON = 1e-5
BOTH = pytest.mark.parametrize("moments", [moments, moments_in_one_pass])


def normalised(moments, x, scale, bias):
    mean, var = moments(jax.lax.stop_gradient(x), jnp.zeros_like(scale))
    return _normalise(x, scale, bias, mean, var, EPSILON)


def plain(x, scale, bias):
    """The formula of the paper, in the dtype of `x`."""
    mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
    return (x - mean) / jnp.sqrt(var + EPSILON) * scale + bias


def arrays(offset, dtype=np.float64):
    rng = np.random.default_rng(0)
    x = rng.normal(offset, 2.0, (3, 5, 7, 4))
    scale, bias, cotangent = rng.normal(size=4), rng.normal(size=4), rng.normal(size=x.shape)
    return [jnp.asarray(a, dtype) for a in (x, scale, bias, cotangent)]


@BOTH
@pytest.mark.parametrize("offset", [0.0, 5.0])
def test_values_and_gradients_equal_autodiff_of_the_formula(moments, offset):
    with jax.enable_x64(True):
        *at, cotangent = arrays(offset)
        expected, expected_pull_back = jax.vjp(plain, *at)
        value, pull_back = jax.vjp(partial(normalised, moments), *at)
        np.testing.assert_allclose(value, expected, atol=1e-12)
        pairs = zip(pull_back(cotangent), expected_pull_back(cotangent), strict=True)
        for ours, theirs in pairs:
            np.testing.assert_allclose(ours, theirs, atol=1e-12)


@BOTH
@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_float32_is_precise_even_where_the_mean_is_far_from_zero(moments, offset):
    with jax.enable_x64(True):
        *at, cotangent = arrays(offset)
        expected = jax.vjp(plain, *at)[1](cotangent)
        *at, cotangent = (a.astype(jnp.float32) for a in (*at, cotangent))
        found = jax.vjp(partial(normalised, moments), *at)[1](cotangent)
        for ours, theirs in zip(found, expected, strict=True):
            assert ours.dtype == jnp.float32
            np.testing.assert_allclose(ours, theirs, rtol=2e-6, atol=5e-6 * (1 + offset))


@BOTH
def test_gradients_have_the_dtypes_of_what_they_belong_to(moments):
    x, scale, bias, cotangent = arrays(0.0, np.float32)
    x, cotangent = x.astype(jnp.bfloat16), cotangent.astype(jnp.bfloat16)
    assert {a.dtype for a in moments(x, jnp.zeros(4))} == {jnp.dtype(jnp.float32)}
    value, pull_back = jax.vjp(partial(normalised, moments), x, scale, bias)
    assert value.dtype == jnp.bfloat16
    gradients = pull_back(cotangent)
    assert [g.dtype for g in gradients] == [jnp.bfloat16, jnp.float32, jnp.float32]


@pytest.mark.parametrize("near", [0.0, 25.0, 32.0, 40.0])
def test_one_pass_finds_the_moments_around_any_guess_of_the_mean(near):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal([-32.0, 0.0, 32.0], 1.0, (8, 9, 9, 3)), jnp.bfloat16)
    exact = np.asarray(x, np.float64)
    mean, var = jax.jit(moments_in_one_pass)(x, jnp.full(3, near))
    np.testing.assert_allclose(mean, exact.mean((0, 1, 2)), atol=2e-5)
    lost = np.square(exact.mean((0, 1, 2)) - near) / exact.var((0, 1, 2))  # 12 bits at 72
    assert np.all(np.abs(var / exact.var((0, 1, 2)) - 1) < 4e-6 * (1 + lost))


def test_one_pass_gives_a_constant_channel_no_variance_below_zero():
    x = jnp.full((4, 5, 5, 1), 33.25, jnp.bfloat16)
    for near in (0.0, 33.0, 1000.0):
        assert 0 <= moments_in_one_pass(x, jnp.full(1, near))[1] < 1
