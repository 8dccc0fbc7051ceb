"""Dropout's random bits: as many zeros as asked, no two draws alike, no pattern."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlcls_jax.models.dropout import Draws, dropout
from tests.helpers.commands import on_devices

SHAPE = (64, 80, 128)


def draws(seed=0):
    return Draws(jax.random.key(seed))


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.5, 0.9])
def test_it_drops_the_share_asked_for_and_keeps_the_mean(rate):
    dropped = np.asarray(dropout(jnp.ones(SHAPE), rate, draws()))
    kept = dropped > 0
    error = np.sqrt(rate * (1 - rate) / kept.size)
    assert abs(kept.mean() - (1 - rate)) < 4 * error
    np.testing.assert_allclose(dropped[kept], 1 / (1 - rate), rtol=1e-6)


def test_bits_are_uniform_and_neighbours_independent():
    bits = np.asarray(draws().bits(SHAPE))
    counts = np.bincount(bits.ravel() >> 24, minlength=256)
    expected = bits.size / 256
    # Chi-squared with 255 degrees of freedom: mean 255, standard deviation 23.
    assert abs(((counts - expected) ** 2 / expected).sum() - 255) < 5 * 23
    ones = np.unpackbits(bits.view(np.uint8)).reshape(bits.size, 32)
    assert np.abs(ones.mean(0) - 0.5).max() < 5 * 0.5 / np.sqrt(bits.size)
    signs = 2.0 * (bits > 2**31) - 1
    for axis in range(3):
        product = np.take(signs, range(1, SHAPE[axis]), axis) * np.delete(signs, -1, axis)
        assert abs(product.mean()) < 5 / np.sqrt(product.size)


def test_draws_keys_and_repeated_keys():
    first, again, other = draws(), draws(), draws(1)
    one, two = first.bits((1000,)), first.bits((1000,))
    np.testing.assert_array_equal(one, again.bits((1000,)))
    for a, b in ((one, two), (one, other.bits((1000,)))):
        assert np.mean((np.asarray(a) > 2**31) == (np.asarray(b) > 2**31)) == pytest.approx(
            0.5, abs=0.1
        )


def test_several_draws_are_one_that_goes_on():
    together = np.asarray(draws().bits((5, 40))).ravel()
    apart = draws()
    np.testing.assert_array_equal(
        np.concatenate([apart.bits((60,)), np.asarray(apart.bits((2, 70))).ravel()]), together
    )


def test_nothing_is_dropped_without_draws_or_a_rate():
    x = jnp.ones((2, 3))
    assert dropout(x, 0.5, None) is x
    assert dropout(x, 0.0, draws()) is x


SHARED = """
import jax, numpy as np
from mlcls_jax.models.dropout import Draws
mesh = jax.sharding.Mesh(np.array(jax.devices()), ("data",))
sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
bits = jax.jit(lambda key: Draws(key).bits((4, 33)), out_shardings=sharding)(jax.random.key(3))
assert len(bits.addressable_shards) == 2
print(np.asarray(bits).tolist())
"""


def test_bits_do_not_depend_on_the_devices():
    assert json.loads(on_devices(2, SHARED)) == draws(3).bits((4, 33)).tolist()
