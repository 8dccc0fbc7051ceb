"""Batch normalisation in training: values, statistics and gradients against autodiff's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlcls_jax.models.norms import _normalise

EPSILON = 1e-5


def plain(x, scale, bias):
    """The formula of the paper, in the dtype of `x`."""
    mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
    return (x - mean) / jnp.sqrt(var + EPSILON) * scale + bias


def arrays(offset, dtype=np.float64):
    rng = np.random.default_rng(0)
    x = rng.normal(offset, 2.0, (3, 5, 7, 4))
    scale, bias, cotangent = rng.normal(size=4), rng.normal(size=4), rng.normal(size=x.shape)
    return [jnp.asarray(a, dtype) for a in (x, scale, bias, cotangent)]


@pytest.mark.parametrize("offset", [0.0, 5.0])
def test_values_and_gradients_equal_autodiff_of_the_formula(offset):
    with jax.enable_x64(True):
        *at, cotangent = arrays(offset)
        expected, expected_pull_back = jax.vjp(plain, *at)
        value, pull_back = jax.vjp(lambda *a: _normalise(*a, EPSILON)[0], *at)
        np.testing.assert_allclose(value, expected, atol=1e-12)
        pairs = zip(pull_back(cotangent), expected_pull_back(cotangent), strict=True)
        for ours, theirs in pairs:
            np.testing.assert_allclose(ours, theirs, atol=1e-12)


@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_float32_is_precise_even_where_the_mean_is_far_from_zero(offset):
    with jax.enable_x64(True):
        *at, cotangent = arrays(offset)
        expected = jax.vjp(plain, *at)[1](cotangent)
        *at, cotangent = (a.astype(jnp.float32) for a in (*at, cotangent))
        found = jax.vjp(lambda *a: _normalise(*a, EPSILON)[0], *at)[1](cotangent)
        for ours, theirs in zip(found, expected, strict=True):
            assert ours.dtype == jnp.float32
            np.testing.assert_allclose(ours, theirs, rtol=2e-6, atol=5e-6 * (1 + offset))


def test_gradients_have_the_dtypes_of_what_they_belong_to():
    x, scale, bias, cotangent = arrays(0.0, np.float32)
    x, cotangent = x.astype(jnp.bfloat16), cotangent.astype(jnp.bfloat16)
    (value, *statistics), pull_back = jax.vjp(lambda *a: _normalise(*a, EPSILON), x, scale, bias)
    assert value.dtype == jnp.bfloat16
    assert {a.dtype for a in statistics} == {jnp.dtype(jnp.float32)}
    gradients = pull_back((cotangent, *map(jnp.zeros_like, statistics)))
    assert [g.dtype for g in gradients] == [jnp.bfloat16, jnp.float32, jnp.float32]
