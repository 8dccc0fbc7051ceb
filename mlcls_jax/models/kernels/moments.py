"""Mean and variance of every channel over all other axes, and a form that reads the map once."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def moments(
    x: Float[Array, "... C"], near: Float[Array, " C"]
) -> tuple[Float[Array, " C"], Float[Array, " C"]]:
    """Return mean and (biased) variance, in float32 or better; `near` is not needed."""
    axes = tuple(range(x.ndim - 1))
    dtype = jnp.promote_types(x.dtype, jnp.float32)
    mean = jnp.mean(x, axes, dtype=dtype)
    return mean, jnp.mean(jnp.square(x.astype(dtype) - mean), axes)


def moments_in_one_pass(
    x: Float[Array, "... C"], near: Float[Array, " C"]
) -> tuple[Float[Array, " C"], Float[Array, " C"]]:
    """Return the same of bfloat16 with two sums that do not wait for each other.

    So accelerators compute both where the map is made, and several devices exchange both at once.
    They are taken around `near`, a guess of the mean, since digits are lost with its distance from
    the mean: of float32's 24 bits, as many as the mean square there has above the variance.
    """
    if x.dtype != jnp.bfloat16:
        return moments(x, near)
    axes = tuple(range(x.ndim - 1))
    away = x.astype(jnp.float32) - near
    shift, square = jnp.mean(away, axes), jnp.mean(jnp.square(away), axes)
    return near + shift, jnp.maximum(square - jnp.square(shift), 0)
