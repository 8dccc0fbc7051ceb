"""Batch and layer normalisation."""

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from mlcls_jax.models.initial import ONES, ZEROS, param


class BatchNorm(nnx.Module):
    """Batch normalisation as in Paddle: eps 1e-5, running = 0.9 running + 0.1 (biased) batch.

    Statistics are taken over the whole batch, on all devices, in float32 or better.
    """

    def __init__(self, channels: int, *, momentum: float = 0.9, epsilon: float = 1e-5) -> None:
        self.scale, self.bias = param((channels,), ONES), param((channels,), ZEROS)
        self.mean = param((channels,), ZEROS, nnx.BatchStat)
        self.var = param((channels,), ONES, nnx.BatchStat)
        self.momentum, self.epsilon = momentum, epsilon

    def __call__(self, x: Float[Array, "B H W C"], *, train: bool) -> Float[Array, "B H W C"]:
        scale, bias = self.scale[...], self.bias[...]
        if not train:
            return _apply(x, scale, bias, self.mean[...], self.var[...], self.epsilon)
        x, *statistics = _normalise(x, scale, bias, self.epsilon)
        for running, new in zip((self.mean, self.var), statistics, strict=True):
            new = jax.lax.stop_gradient(new)
            running[...] = self.momentum * running[...] + (1 - self.momentum) * new
        return x


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def _normalise(
    x: Float[Array, "... C"], scale: Float[Array, " C"], bias: Float[Array, " C"], epsilon: float
) -> tuple[Float[Array, "... C"], Float[Array, " C"], Float[Array, " C"]]:
    """`x` normalised by its batch, its mean, its variance; only the first has a gradient.

    The gradient is written by hand, since autodiff's sums five times over the map, not twice.
    """
    axes = tuple(range(x.ndim - 1))
    dtype = jnp.promote_types(x.dtype, jnp.float32)
    mean = jnp.mean(x, axes, dtype=dtype)
    var = jnp.mean(jnp.square(x.astype(dtype) - mean), axes)
    return _apply(x, scale, bias, mean, var, epsilon), mean, var


def _forward(x: Array, scale: Array, bias: Array, epsilon: float) -> tuple[tuple, tuple]:
    normalised, mean, var = _normalise(x, scale, bias, epsilon)
    return (normalised, mean, var), (x, scale, mean, var)


def _backward(epsilon: float, saved: tuple, grads: tuple) -> tuple[Array, Array, Array]:
    x, scale, mean, var = saved
    axes, count = tuple(range(x.ndim - 1)), x.size // x.shape[-1]
    grad, wide = grads[0].astype(mean.dtype), x.astype(mean.dtype)
    inverse = jax.lax.rsqrt(var + epsilon)
    # The normalised map is written in two ways, neither as x - mean: what is used twice, XLA on
    # CPUs writes to memory, and as early as in the forward pass.
    bias_grad = jnp.sum(grad, axes)
    scale_grad = jnp.sum(grad * (wide * inverse - mean * inverse), axes)
    slope = scale * inverse
    curve = slope * inverse * scale_grad / count
    x_grad = slope * grad - curve * wide + (curve * mean - slope * bias_grad / count)
    return x_grad.astype(x.dtype), scale_grad.astype(scale.dtype), bias_grad.astype(scale.dtype)


_normalise.defvjp(_forward, _backward)


def _apply(
    x: Array, scale: Array, bias: Array, mean: Array, var: Array, epsilon: float
) -> Float[Array, "... C"]:
    """One multiply and one add a pixel; folded in float32, applied in the compute dtype."""
    slope = scale * jax.lax.rsqrt(var + epsilon)
    return x * slope.astype(x.dtype) + (bias - mean * slope).astype(x.dtype)


class LayerNorm(nnx.Module):
    """Layer normalisation over the last axis, computed in float32 or better; eps 1e-5."""

    def __init__(self, dim: int, *, epsilon: float = 1e-5) -> None:
        self.scale, self.bias = param((dim,), ONES), param((dim,), ZEROS)
        self.epsilon = epsilon

    def __call__(self, x: Float[Array, "... D"]) -> Float[Array, "... D"]:
        wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        centred = wide - wide.mean(-1, keepdims=True)
        var = jnp.square(centred).mean(-1, keepdims=True)
        wide = centred * jax.lax.rsqrt(var + self.epsilon) * self.scale[...] + self.bias[...]
        return wide.astype(x.dtype)
