"""Dropout's random bits: as many zeros as asked, no two draws alike, no pattern."""

import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlcls_jax.config import Model as ModelConfig
from mlcls_jax.errors import ConfigError
from mlcls_jax.models.backbones import efficientnet
from mlcls_jax.models.dropout import Draws, drop_path, dropout
from mlcls_jax.models.network import Network
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


def test_stochastic_depth_drops_branches_of_whole_images():
    dropped = np.asarray(drop_path(jnp.ones((1000, 2, 3, 5)), 0.3, draws()))
    np.testing.assert_array_equal(dropped, np.broadcast_to(dropped[:, :1, :1, :1], dropped.shape))
    kept = dropped[:, 0, 0, 0] > 0
    assert abs(kept.mean() - 0.7) < 4 * np.sqrt(0.3 * 0.7 / 1000)
    np.testing.assert_allclose(dropped[kept], 1 / 0.7, rtol=1e-6)


def test_blocks_drop_their_branches_more_often_the_deeper_they_lie(monkeypatch):
    tiny = efficientnet.EfficientNetConfig(
        stages=(efficientnet.Stage("plain", 3, 3, 1, 1, 32),), out_channels=8
    )
    monkeypatch.setitem(efficientnet.VARIANTS, "Tiny", tiny)
    network = Network.of(ModelConfig(name="Tiny", num_classes=2, drop_path=0.8))
    backbone = network.outline.backbone
    blocks = [getattr(backbone, path) for (path,) in backbone.parts.stages]
    assert [block.drop_path for block in blocks] == [0, 0.4, 0.8]

    variables = jax.device_put(network.init(0))
    images = jax.random.normal(jax.random.key(0), (4, 32, 32, 3))

    @jax.jit
    def run(key):
        def loss(params, network):
            varied = variables._replace(params=params)
            return jnp.square(network.apply(varied, images, train=True, key=key).logits).sum()

        plain, again = (
            jax.value_and_grad(loss)(variables.params, n)
            for n in (network, replace(network, remat=True))
        )
        return network.apply(variables, images, train=True, key=key).logits, plain, again

    (first, plain, recomputed), (second, *_) = (run(jax.random.key(seed)) for seed in (0, 1))
    assert not np.allclose(first, second)
    np.testing.assert_array_equal(first, run(jax.random.key(0))[0])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), plain, recomputed)
    without = Network.of(ModelConfig(name="Tiny", num_classes=2))
    used = [jax.jit(n.apply)(variables, images).logits for n in (network, without)]
    np.testing.assert_array_equal(*used)  # nothing is dropped in use


@pytest.mark.parametrize(
    ("name", "branches"), [("ConvNeXt_atto", 12), ("CLIP_vit_base_patch16_224", 24)]
)
def test_each_branch_but_those_of_the_first_block_is_dropped(name, branches):
    network = Network.of(ModelConfig(name=name, num_classes=2, drop_path=0.1))
    image = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    key = jax.eval_shape(lambda: jax.random.key(0))

    def run(variables, image, key):
        return network.apply(variables, image, train=True, key=key).logits

    drawn = jax.make_jaxpr(run)(network.abstract, image, key).jaxpr.eqns
    assert sum(e.primitive.name == "ge" for e in drawn) == branches - branches // 12


def test_a_backbone_without_stochastic_depth_says_so():
    with pytest.raises(ConfigError, match="drop_path=0.1: PP-LCNet_x1_0 has no such option"):
        Network.of(ModelConfig(name="PP-LCNet_x1_0", num_classes=2, drop_path=0.1))
