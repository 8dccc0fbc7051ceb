"""Attention of several heads: by plain products, and by cuDNN, which keeps no weights in memory."""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def attention_weights(
    q: Float[Array, "B Q heads d"], k: Float[Array, "B N heads d"], *, causal: bool = False
) -> Float[Array, "B heads Q N"]:
    """Return the attention of each query over tokens, float32 or better; rows of N sum to 1.

    With `causal`, query i sees the tokens up to i.
    """
    scores = jnp.einsum("bqhd,bnhd->bhqn", q * q.shape[-1] ** -0.5, k)
    scores = scores.astype(jnp.promote_types(scores.dtype, jnp.float32))
    if causal:
        scores = jnp.where(jnp.tri(*scores.shape[-2:], dtype=bool), scores, -jnp.inf)
    return jax.nn.softmax(scores, axis=-1)


def attend(
    q: Float[Array, "B Q heads d"],
    k: Float[Array, "B N heads d"],
    v: Float[Array, "B N heads d"],
    drop: Callable[[Array], Array] | None = None,
    *,
    causal: bool = False,
) -> Float[Array, "B Q heads d"]:
    """Return for each query the sum of `v` by its attention, of which `drop` drops a part."""
    weights = attention_weights(q, k, causal=causal).astype(v.dtype)
    return jnp.einsum("bhqn,bnhd->bqhd", weights if drop is None else drop(weights), v)


def attend_by_cudnn(
    q: Float[Array, "B Q heads d"],
    k: Float[Array, "B N heads d"],
    v: Float[Array, "B N heads d"],
    drop: Callable[[Array], Array] | None = None,
    *,
    tensor: int = 1,
) -> Float[Array, "B Q heads d"]:
    """Return the same; by cuDNN in bfloat16, without dropout, from 64 queries and tokens.

    It has no other types, and not our dropout; maps of fewer are small, and older releases refuse
    them. Nor does it compile where `tensor` devices cannot share out the heads evenly.
    """
    if drop is not None or not is_for_cudnn(q, k, tensor=tensor):
        return attend(q, k, v, drop)
    return attend_padded(q, k, v, implementation="cudnn")


def is_for_cudnn(
    q: Float[Array, "B Q heads d"], k: Float[Array, "B N heads d"], *, tensor: int = 1
) -> bool:
    """Return whether `attend_by_cudnn` leaves these to cuDNN, where nothing is dropped."""
    is_fit = q.shape[-1] % 8 == 0 and q.shape[-1] <= 128 and min(q.shape[1], k.shape[1]) >= 64
    return q.dtype == jnp.bfloat16 and is_fit and q.shape[2] % tensor == 0


def attend_padded(
    q: Float[Array, "B Q heads d"],
    k: Float[Array, "B N heads d"],
    v: Float[Array, "B N heads d"],
    *,
    implementation: Literal["xla", "cudnn"],
) -> Float[Array, "B Q heads d"]:
    """Return the same by JAX's function, for which lengths are padded to multiples of 8.

    cuDNN's gradient refuses odd lengths; a class token makes CLIP's odd.
    """
    batch, queries = q.shape[:2]
    lengths: dict[str, Any] = {}
    if queries % 8 or k.shape[1] % 8:
        lengths = {
            "query_seq_lengths": jnp.full(batch, queries, jnp.int32),
            "key_value_seq_lengths": jnp.full(batch, k.shape[1], jnp.int32),
        }
    q, k, v = (jnp.pad(x, ((0, 0), (0, -x.shape[1] % 8), (0, 0), (0, 0))) for x in (q, k, v))
    out = jax.nn.dot_product_attention(q, k, v, implementation=implementation, **lengths)
    return out[:, :queries]
