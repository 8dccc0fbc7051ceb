"""Depthwise convolution for CPUs: shifted products, with a gradient written by hand.

XLA's grouped convolution is tens of times slower than this on CPUs, and so is what autodiff makes
of the sum of products below (its weight gradient writes every product to memory before summing).
"""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# Kernels up to this size are applied to rows of width * channels numbers, since XLA's loops over
# few channels are slow; larger ones would need too many copies of their weights.
FLAT_SIZE = 3


@partial(jax.custom_vjp, nondiff_argnums=(2,))
@partial(jax.jit, static_argnums=2)
def depthwise_shifted(
    x: Float[Array, "B H W C"], kernel: Float[Array, "k k C"], stride: int
) -> Float[Array, "B h w C"]:
    """Depthwise convolution padded as `xla_conv2d` does, as the sum of k * k shifted products."""
    height, width = ((n - 1) // stride + 1 for n in x.shape[1:3])
    return _products(_pad(x, kernel.shape[0]), kernel, height, width, stride)


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
    if stride > 1 or size > FLAT_SIZE:
        shifted = (_window(padded, i, j, height, width, (stride, stride)) for i, j in taps)
        return sum(pixels * kernel[i, j] for pixels, (i, j) in zip(shifted, taps, strict=True))
    rows = padded.reshape(*padded.shape[:2], -1)  # [B, P, R * C]
    weights = jnp.tile(kernel, (1, 1, width))  # [k, k, w * C]
    flat = sum(
        rows[:, i : i + height, j * channels : (j + width) * channels] * weights[i, j]
        for i, j in taps
    )
    return flat.reshape(-1, height, width, channels)


def _input_gradient(
    shape: tuple[int, ...], kernel: Array, grad: Float[Array, "B h w C"], stride: int
) -> Float[Array, "B H W C"]:
    size = kernel.shape[0]
    low, high = (size - 1) // 2, size // 2
    if stride == 1:
        padded = jnp.pad(grad, ((0, 0), (high, low), (high, low), (0, 0)))
        return _products(padded, kernel[::-1, ::-1], *shape[1:3], 1)
    # Every stride-th row and column apart, since each meets other taps: tap i joins output row
    # p + shift to input row p * stride + first.
    padded = jnp.pad(grad, ((0, 0), (size, size), (size, size), (0, 0)))

    def one_of(first: int, left: int) -> Array:
        total = jnp.zeros_like(grad)
        for i in range((first + low) % stride, size, stride):
            for j in range((left + low) % stride, size, stride):
                down, right = (first + low - i) // stride, (left + low - j) // stride
                pixels = _window(padded, size + down, size + right, *grad.shape[1:3], (1, 1))
                total += pixels * kernel[i, j]
        return total

    rows = [jnp.stack([one_of(a, b) for b in range(stride)], 3) for a in range(stride)]
    whole = jnp.stack(rows, 2)  # [B, h, stride, w, stride, C]
    batch, height, _, width, _, channels = whole.shape
    whole = whole.reshape(batch, height * stride, width * stride, channels)
    return whole[:, : shape[1], : shape[2]]


def _kernel_gradient(
    x: Float[Array, "B H W C"], kernel: Array, grad: Float[Array, "B h w C"], stride: int
) -> Float[Array, "k k C"]:
    """Accumulates over output rows in a loop, so that no product is ever written out whole."""
    size = kernel.shape[0]
    padded = _pad(x, size)
    batch, out_h, out_w, channels = grad.shape
    dtype = jnp.promote_types(grad.dtype, jnp.float32)
    is_flat = stride == 1 and size <= FLAT_SIZE
    if is_flat:  # as in `_products`
        padded = padded.reshape(batch, padded.shape[1], -1)
        grad = grad.reshape(batch, out_h, -1)

    def add_row(sums: list[Array], row: Array) -> tuple[list[Array], None]:
        grad_row = jax.lax.dynamic_slice_in_dim(grad, row, 1, axis=1)  # [B, 1, w, C]
        rows = jax.lax.dynamic_slice_in_dim(padded, row * stride, size, axis=1)  # [B, k, W, C]
        if is_flat:
            width = out_w * channels
            shifted = (rows[..., j * channels : j * channels + width] for j in range(size))
        else:
            shifted = (_window(rows, 0, j, size, out_w, (1, stride)) for j in range(size))
        return [total + s * grad_row for total, s in zip(sums, shifted, strict=True)], None

    zeros = [jnp.zeros((batch, size, *grad.shape[2:]), dtype)] * size
    sums, _ = jax.lax.scan(add_row, zeros, jnp.arange(out_h))
    sums = (total.reshape(batch, size, out_w, channels).sum((0, 2)) for total in sums)
    return jnp.stack(list(sums), axis=1).astype(kernel.dtype)


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
