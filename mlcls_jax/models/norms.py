"""Batch and layer normalisation."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from mlcls_jax.models.initial import ONES, ZEROS, Initial, param
from mlcls_jax.models.kernels import PLAIN

MOMENTUM = 0.9  # of the running statistics


class BatchNorm(nnx.Module):
    """Batch normalisation as in Paddle: eps 1e-5, running = 0.9 running + 0.1 (biased) batch.

    Statistics are taken over the whole batch, on all devices, in float32 or better. With
    `norm_groups` above 1 the batch falls into so many groups of successive rows, each normalised by
    its own statistics, as GPUs without exchange do it; the running ones follow the groups' mean.
    """

    def __init__(self, channels: int, *, epsilon: float = 1e-5) -> None:
        self.scale, self.bias = param((channels,), ONES), param((channels,), ZEROS)
        self.mean = param((channels,), ZEROS, nnx.BatchStat)
        self.var = param((channels,), ONES, nnx.BatchStat)
        self.epsilon = epsilon
        self.kernels = PLAIN
        self.norm_groups = 1

    def __call__(self, x: Float[Array, "B H W C"], *, train: bool) -> Float[Array, "B H W C"]:
        scale, bias = self.scale[...], self.bias[...]
        if not train:
            return _apply(x, scale, bias, self.mean[...], self.var[...], self.epsilon)
        if self.norm_groups > 1:
            return self._by_groups(x, scale, bias)
        mean, var = self.kernels.moments(jax.lax.stop_gradient(x), self.mean[...])
        self._follow(mean, var)
        return _normalise(x, scale, bias, mean, var, self.epsilon)

    def _by_groups(self, x: Array, scale: Array, bias: Array) -> Float[Array, "B H W C"]:
        near = self.mean[...]

        def normalised(rows: Array) -> tuple[Array, Array, Array]:
            mean, var = self.kernels.moments(jax.lax.stop_gradient(rows), near)
            return _normalise(rows, scale, bias, mean, var, self.epsilon), mean, var

        grouped = x.reshape(self.norm_groups, -1, *x.shape[1:])  # [groups, B / groups, H, W, C]
        rows, means, variances = jax.vmap(normalised)(grouped)
        self._follow(means.mean(0), variances.mean(0))
        return rows.reshape(x.shape)

    def _follow(self, mean: Array, var: Array) -> None:
        for running, new in zip((self.mean, self.var), (mean, var), strict=True):
            running[...] = MOMENTUM * running[...] + (1 - MOMENTUM) * new


def _apply(
    x: Array, scale: Array, bias: Array, mean: Array, var: Array, epsilon: float
) -> Float[Array, "... C"]:
    """One multiply and one add a pixel; folded in float32, applied in the compute dtype."""
    slope = scale * jax.lax.rsqrt(var + epsilon)
    return x * slope.astype(x.dtype) + (bias - mean * slope).astype(x.dtype)


# `_apply` with the moments of `x` itself, through which its gradient goes too; they have none. It
# is written by hand, since autodiff's sums five times over the map, not twice.
_normalise = jax.custom_vjp(_apply, nondiff_argnums=(5,))


def _forward(
    x: Array, scale: Array, bias: Array, mean: Array, var: Array, epsilon: float
) -> tuple[Array, tuple]:
    return _normalise(x, scale, bias, mean, var, epsilon), (x, scale, mean, var)


def _backward(epsilon: float, saved: tuple, grad: Array) -> tuple[Array | None, ...]:
    x, scale, mean, var = saved
    axes, count = tuple(range(x.ndim - 1)), x.size // x.shape[-1]
    grad, wide = grad.astype(mean.dtype), x.astype(mean.dtype)
    inverse = jax.lax.rsqrt(var + epsilon)
    # The normalised map is written in two ways, neither as x - mean: what is used twice, XLA on
    # CPUs writes to memory, and as early as in the forward pass.
    bias_grad = jnp.sum(grad, axes)
    scale_grad = jnp.sum(grad * (wide * inverse - mean * inverse), axes)
    slope = scale * inverse
    curve = slope * inverse * scale_grad / count
    x_grad = slope * grad - curve * wide + (curve * mean - slope * bias_grad / count)
    x_grad, dtype = x_grad.astype(x.dtype), scale.dtype
    return x_grad, scale_grad.astype(dtype), bias_grad.astype(dtype), None, None


_normalise.defvjp(_forward, _backward)


class LayerNorm(nnx.Module):
    """Layer normalisation over the last axis, computed in float32 or better; eps 1e-5."""

    def __init__(self, dim: int, *, epsilon: float = 1e-5, initial: Initial = ONES) -> None:
        self.scale, self.bias = param((dim,), initial), param((dim,), ZEROS)
        self.epsilon = epsilon

    def __call__(self, x: Float[Array, "... D"]) -> Float[Array, "... D"]:
        wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        centred = wide - wide.mean(-1, keepdims=True)
        var = jnp.square(centred).mean(-1, keepdims=True)
        wide = centred * jax.lax.rsqrt(var + self.epsilon) * self.scale[...] + self.bias[...]
        return wide.astype(x.dtype)
