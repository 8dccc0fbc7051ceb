"""train.norm_groups: each group of a batch is a batch of its own to the batch norms."""

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlcls_jax.config import default, parse
from mlcls_jax.errors import ConfigError
from mlcls_jax.models import Network
from mlcls_jax.models.layers import BatchNorm
from mlcls_jax.models.network import Variables
from tests.helpers.small_run import MODEL


def apply(norm: BatchNorm, groups: int, x: np.ndarray) -> np.ndarray:
    norm.set_attributes(norm_groups=groups)
    return np.asarray(norm(jnp.asarray(x), train=True))


def test_groups_are_normalised_alone_and_the_running_statistics_follow_their_mean():
    x = np.random.default_rng(0).normal(size=(6, 4, 5, 3)) * [1, 2, 3]
    x = (x + np.arange(6)[:, None, None, None]).astype(np.float32)
    norm = BatchNorm(3)
    norm.scale[...], norm.bias[...] = jnp.asarray([1.0, 0.5, 2.0]), jnp.asarray([0.0, 1.0, -1.0])
    norm.mean[...], norm.var[...] = jnp.zeros(3), jnp.ones(3)
    found = apply(norm, 3, x)
    means, variances = [], []
    for rows in (slice(0, 2), slice(2, 4), slice(4, 6)):
        part = x[rows].astype(np.float64)
        mean, var = part.mean((0, 1, 2)), part.var((0, 1, 2))
        wanted = (part - mean) / np.sqrt(var + 1e-5) * [1.0, 0.5, 2.0] + [0.0, 1.0, -1.0]
        np.testing.assert_allclose(found[rows], wanted, atol=1e-5)
        means.append(mean), variances.append(var)
    np.testing.assert_allclose(norm.mean[...], 0.1 * np.mean(means, 0), rtol=1e-5)
    np.testing.assert_allclose(norm.var[...], 0.9 + 0.1 * np.mean(variances, 0), rtol=1e-5)


@pytest.mark.slow
@pytest.mark.usefixtures("toy")
def test_a_network_learns_from_groups_as_from_batches_of_their_own():
    network = Network.of(replace(MODEL, num_classes=3))
    variables = network.init(0)
    images = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)

    @partial(jax.jit, static_argnums=0)
    def gradient(groups, variables, images):
        def value(params):
            grouped = replace(network, norm_groups=groups)
            outputs = grouped.apply(Variables(params, variables.batch_stats), images, train=True)
            return (outputs.logits**2).sum(), (outputs.logits, outputs.batch_stats)

        grads, (logits, stats) = jax.grad(value, has_aux=True)(variables.params)
        return grads, logits, stats

    grads, logits, stats = gradient(2, variables, images)
    (grads_a, logits_a, stats_a), (grads_b, logits_b, stats_b) = (
        gradient(1, variables, half) for half in (images[:4], images[4:])
    )
    np.testing.assert_allclose(logits, jnp.concatenate([logits_a, logits_b]), rtol=1e-4, atol=1e-5)
    close = partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-4)
    jax.tree.map(lambda ours, a, b: close(ours, a + b), grads, grads_a, grads_b)
    jax.tree.map(lambda ours, a, b: close(ours, (a + b) / 2), stats, stats_a, stats_b)


def test_groups_must_divide_the_batch_and_its_parts():
    values: Any = default()
    values.data.source, values.train.batch_size = "digits", 32
    values.train.accumulate, values.train.norm_groups = 4, 3
    with pytest.raises(ConfigError, match=r"train.norm_groups=3: must divide the 8 images"):
        parse(values)
