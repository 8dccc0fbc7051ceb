"""Initial values: each parameter declares its distribution, NumPy draws it by seed and path.

Drawing on the host takes milliseconds where compiling a graph of random generators takes seconds,
and gives the same numbers on every platform. A parameter's draw depends on nothing but the seed
and its path, so that two models share the weights of what they share.
"""

import math
import zlib
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from flax import nnx


@dataclass(frozen=True)
class Normal:
    """Mean 0 and standard deviation `std`."""

    std: float


@dataclass(frozen=True)
class Uniform:
    """Between -limit and +limit."""

    limit: float


@dataclass(frozen=True)
class Constant:
    """The same value everywhere."""

    value: float


@dataclass(frozen=True)
class FromFile:
    """The array in a `.npy` file."""

    path: str


Initial = Normal | Uniform | Constant | FromFile
ZEROS, ONES = Constant(0.0), Constant(1.0)


@dataclass(frozen=True)
class Choice:
    """The distribution of a parameter for each value of `model.initial`."""

    default: Initial
    paddle: Initial

    @classmethod
    def of(cls, declared: "Initial | Choice", name: str) -> Initial:
        """Return what `declared` means under the value `name`."""
        return getattr(declared, name) if isinstance(declared, Choice) else declared


class FrozenParam(nnx.Param):
    """A stored parameter that is averaged and saved like others but neither trained nor decayed."""


def param(
    shape: tuple[int, ...],
    initial: Initial | Choice,
    kind: type = nnx.Param,
    *,
    tensor_axis: int | None = None,
) -> nnx.Variable:
    """Return a float32 parameter that will be drawn from `initial`; it holds zeros until then.

    Tensor devices share out its `tensor_axis`; None: each has all of it.
    """
    return kind(jnp.zeros(shape, jnp.float32), initial=initial, tensor_axis=tensor_axis)


def kaiming_normal(fan: int) -> Normal:
    """Keep the variance through a ReLU (He et al., 2015).

    That of values where `fan` is the number of inputs, of gradients where it is that of outputs.
    """
    return Normal(math.sqrt(2.0 / fan))


def xavier_uniform(rows: int, columns: int) -> Uniform:
    """Between keeping the variance of values and that of gradients (Glorot and Bengio, 2010)."""
    return Uniform(math.sqrt(6.0 / (rows + columns)))


def small_uniform(fan_in: int) -> Uniform:
    """A third of the variance that keeps that of values."""
    return Uniform(1 / math.sqrt(fan_in))


def draw(path: str, shape: tuple[int, ...], initial: Initial, *, seed: int) -> np.ndarray:
    """The initial value of the parameter at `path`: float32 of `shape`."""
    if isinstance(initial, Constant):
        return np.full(shape, initial.value, np.float32)
    if isinstance(initial, FromFile):
        return np.load(initial.path, allow_pickle=False).astype(np.float32).reshape(shape)
    generator = np.random.Generator(np.random.PCG64([seed, zlib.crc32(path.encode())]))
    if isinstance(initial, Normal):
        return generator.standard_normal(shape, np.float32) * np.float32(initial.std)
    return generator.uniform(-initial.limit, initial.limit, shape).astype(np.float32)
