"""CSRA and Query2Label against plain derivations in float64, and as heads of networks."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mlcls_jax import models
from mlcls_jax.config import Model
from mlcls_jax.errors import ConfigError, WeightsError
from mlcls_jax.models import registry
from mlcls_jax.models.csra import TEMPERATURES
from mlcls_jax.models.weights import to_foreign

CHANNELS, LABELS = 6, 5
FEATURES = np.random.default_rng(1).normal(size=(2, 3, 4, CHANNELS))  # [B, h, w, C]
SMALL: dict = {"embed_dim": 16, "hidden_dim": 24, "num_heads": 4, "decoder_depth": 2}


def drawn(name, **options) -> tuple[Any, dict[str, np.ndarray]]:
    """A head with random numbers, and these by their paths."""
    model, rng = Model(name=name, num_classes=LABELS, **options), np.random.default_rng(0)
    build = registry.HEADS[registry.split_name(name)[1]]
    graph, state = nnx.split(build(CHANNELS, model, dtype=None))
    state = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape)), state)
    flat = {"/".join(map(str, path)): np.asarray(x[...]) for path, x in nnx.to_flat_state(state)}
    return nnx.merge(graph, state), flat


def logits_and_maps(head, features):
    both = nnx.jit(lambda head, x: (head(x), head.evidence(x)))
    return jax.tree.map(np.asarray, both(head, features))


def softmax(x, axis):
    exps = np.exp(x - x.max(axis, keepdims=True))
    return exps / exps.sum(axis, keepdims=True)


@pytest.mark.parametrize("heads", [1, 6])
def test_csra_is_the_papers(heads):
    with jax.enable_x64(True):
        features = jnp.asarray(FEATURES)
        head, arrays = drawn("ResNet18_CSRA", num_heads=heads, csra_lambda=0.4)
        logits, maps = logits_and_maps(head, features)
    cells, expected, attention = FEATURES.reshape(2, 12, CHANNELS), arrays["bias"], 0
    for kernel, sharpness in zip(
        np.split(arrays["kernel"], heads, axis=1), TEMPERATURES[heads], strict=True
    ):
        scores = cells @ (kernel / np.linalg.norm(kernel, axis=0))  # [B, N, K]
        if sharpness == np.inf:
            shares = np.eye(12)[scores.argmax(1)].transpose(0, 2, 1)
        else:
            shares = softmax(sharpness * scores, 1)
        expected = expected + scores.mean(1) + 0.4 * (shares * scores).sum(1)
        attention = attention + shares / heads
    np.testing.assert_allclose(logits, expected, atol=1e-12)
    np.testing.assert_allclose(
        maps.reshape(2, LABELS, 12).transpose(0, 2, 1), attention, atol=1e-12
    )


def test_csra_has_the_papers_numbers_of_heads():
    with pytest.raises(ConfigError, match=r"^model.num_heads=3: ResNet18_CSRA has 1, 2, 4, 6, 8$"):
        drawn("ResNet18_CSRA", num_heads=3)


def waves(count, dim):
    """DETR's embedding of the places 1 … count, dim numbers each, one after the other."""
    rows = []
    for place in range(1, count + 1):
        angles = [
            2 * np.pi * place / (count + 1e-6) / 10_000 ** (2 * (i // 2) / dim) for i in range(dim)
        ]
        rows.append([(np.cos if i % 2 else np.sin)(angle) for i, angle in enumerate(angles)])
    return np.array(rows)


def test_query2label_is_the_papers():
    with jax.enable_x64(True):
        features = jnp.asarray(FEATURES)
        head, arrays = drawn("ResNet18_Q2L", **SMALL)
        logits, maps = logits_and_maps(head, features)

    def linear(path, x):
        return x @ arrays[f"{path}/kernel"] + arrays[f"{path}/bias"]

    def norm(path, x):
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
        return x * arrays[f"{path}/scale"] + arrays[f"{path}/bias"]

    def attend(path, queries, keys, values):
        q, k, v = (
            linear(f"{path}/attention/{name}_proj", x).reshape(*x.shape[:-1], 4, 4)
            for name, x in (("q", queries), ("k", keys), ("v", values))
        )
        weights = softmax(np.einsum("bqhd,bnhd->bhqn", q, k) / 2, -1)
        found = np.einsum("bhqn,bnhd->bqhd", weights, v).reshape(*queries.shape)
        return linear(f"{path}/attention/out_proj", found), weights.mean(1)

    def layer(path, x, own, memory):
        found, weights = attend(path, x + own, memory + places, memory)
        x = norm(f"{path}/norm1", x + found)
        hidden = np.maximum(linear(f"{path}/linear1", x), 0)
        return norm(f"{path}/norm2", x + linear(f"{path}/linear2", hidden)), weights

    places = np.array([[*row, *column] for row in waves(3, 8) for column in waves(4, 8)])
    memory = linear("input_proj", FEATURES.reshape(2, 12, CHANNELS))
    memory, _ = layer("encoder0", memory, places, memory)
    x = np.zeros((2, LABELS, 16))
    for path in ("decoder0", "decoder1"):
        x, weights = layer(path, x, arrays["query_embed"], memory)
    expected = (norm("norm", x) * arrays["kernel"]).sum(-1) + arrays["bias"]
    np.testing.assert_allclose(logits, expected, atol=1e-10)
    np.testing.assert_allclose(maps.reshape(2, LABELS, 12), weights, atol=1e-12)


@pytest.mark.parametrize("name", ["resnet18_CSRA", "PP-LCNet_x0_25_Q2L"])
def test_a_name_says_which_head_a_network_has(name):
    network = models.Network.of(Model(name=name, num_classes=80))
    backbone, suffix = registry.split_name(name)
    assert type(network.outline.head) is registry.HEADS[suffix]
    assert registry.find_variant(name) == registry.find_variant(backbone)
    assert registry.default_size(name) == 448
    assert all(table.keys() == network.initial.keys() for table in network.foreign_names.values())
    assert registry.list_models(f"*{suffix}")[0] == f"PP-LCNet_x0_25{suffix}"


def test_a_factor_that_directions_cannot_hold_is_not_lost_unsaid():
    model = models.create("PP-LCNet_x0_25_CSRA", num_classes=2)
    with pytest.raises(WeightsError, match="but timm has"):
        to_foreign(model, "timm")
