"""The parts of a batch for gradient accumulation."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Shaped


def split(images: Shaped[Array, "B ..."], count: int) -> Shaped[Array, "n b ..."]:
    """Return [n, B / n, …]; a part is every n-th row, so that devices share out every part."""
    return jnp.moveaxis(images.reshape(-1, count, *images.shape[1:]), 1, 0)


def join(parts: Any) -> Any:
    """Return [B, …] of each array [n, B / n, …]: the inverse of `split`."""
    return jax.tree.map(lambda a: jnp.moveaxis(a, 0, 1).reshape(-1, *a.shape[2:]), parts)


def place(part: Any, number: Array, count: int) -> Any:
    """Return each array of one part, [B / n, …], at its rows of [B, …] among zeros."""
    is_part = (jnp.arange(count) == number)[:, None]  # [n, 1]
    return jax.tree.map(lambda a: jnp.where(is_part, a[:, None], 0).reshape(-1, *a.shape[1:]), part)
