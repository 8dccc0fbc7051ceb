"""Max-pooling, with a gradient written by hand for CPUs and GPUs.

XLA's gradient of max-pooling carries the position of every maximum along, as one array of int32 per
axis on GPUs, and scatters. This takes about a third of the time on CPUs and on an H200.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from mlcls_jax.models.kernels.windows import gather_back, output_shape, pad, padding, window


def xla_max_pool(x: Float[Array, "B H W C"], size: int, stride: int) -> Float[Array, "B h w C"]:
    """Return the maxima of windows padded with -inf by size - 1 in all, as `conv2d` pads."""
    around = (padding(size),) * 2
    # Flax takes pairs too, but has no annotation that says so.
    return nnx.max_pool(x, (size, size), (stride, stride), around)  # pyright: ignore[reportArgumentType]


# The gradient goes to the first maximum of a window, row by row, as in XLA and PyTorch.
max_pool_by_hand = jax.custom_vjp(xla_max_pool, nondiff_argnums=(1, 2))


def _forward(x: Array, size: int, stride: int) -> tuple[Array, tuple[Array, Array]]:
    maxima = xla_max_pool(x, size, stride)
    return maxima, (x, maxima)


def _backward(size: int, stride: int, saved: tuple[Array, Array], grad: Array) -> tuple[Array]:
    x, maxima = saved
    height, width = output_shape(x.shape[1], x.shape[2], stride)
    padded = pad(x, size, -jnp.inf)
    first = jnp.zeros(maxima.shape, jnp.uint8)  # [B, h, w, C], 1 + the tap of the first maximum
    for tap in reversed(range(size * size)):
        pixels = window(padded, tap // size, tap % size, height, width, (stride, stride))
        first = jnp.where(pixels == maxima, jnp.uint8(tap + 1), first)

    def share(i: int, j: int, first: Array, grad: Array) -> Array:
        return jnp.where(first == i * size + j + 1, grad, 0)

    return (gather_back(x.shape, size, stride, [first, grad], share),)


max_pool_by_hand.defvjp(_forward, _backward)
