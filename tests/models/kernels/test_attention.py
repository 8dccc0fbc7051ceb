"""Attention in every form equals plain products, and cuDNN is asked for what it can do alone."""

from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlcls_jax.models.kernels import choose
from mlcls_jax.models.kernels.attention import attend, attend_by_cudnn, attend_padded
from tests.helpers.tiers import slow


def arrays(queries, tokens, dtype=jnp.float32, dim=16):
    rng = np.random.default_rng(0)
    shapes = [(2, queries, 3, dim), (2, tokens, 3, dim), (2, tokens, 3, dim), (2, queries, 3, dim)]
    return [jnp.asarray(rng.normal(size=shape), dtype) for shape in shapes]


@pytest.mark.parametrize(("queries", "tokens"), [slow(17, 17), slow(8, 21), (5, 16), slow(8, 16)])
def test_padded_attention_and_its_gradients_equal_the_plain_ones(queries, tokens):
    *at, cotangent = arrays(queries, tokens)
    expected, pull_back = jax.vjp(attend, *at)
    found, padded_pull_back = jax.vjp(partial(attend_padded, implementation="xla"), *at)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    pairs = zip(padded_pull_back(cotangent), pull_back(cotangent), strict=True)
    for ours, theirs in pairs:
        np.testing.assert_allclose(ours, theirs, atol=2e-6)


def test_padded_attention_in_bfloat16_is_as_near_as_the_plain_one():
    exact = attend(*arrays(17, 17)[:3])
    *at, _ = arrays(17, 17, jnp.bfloat16)
    for form in (attend, partial(attend_padded, implementation="xla")):
        np.testing.assert_allclose(form(*at).astype(jnp.float32), exact, atol=0.02)


@pytest.mark.parametrize(
    ("q", "options", "drop"),
    [
        ((65, 65), {}, None),  # float32
        ((65, 65), {"dtype": jnp.bfloat16}, lambda weights: weights / 2),
        ((63, 65), {"dtype": jnp.bfloat16}, None),
        ((65, 8), {"dtype": jnp.bfloat16}, None),
        ((65, 65), {"dtype": jnp.bfloat16, "dim": 12}, None),
        ((65, 65), {"dtype": jnp.bfloat16, "dim": 136}, None),
    ],
)
def test_other_types_dropout_and_small_or_odd_heads_stay_plain(q, options, drop):
    at = arrays(*q, **options)[:3]
    forms = (attend_by_cudnn, attend)
    asked, plain = (str(jax.make_jaxpr(partial(form, drop=drop))(*at)) for form in forms)
    assert asked == plain


def test_heads_that_tensor_devices_cannot_share_out_evenly_stay_plain(monkeypatch):
    """A network of 6 heads failed on 4 of them: cuDNN's attention is cut by whole heads."""
    monkeypatch.setattr(jax.nn, "dot_product_attention", lambda q, k, v, **_: q)
    at = arrays(65, 65, jnp.bfloat16)[:3]  # 3 heads
    gpus = [SimpleNamespace(platform="gpu", compute_capability="9.0")] * 6
    plain = str(jax.make_jaxpr(attend)(*at))
    asked = {n: str(jax.make_jaxpr(choose(gpus, tensor=n).attend)(*at)) for n in (1, 2, 3)}
    assert [n for n, form in asked.items() if form == plain] == [2]
    assert choose(gpus, tensor=2) == choose(gpus, tensor=2)  # one key of what is traced


def test_bfloat16_is_cudnns(monkeypatch):
    given = {}

    def take(q, k, v, **options):
        given.update(options, shapes=(q.shape[1], k.shape[1], v.shape[1]))
        return q

    monkeypatch.setattr(jax.nn, "dot_product_attention", take)
    at = arrays(69, 196, jnp.bfloat16)[:3]
    assert attend_by_cudnn(*at).shape == at[0].shape
    assert given["implementation"] == "cudnn"
    assert given["shapes"] == (72, 200, 200)
    assert given["query_seq_lengths"].tolist() == [69, 69]
    assert given["key_value_seq_lengths"].tolist() == [196, 196]
