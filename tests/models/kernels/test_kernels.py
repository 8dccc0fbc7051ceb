"""Kernels follow the devices in use, and what is traced with some is not used for others."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest
from flax import nnx

from mlcls_jax.config import Model
from mlcls_jax.models import Network
from mlcls_jax.models.kernels import (
    ACCELERATORS,
    CPUS,
    NVIDIA,
    ONE_CPU,
    PLAIN,
    PORTABLE,
    choose,
)
from mlcls_jax.models.layers import Conv

ALL = (PLAIN, PORTABLE, CPUS, ONE_CPU, ACCELERATORS, NVIDIA)
IMAGE = jax.ShapeDtypeStruct((1, 32, 32, 3), np.uint8)


def devices(platform: str, count: int) -> list[SimpleNamespace]:
    return [SimpleNamespace(platform=platform)] * count


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("platform", ["tpu", "gpu"])
def test_accelerators_get_their_own_though_the_host_is_a_cpu(platform, count):
    assert jax.devices()[0].platform == "cpu"
    assert choose(devices(platform, count)) == ACCELERATORS
    assert choose(iter(devices(platform, count))) == ACCELERATORS


@pytest.mark.parametrize(
    ("capability", "kernels"),
    [
        ("9.0", NVIDIA),
        ("8.0", NVIDIA),
        ("12.0", NVIDIA),
        ("7.5", ACCELERATORS),
        ("gfx90a", ACCELERATORS),
    ],
)
def test_cudnns_attention_is_for_gpus_that_have_it(capability, kernels):
    gpu = SimpleNamespace(platform="gpu", compute_capability=capability)
    old = SimpleNamespace(platform="gpu", compute_capability="7.0")
    assert choose([gpu] * 4) == kernels
    assert choose([gpu, old]) == ACCELERATORS


def test_one_cpu_sums_what_several_would_have_to_exchange():
    assert choose(jax.devices()[:1]) == choose(devices("cpu", 1)) == ONE_CPU
    assert choose(devices("cpu", 2)) == CPUS


def test_all_are_different_keys():
    assert len({*ALL}) == len({hash(kernels) for kernels in ALL}) == len(ALL)


@pytest.fixture(scope="module")
def network() -> Network:
    return Network.of(Model(name="PP-LCNet_x0_25", num_classes=3))


def traced(network: Network) -> str:
    return str(jax.make_jaxpr(network.apply)(network.abstract, IMAGE))


def test_a_network_is_traced_in_the_form_for_its_devices(network):
    """A depthwise convolution is one operation for TPUs, and none is left on CPUs."""
    for _ in range(2):  # in turns: the first trace must not come back
        assert traced(network.on(devices("tpu", 8))) == traced(network)
        assert "feature_group_count=16" in traced(network)
        assert "feature_group_count=16" not in traced(network.on(devices("cpu", 1)))


def test_a_module_with_other_kernels_is_traced_anew(network):
    traces = []

    @nnx.jit
    def compute(module, images):
        traces.append(next(m.kernels for _, m in nnx.iter_modules(module) if isinstance(m, Conv)))
        return module(images)

    variables, images = network.init(0), np.zeros(IMAGE.shape, np.uint8)
    forms = (network, network.on(devices("cpu", 1)), network)
    scores = [compute(form.module(variables), images) for form in forms]
    assert traces == [PLAIN, ONE_CPU]
    np.testing.assert_array_equal(scores[0], scores[2])
    np.testing.assert_allclose(scores[0], scores[1], atol=1e-5)
