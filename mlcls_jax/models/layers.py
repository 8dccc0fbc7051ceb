"""Building blocks that backbones and heads share: convolutions, norm, dropout, attention.

Images and feature maps are [B, H, W, C]; convolution kernels are [kh, kw, in / groups, out].
What platforms compute in different forms, layers take from their attribute `kernels`, which
`Network.module` sets in all of them.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from mlcls_jax.models.dropout import Draws, dropout
from mlcls_jax.models.initial import (
    ZEROS,
    Choice,
    Initial,
    kaiming_normal,
    param,
    small_uniform,
    xavier_uniform,
)
from mlcls_jax.models.kernels import PLAIN, Kernels
from mlcls_jax.models.kernels.windows import squares_to_channels
from mlcls_jax.models.norms import BatchNorm

# The Paddle kernel's float32 attribute, not 1/6: the difference is visible in parity tests.
HARDSIGMOID_SLOPE = 0.16666670143604279


def hardswish(x: Array) -> Array:
    """x * clip(x + 3, 0, 6) / 6."""
    return x * jnp.clip(x + 3.0, 0.0, 6.0) / 6.0


def hardsigmoid(x: Array, slope: float = HARDSIGMOID_SLOPE) -> Array:
    """clip(slope * x + 0.5, 0, 1)."""
    return jnp.clip(slope * x + 0.5, 0.0, 1.0)


@jax.checkpoint
def gelu(x: Array) -> Array:
    """The exact GELU, not its tanh approximation; computed in float32 or better.

    By erf, as in PyTorch and Paddle: JAX's own takes erfc, which costs six times as much on CPUs.
    The gradient computes it again from `x`, where three maps would be written and read for it.
    """
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    return (wide * (0.5 + 0.5 * jax.lax.erf(wide * math.sqrt(0.5)))).astype(x.dtype)


def quick_gelu(x: Array) -> Array:
    """OpenAI's approximation in CLIP: x * sigmoid(1.702 x)."""
    return x * jax.nn.sigmoid(1.702 * x)


def scaled(width: int, scale: float, *, least: float = 0.9) -> int:
    """Return `width * scale` rounded to a multiple of 8, not below `least` of it."""
    value = width * scale
    rounded = max(8, int(value + 4) // 8 * 8)
    return rounded + 8 if rounded < least * value else rounded


def cast(x: Array, dtype: jnp.dtype | None) -> Array:
    """`x` in the compute dtype; None leaves it alone."""
    return x if dtype is None else x.astype(dtype)


class Conv(nnx.Module):
    """Square convolution; pads as Paddle does with (k - 1) // 2, or with SAME for an even k.

    With `same`, it pads as TensorFlow does, which differs where an even side meets stride 2.
    `dtype` is that of the computation (None: that of the arguments); parameters are float32.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        groups: int = 1,
        bias: bool = False,
        same: bool = False,
        initial: Initial | None = None,
        dtype: jnp.dtype | None = None,
    ) -> None:
        shape = (kernel_size, kernel_size, in_channels // groups, out_channels)
        fan_in, fan_out = (kernel_size**2 * (n // groups) for n in (in_channels, out_channels))
        usual = Choice(kaiming_normal(fan_out), paddle=kaiming_normal(fan_in))
        self.kernel = param(shape, initial or usual)
        self.bias = param((out_channels,), ZEROS) if bias else None
        self.stride, self.groups, self.dtype = stride, groups, dtype
        self.same = same and stride > 1 and kernel_size > 1
        self.kernels = PLAIN

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w D"]:
        kernel = cast(self.kernel[...], self.dtype)
        x = cast(x, self.dtype)
        if self.same:  # windows one row and column further: there is one more, which is left out
            down, right = (1 - side % 2 for side in x.shape[1:3])
            x = jnp.pad(x, ((0, 0), (down, 0), (right, 0), (0, 0)))
            x = self.kernels.conv2d(x, kernel, stride=self.stride, groups=self.groups)
            x = x[:, down:, right:]
        else:
            x = self.kernels.conv2d(x, kernel, stride=self.stride, groups=self.groups)
        return x if self.bias is None else x + cast(self.bias[...], self.dtype)


class ConvNorm(nnx.Module):
    """Convolution without bias, batch normalisation, activation."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        groups: int = 1,
        activation: Callable[[Array], Array] | None = None,
        same: bool = False,
        epsilon: float = 1e-5,
        dtype: jnp.dtype | None = None,
    ) -> None:
        self.conv = Conv(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            groups=groups,
            same=same,
            dtype=dtype,
        )
        self.norm = BatchNorm(out_channels, epsilon=epsilon)
        self.activation = activation

    def __call__(self, x: Float[Array, "B H W C"], *, train: bool) -> Float[Array, "B h w D"]:
        x = self.norm(self.conv(x), train=train)
        return x if self.activation is None else self.activation(x)


class SqueezeExcite(nnx.Module):
    """Channel attention from the mean over the map (Hu et al., 2018)."""

    def __init__(
        self,
        channels: int,
        reduced: int,
        *,
        activation: Callable[[Array], Array] = nnx.relu,
        gate: Callable[[Array], Array] = hardsigmoid,
        dtype: jnp.dtype | None,
    ) -> None:
        self.conv1 = Conv(channels, reduced, 1, bias=True, dtype=dtype)
        self.conv2 = Conv(reduced, channels, 1, bias=True, dtype=dtype)
        self.activation, self.gate = activation, gate

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        pooled = x.mean((1, 2), keepdims=True)
        return x * self.gate(self.conv2(self.activation(self.conv1(pooled))))


class MaxPool(nnx.Module):
    """Maxima of windows padded by size - 1 in all, as `Conv` pads, with -inf."""

    def __init__(self, size: int, *, stride: int) -> None:
        self.size, self.stride = size, stride
        self.kernels = PLAIN

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w C"]:
        return self.kernels.max_pool(x, self.size, self.stride)


class Linear(nnx.Module):
    """x @ kernel + bias, kernel [in, out]; or without a bias.

    Matrices that tensor devices share come in pairs, the columns of the first and the rows of the
    second, so that nothing is exchanged in between.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        *,
        bias: bool = True,
        initial: Initial | Choice | None = None,
        shared: Literal["columns", "rows"] | None = None,
        dtype: jnp.dtype | None = None,
    ) -> None:
        self.kernel = param(
            (in_dim, out_dim),
            initial or Choice(small_uniform(in_dim), paddle=xavier_uniform(in_dim, out_dim)),
            tensor_axis={"columns": 1, "rows": 0, None: None}[shared],
        )
        axis = 0 if shared == "columns" else None
        self.bias = param((out_dim,), ZEROS, tensor_axis=axis) if bias else None
        self.dtype = dtype
        self.kernels = PLAIN

    def __call__(self, x: Float[Array, "... I"]) -> Float[Array, "... O"]:
        kernel = cast(self.kernel[...], self.dtype)
        x = self.kernels.matmul(cast(x, self.dtype), kernel)
        return x if self.bias is None else x + cast(self.bias[...], self.dtype)


class Patches(nnx.Module):
    """Convolution whose stride is its kernel: squares of cells, one matrix product, a bias.

    Rows and columns that fill no square are left out, as by PyTorch.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        size: int,
        *,
        initial: Initial,
        dtype: jnp.dtype | None = None,
    ) -> None:
        self.kernel = param((size, size, in_channels, out_channels), initial)
        self.bias = param((out_channels,), ZEROS)
        self.size, self.dtype = size, dtype

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w D"]:
        x = cast(squares_to_channels(x, self.size), self.dtype)
        kernel = cast(self.kernel[...], self.dtype)
        return x @ kernel.reshape(-1, kernel.shape[-1]) + cast(self.bias[...], self.dtype)


def attend(
    q: Float[Array, "B Q D"],
    k: Float[Array, "B N D"],
    v: Float[Array, "B N D"],
    *,
    num_heads: int,
    kernels: Kernels = PLAIN,
    rate: float = 0.0,
    draws: Draws | None = None,
) -> Float[Array, "B Q D"]:
    """Multi-head attention of projected queries, keys and values; softmax in float32 or better."""
    drop = None if draws is None or rate == 0.0 else partial(dropout, rate=rate, draws=draws)
    out = kernels.attend(*(heads(x, num_heads) for x in (q, k, v)), drop)
    return out.reshape(*out.shape[:2], -1)


def heads(x: Float[Array, "... D"], count: int) -> Float[Array, "... heads d"]:
    """Return the last axis in `count` parts."""
    return x.reshape(*x.shape[:-1], count, -1)
