"""Max-pooling for CPUs, with a gradient written by hand.

XLA's gradient of max-pooling carries the position of every maximum along and scatters; this takes
a sixth of the time on CPUs.
"""

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from mlcls_jax.models.windows import gather_back, output_shape, pad, window


@partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def max_pool(x: Float[Array, "B H W C"], size: int, stride: int) -> Float[Array, "B h w C"]:
    """Maxima of windows padded as `layers.conv2d` pads, with -inf.

    The gradient goes to the first maximum of a window, row by row, as in XLA and PyTorch.
    """
    around = ((size - 1) // 2, size // 2)
    return nnx.max_pool(x, (size, size), strides=(stride, stride), padding=(around, around))


def _forward(x: Array, size: int, stride: int) -> tuple[Array, tuple[Array, Array]]:
    maxima = max_pool(x, size, stride)
    return maxima, (x, maxima)


def _backward(size: int, stride: int, saved: tuple[Array, Array], grad: Array) -> tuple[Array]:
    x, maxima = saved
    height, width = output_shape(*x.shape[1:3], stride)
    padded = pad(x, size, -jnp.inf)
    first = jnp.zeros(maxima.shape, jnp.uint8)  # [B, h, w, C], 1 + the tap of the first maximum
    for tap in reversed(range(size * size)):
        pixels = window(padded, tap // size, tap % size, height, width, (stride, stride))
        first = jnp.where(pixels == maxima, jnp.uint8(tap + 1), first)
    around = ((0, 0), (size, size), (size, size), (0, 0))
    first, grad = jnp.pad(first, around), jnp.pad(grad, around)

    def share(i: int, j: int, down: int, right: int) -> Array:
        place = (size + down, size + right, height, width, (1, 1))
        return jnp.where(window(first, *place) == i * size + j + 1, window(grad, *place), 0)

    return (gather_back(x.shape, size, stride, share),)


max_pool.defvjp(_forward, _backward)
