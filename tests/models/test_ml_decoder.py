"""The ML-Decoder head alone equals the original's, in all its configurations."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx, traverse_util

from mlcls_jax.models.ml_decoder import MLDecoder, MLDecoderConfig
from mlcls_jax.models.weight_names import to_ours
from tests.helpers.paddle_recipe import golden, weights
from tests.helpers.tiers import slow

GOLDEN = golden("ml_decoder_head")
QUICK = ("c10_q100_4d", "c24_q24_depth2", "c24_q24_gelu_e96_h4", "c24_q24_selfattn", "c33_q20_4d")
TAGS = sorted({key.partition("/")[0] for key in GOLDEN if key.endswith("/cfg")})


def head_of(config):
    """Our head for a golden's configuration."""
    options = {
        k: config[k] for k in ("query_num", "embed_dim", "num_heads", "depth") if k in config
    }
    options["hidden_dim"] = config.get("mlp_hidden_dim", 2048)
    options["self_attention"] = not config.get("remove_self_attn", True)
    options["gelu"] = config.get("activation") == "gelu"
    return MLDecoder(config["in_channels"], config["class_num"], MLDecoderConfig(**options))


def features_of(config):
    """The golden's input [B, C, …] as a feature map [B, h, w, C]."""
    shape = tuple(config["input_shape"])
    rng = np.random.Generator(np.random.PCG64(7))
    drawn = rng.standard_normal(shape).astype(np.float32)
    return drawn.reshape(shape[0], config["in_channels"], -1, 1).transpose(0, 2, 3, 1)


def load(head, arrays, dtype):
    """The head's parameters taken from Paddle's names; every tensor must find its place."""
    names = head.names("paddle")
    assert {foreign.key for foreign in names.values()} == set(arrays)
    graphdef, params = nnx.split(head)
    flat = traverse_util.flatten_dict(nnx.to_pure_dict(params), sep="/")
    for path, value in flat.items():
        key, layout, _ = names[path]
        flat[path] = jnp.asarray(to_ours(arrays[key], layout, value.shape), dtype)
        assert flat[path].shape == value.shape
    return nnx.merge(graphdef, traverse_util.unflatten_dict(flat, sep="/"))


def golden_case(tag, dtype=jnp.float32):
    """The original's head with its weights, and the features that it was given."""
    config = json.loads(str(GOLDEN[f"{tag}/cfg"]))
    head = load(head_of(config), weights(GOLDEN[f"{tag}/params"]), dtype)
    return head, jnp.asarray(features_of(config), dtype)


@pytest.mark.parametrize("tag", [tag if tag in QUICK else slow(tag) for tag in TAGS])
def test_logits_equal_the_original(tag):
    head, features = golden_case(tag)
    logits = nnx.jit(lambda head, x: head(x))(head, features)
    np.testing.assert_allclose(logits, GOLDEN[f"{tag}/logits"], atol=2e-5, rtol=0)


@pytest.mark.parametrize(
    "tag", [slow("c200_q80_4d"), slow("c24_q24_depth2"), "c24_q24_gelu_e96_h4"]
)
def test_float64_logits_equal_the_original_to_ten_digits(tag):
    with jax.enable_x64(True):
        head, features = golden_case(tag, jnp.float64)
        logits = nnx.jit(lambda head, x: head(x))(head, features)
        np.testing.assert_allclose(logits, GOLDEN[f"{tag}/logits64"], atol=1e-8, rtol=0)


def test_all_eleven_configurations_are_covered():
    assert len(TAGS) == 11


def test_logits_do_not_depend_on_the_batch():
    head, features = golden_case("c33_q20_4d")
    logits = nnx.jit(lambda head, x: head(x))
    one_by_one = [logits(head, features[i : i + 1]) for i in range(len(features))]
    np.testing.assert_allclose(logits(head, features), np.concatenate(one_by_one), atol=1e-5)


def test_labels_that_share_a_query_differ_only_by_their_last_layer():
    config = MLDecoderConfig(query_num=2, embed_dim=8, hidden_dim=8, num_heads=2)
    head = MLDecoder(4, 6, config)
    assert (head.num_queries, head.group_size) == (2, 3)
    assert nnx.eval_shape(head, jnp.zeros((1, 4, 4, 4))).shape == (1, 6)


@pytest.mark.parametrize("tag", ["c33_q20_4d", slow("c24_q24_depth2")])
def test_evidence_is_the_attention_of_the_last_layer(tag):
    """Re-derived: softmax of queries times keys of each head, as NumPy sees the weights."""
    head, features = golden_case(tag)
    maps = np.asarray(nnx.jit(lambda head, x: head.evidence(x))(head, features))
    batch, height, width, channels = features.shape
    assert maps.shape == (batch, head.num_queries, height, width)
    np.testing.assert_allclose(maps.sum((2, 3)), 1, atol=1e-5)

    layer = getattr(head, f"layer{head.depth - 1}")

    def linear(part, x):
        return x @ np.asarray(part.kernel[...]) + np.asarray(part.bias[...])

    memory = np.maximum(linear(head.input_proj, features.reshape(batch, -1, channels)), 0)
    asked = head.queries()[None]
    for index in range(head.depth - 1):
        asked = getattr(head, f"layer{index}")(asked, jnp.asarray(memory), draws=None)
    q = linear(layer.cross_attn.q_proj, np.asarray(layer.ask(asked, None)))
    k = linear(layer.cross_attn.k_proj, memory)
    size = q.shape[-1] // layer.cross_attn.num_heads
    mean = np.zeros(maps.shape).reshape(batch, head.num_queries, -1)
    for first in range(0, q.shape[-1], size):
        part = slice(first, first + size)
        products = np.exp(q[..., part] @ k[..., part].swapaxes(1, 2) / np.sqrt(size))
        mean += products / products.sum(-1, keepdims=True) / layer.cross_attn.num_heads
    np.testing.assert_allclose(maps.reshape(mean.shape), mean, atol=1e-5)


def test_evidence_follows_what_moves_in_the_feature_map():
    head, features = golden_case("c33_q20_4d")
    evidence = nnx.jit(lambda head, x: head.evidence(x))
    maps = np.asarray(evidence(head, features))
    np.testing.assert_allclose(evidence(head, features[:, ::-1]), maps[:, :, ::-1], atol=1e-6)
    assert np.ptp(maps) > 1e-3
