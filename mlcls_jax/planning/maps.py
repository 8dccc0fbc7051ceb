"""The arrays that a network hands from layer to layer, and what they take in memory."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import Jaxpr, JaxprEqn
from jax.extend.core import Literal as Constant
from jaxtyping import Array

from mlcls_jax import jaxprs
from mlcls_jax.models import Network
from mlcls_jax.models.kernels import PLAIN
from mlcls_jax.models.kernels.attention import attend, is_for_cudnn

LANES, ROWS = 128, 8  # of a tile in a TPU's memory


class Map(NamedTuple):
    """An array of one image between layers."""

    # Of convolutions and products; the other input of a product of two maps, as in attention; a sum
    # or concatenation of branches; the float32 input of a layer normalisation; what GELU returns;
    # queries, keys and values of cuDNN's attention, where a bias was added to them last.
    role: Literal[
        "input", "output", "other", "sum", "concatenation", "norm", "checkpointed", "attended"
    ]
    shape: tuple[int, ...]
    itemsize: int

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * self.itemsize

    def on_tpu(self, images: float) -> float:
        """Return its bytes an image as a TPU lays out so many, in tiles of 8 x 128.

        The 128 lanes hold channels or images, whatever wastes less.
        """
        *sides, channels = self.shape
        if not sides:
            return self.bytes
        rows = min(_rounded(sides[-1], ROWS) / sides[-1], _rounded(images, ROWS) / images)
        by_channel = _rounded(channels, LANES) / channels * rows
        by_image = _rounded(images, LANES) / images * _rounded(channels, ROWS) / channels
        return self.bytes * min(by_channel, by_image)


def layers_of(
    network: Network, size: tuple[int, int], platform: Literal["tpu", "gpu"]
) -> list[Map]:
    """Return the different inputs and outputs of convolutions and matrix products, and joins.

    What lies between two of them is cheap to compute again from these, and XLA does.
    """
    network = replace(network, kernels=KERNELS[platform])
    image = jax.ShapeDtypeStruct((1, *size, 3), jnp.uint8)
    step = partial(network.apply, train=True, key=jax.random.key(0))
    return list(_maps(jax.make_jaxpr(step)(network.abstract, image).jaxpr))


def _attend_at_once(
    q: Array, k: Array, v: Array, drop: Callable[[Array], Array] | None = None
) -> Array:
    """Return what has the shape of the result; cuDNN keeps nothing between its products."""
    if drop is None and is_for_cudnn(q, k):
        return jax.jit(_by_cudnn)(q, k, v)  # so that it has a name among what is traced
    return attend(q, k, v, drop)


def _by_cudnn(q: Array, _k: Array, _v: Array) -> Array:
    return -q


# cuDNN itself cannot be traced without its library. What else differs by platform keeps the same.
KERNELS = {"tpu": PLAIN, "gpu": replace(PLAIN, attend=_attend_at_once)}


def _maps(jaxpr: Jaxpr) -> Iterator[Map]:
    seen: set[int] = set()
    made_by: dict[Any, JaxprEqn] = {}
    averaged = {id(e.invars[0]) for e in jaxpr.eqns if e.primitive.name == "reduce_sum"}
    for equation in jaxpr.eqns:
        kind = equation.primitive.name
        made_by |= dict.fromkeys(equation.outvars, equation)
        if kind in ("conv_general_dilated", "dot_general"):
            roles = ["input"] + ["output"] * len(equation.outvars)
            variables = (equation.invars[0], *equation.outvars)
            for role, variable in zip(roles, variables, strict=True):
                if id(variable) not in seen:
                    seen.add(id(variable))
                    yield _map(role, variable.aval)
            other = equation.invars[1]
            is_of_maps = kind == "dot_general" and equation.params["dimension_numbers"][1][0]
            if is_of_maps and id(other) not in seen:
                seen.add(id(other))
                yield _map("other", other.aval)
        elif kind == "concatenate" or (kind in ("add", "add_any") and _is_sum(equation, made_by)):
            joined = jaxprs.form(equation.outvars[0])
            if joined.ndim > 2 and jnp.issubdtype(joined.dtype, jnp.floating):  # no random bits
                yield _map("concatenation" if kind == "concatenate" else "sum", joined)
        elif equation.params.get("name") == _by_cudnn.__name__:
            operands = [one for one in equation.invars if _has_bias(one, made_by)]
            yield from (_map("attended", one.aval) for one in operands)
        elif kind == "convert_element_type" and _is_widened(equation):
            if id(equation.outvars[0]) in averaged:  # not the scores of a softmax
                yield _map("norm", equation.outvars[0].aval)
        else:
            if jaxprs.is_checkpoint(equation):
                yield from (_map("checkpointed", result.aval) for result in equation.outvars)
            for inner in jaxprs.inner(equation):
                yield from _maps(inner)


def _is_sum(equation: JaxprEqn, made_by: dict[Any, JaxprEqn]) -> bool:
    """Return whether two maps are added, rather than a bias to one."""
    return all(
        not isinstance(variable, Constant)
        and jaxprs.form(variable).shape == jaxprs.form(equation.outvars[0]).shape
        and _maker(variable, made_by) != "broadcast_in_dim"
        for variable in equation.invars
    )


def _has_bias(variable: Any, made_by: dict[Any, JaxprEqn]) -> bool:
    """Return whether it is a part of a map to which a bias was added last."""
    while _maker(variable, made_by) in ("reshape", "split", "slice", "squeeze"):
        variable = made_by[variable].invars[0]
    return _maker(variable, made_by) == "add" and not _is_sum(made_by[variable], made_by)


def _maker(variable: Any, made_by: dict[Any, JaxprEqn]) -> str | None:
    """Return the name of the operation that a variable is the result of."""
    return made_by[variable].primitive.name if variable in made_by else None


def _is_widened(equation: JaxprEqn) -> bool:
    """Return whether a map in bfloat16 becomes float32."""
    before, after = jaxprs.form(equation.invars[0]), jaxprs.form(equation.outvars[0])
    return after.ndim > 2 and (before.dtype, after.dtype) == (jnp.bfloat16, jnp.float32)


def _map(role: Any, array: Any) -> Map:
    shape = array.shape[1:] if array.ndim > 2 and array.shape[0] == 1 else array.shape
    return Map(role, shape, array.dtype.itemsize)


def _rounded(value: float, unit: int) -> int:
    return math.ceil(value / unit) * unit
