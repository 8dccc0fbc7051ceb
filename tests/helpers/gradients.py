"""What a function gives and what its gradient is, to be compared with another form of it."""

import jax
import jax.numpy as jnp
import numpy as np


def value_and_gradients(function, *arguments):
    """The value, and for each argument the gradient of a sum of the value with drawn weights."""
    value, pull_back = jax.vjp(function, *arguments)
    weights = np.random.default_rng(1).normal(size=value.shape)
    return value, *pull_back(jnp.asarray(weights, value.dtype))
