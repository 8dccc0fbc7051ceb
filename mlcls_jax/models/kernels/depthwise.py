"""Depthwise convolution for CPUs: shifted products, with a gradient written by hand.

XLA's grouped convolution is tens of times slower than this on CPUs, and so is what autodiff makes
of the sum of products below (its weight gradient writes every product to memory before summing).
"""

from functools import partial
from typing import cast

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mlcls_jax.models.kernels.windows import gather_back, output_shape, pad, padding, window

# Kernels up to this size are applied to rows of width * channels numbers, since XLA's loops over
# few channels are slow; larger ones would need too many copies of their weights.
FLAT_SIZE = 3


@partial(jax.custom_vjp, nondiff_argnums=(2,))
@partial(jax.jit, static_argnums=2)
def depthwise_shifted(
    x: Float[Array, "B H W C"], kernel: Float[Array, "k k C"], stride: int
) -> Float[Array, "B h w C"]:
    """Depthwise convolution padded as `conv2d` does, as the sum of k * k shifted products."""
    height, width = output_shape(x.shape[1], x.shape[2], stride)
    return _products(pad(x, kernel.shape[0]), kernel, height, width, stride)


def _forward(x: Array, kernel: Array, stride: int) -> tuple[Array, tuple[Array, Array]]:
    return depthwise_shifted(x, kernel, stride), (x, kernel)


@partial(jax.jit, static_argnums=0)
def _backward(stride: int, saved: tuple[Array, Array], grad: Array) -> tuple[Array, Array]:
    x, kernel = saved
    return _input_gradient(x.shape, kernel, grad, stride), _kernel_gradient(x, kernel, grad, stride)


depthwise_shifted.defvjp(_forward, _backward)


def _products(
    padded: Float[Array, "B P R C"],
    kernel: Float[Array, "k k C"],
    height: int,
    width: int,
    stride: int,
) -> Float[Array, "B h w C"]:
    """The sum, over the taps of `kernel`, of the shifted `padded` times the tap."""
    size, channels = kernel.shape[0], kernel.shape[-1]
    taps = [(i, j) for i in range(size) for j in range(size)]
    if stride > 1 or size == 1 or size > FLAT_SIZE:
        shifted = (window(padded, i, j, height, width, (stride, stride)) for i, j in taps)
        products = (pixels * kernel[i, j] for pixels, (i, j) in zip(shifted, taps, strict=True))
        return cast(Array, sum(products))
    rows = padded.reshape(*padded.shape[:2], -1)  # [B, P, R * C]
    weights = jnp.tile(kernel, (1, 1, width))  # [k, k, w * C]
    products = (
        rows[:, i : i + height, j * channels : (j + width) * channels] * weights[i, j]
        for i, j in taps[:-1]
    )
    flat = cast(Array, sum(products))
    # The last sum is of pixels, since XLA computes what ends in a reshape anew for every use.
    last = window(padded, size - 1, size - 1, height, width, (1, 1)) * kernel[-1, -1]
    return flat.reshape(-1, height, width, channels) + last


def _input_gradient(
    shape: tuple[int, ...], kernel: Array, grad: Float[Array, "B h w C"], stride: int
) -> Float[Array, "B H W C"]:
    size = kernel.shape[0]
    if stride == 1:
        around = padding(size)[::-1]
        padded = jnp.pad(grad, ((0, 0), around, around, (0, 0)))
        return _products(padded, kernel[::-1, ::-1], shape[1], shape[2], 1)
    return gather_back(shape, size, stride, [grad], lambda i, j, pixels: pixels * kernel[i, j])


def _kernel_gradient(
    x: Float[Array, "B H W C"], kernel: Array, grad: Float[Array, "B h w C"], stride: int
) -> Float[Array, "k k C"]:
    """Accumulates over output rows in a loop, so that no product is ever written out whole."""
    size = kernel.shape[0]
    padded = pad(x, size)
    batch, out_h, out_w, channels = grad.shape
    dtype = jnp.promote_types(grad.dtype, jnp.float32)
    is_flat = stride == 1 and size <= FLAT_SIZE
    if is_flat:  # as in `_products`
        padded = padded.reshape(batch, padded.shape[1], -1)
        grad = grad.reshape(batch, out_h, -1)

    def add_row(row: Array, sums: list[Array]) -> list[Array]:
        grad_row = jax.lax.dynamic_slice_in_dim(grad, row, 1, axis=1)  # [B, 1, w, C]
        rows = jax.lax.dynamic_slice_in_dim(padded, row * stride, size, axis=1)  # [B, k, W, C]
        if is_flat:
            width = out_w * channels
            shifted = (rows[..., j * channels : j * channels + width] for j in range(size))
        else:
            shifted = (window(rows, 0, j, size, out_w, (1, stride)) for j in range(size))
        return [total + s * grad_row for total, s in zip(sums, shifted, strict=True)]

    zeros = [jnp.zeros((batch, size, *grad.shape[2:]), dtype)] * size
    sums = jax.lax.fori_loop(0, out_h, add_row, zeros)
    sums = (total.reshape(batch, size, out_w, channels).sum((0, 2)) for total in sums)
    return jnp.stack(list(sums), axis=1).astype(kernel.dtype)
