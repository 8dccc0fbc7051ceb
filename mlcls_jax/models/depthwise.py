"""Depthwise convolution for CPUs: shifted products, with a gradient written by hand.

XLA's grouped convolution is tens of times slower than this on CPUs, and so is what autodiff makes
of the sum of products below (its weight gradient writes every product to memory before summing).
"""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


@partial(jax.custom_vjp, nondiff_argnums=(2,))
@partial(jax.jit, static_argnums=2)
def depthwise_shifted(
    x: Float[Array, "B H W C"], kernel: Float[Array, "k k C"], stride: int
) -> Float[Array, "B h w C"]:
    """Depthwise convolution padded as `xla_conv2d` does, as the sum of k * k shifted products."""
    size = kernel.shape[0]
    padded = _pad(x, size)
    out_h, out_w = ((n - 1) // stride + 1 for n in x.shape[1:3])
    return sum(
        _window(padded, i, j, out_h, out_w, (stride, stride)) * kernel[i, j]
        for i in range(size)
        for j in range(size)
    )


def _forward(x: Array, kernel: Array, stride: int) -> tuple[Array, tuple[Array, Array]]:
    return depthwise_shifted(x, kernel, stride), (x, kernel)


@partial(jax.jit, static_argnums=0)
def _backward(stride: int, saved: tuple[Array, Array], grad: Array) -> tuple[Array, Array]:
    x, kernel = saved
    return _input_gradient(x.shape, kernel, grad, stride), _kernel_gradient(x, kernel, grad, stride)


depthwise_shifted.defvjp(_forward, _backward)


def _input_gradient(
    shape: tuple[int, ...], kernel: Array, grad: Float[Array, "B h w C"], stride: int
) -> Float[Array, "B H W C"]:
    size = kernel.shape[0]
    low = size - 1 - (size - 1) // 2
    # Stride becomes zeros between the cotangents; the padding that completes the high side may be
    # negative, which cuts.
    high_h, high_w = (
        n + size - 1 - low - ((g - 1) * stride + 1)
        for n, g in zip(shape[1:3], grad.shape[1:3], strict=True)
    )
    spread = jax.lax.pad(
        grad,
        jnp.zeros((), grad.dtype),
        ((0, 0, 0), (low, high_h, stride - 1), (low, high_w, stride - 1), (0, 0, 0)),
    )
    return sum(
        _window(spread, size - 1 - i, size - 1 - j, shape[1], shape[2], (1, 1)) * kernel[i, j]
        for i in range(size)
        for j in range(size)
    )


def _kernel_gradient(
    x: Float[Array, "B H W C"], kernel: Array, grad: Float[Array, "B h w C"], stride: int
) -> Float[Array, "k k C"]:
    """Accumulates over output rows in a loop, so that no product is ever written out whole."""
    size = kernel.shape[0]
    padded = _pad(x, size)
    batch, out_h, out_w, channels = grad.shape
    dtype = jnp.promote_types(grad.dtype, jnp.float32)

    def add_row(sums: list[Array], row: Array) -> tuple[list[Array], None]:
        grad_row = jax.lax.dynamic_slice_in_dim(grad, row, 1, axis=1)  # [B, 1, w, C]
        rows = jax.lax.dynamic_slice_in_dim(padded, row * stride, size, axis=1)  # [B, k, W, C]
        shifted = (_window(rows, 0, j, size, out_w, (1, stride)) for j in range(size))
        return [total + s * grad_row for total, s in zip(sums, shifted, strict=True)], None

    zeros = [jnp.zeros((batch, size, out_w, channels), dtype)] * size
    sums, _ = jax.lax.scan(add_row, zeros, jnp.arange(out_h))
    return jnp.stack([total.sum((0, 2)) for total in sums], axis=1).astype(kernel.dtype)


def _pad(x: Array, size: int) -> Array:
    pad = ((size - 1) // 2, size // 2)
    return jnp.pad(x, ((0, 0), pad, pad, (0, 0)))


def _window(
    x: Array, top: int, left: int, height: int, width: int, strides: tuple[int, int]
) -> Array:
    """`height` x `width` pixels of `x` from (top, left), `strides` apart."""
    bottom = top + (height - 1) * strides[0] + 1
    right = left + (width - 1) * strides[1] + 1
    return x[:, top : bottom : strides[0], left : right : strides[1]]
