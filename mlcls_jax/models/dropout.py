"""Dropout, stochastic depth (Huang et al., 2016), and the random bits for them.

The bits come of a counter that is mixed with the key, not of jax.random: on CPUs that generator is
a loop over arrays, which took a fifth of PP-LCNet's compile time and shows in every step.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt32

Shape = tuple[Any, ...]  # of numbers; in a file that takes any batch, its size is a symbol


class Draws:
    """Random bits of one pass through a model: what is drawn continues where the last one ended.

    The n-th number depends on the key and on n alone, however arrays are shared out over devices.
    Numbers repeat after 2^32 of them, far more than a pass draws.
    """

    def __init__(self, key: Array) -> None:
        self.seed = jax.random.key_data(key)[-2:]  # [2], uint32
        self.drawn = 0

    def bits(self, shape: Shape) -> UInt32[Array, "..."]:
        """The next numbers, uniform over uint32."""
        counter, stride = jnp.uint32(self.drawn % 2**32), 1
        for axis in reversed(range(len(shape))):
            step = jnp.uint32(stride % 2**32)
            counter = counter + jax.lax.broadcasted_iota(jnp.uint32, shape, axis) * step
            stride *= shape[axis]
        self.drawn += math.prod(shape)
        return _mix(_mix(counter + self.seed[0]) ^ self.seed[1])


def _mix(x: UInt32[Array, "..."]) -> UInt32[Array, "..."]:
    """A bijection in which every bit of `x` changes half of the bits: Wellons' lowbias32."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)
    return x ^ (x >> 16)


def dropout(x: Float[Array, "..."], rate: float, draws: Draws | None) -> Float[Array, "..."]:
    """Drop elements with probability `rate` and rescale the rest; without `draws`, return x."""
    return _dropped(x, rate, draws, x.shape)


def drop_path(x: Float[Array, "B ..."], rate: float, draws: Draws | None) -> Float[Array, "B ..."]:
    """Drop a branch in whole images, and rescale it in the others (stochastic depth)."""
    return _dropped(x, rate, draws, (x.shape[0], *(1 for _ in x.shape[1:])))


def _dropped(x: Array, rate: float, draws: Draws | None, shape: Shape) -> Array:
    if draws is None or rate == 0.0:
        return x
    keep = draws.bits(shape) >= jnp.uint32(min(round(rate * 2**32), 2**32 - 1))
    return jnp.where(keep, x / (1.0 - rate), jnp.zeros_like(x))
