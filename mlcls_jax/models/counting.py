"""Count parameters and multiply-accumulates of a model from shapes alone.

Nothing is allocated or compiled: the forward pass is traced with abstract values and its
operations are read off the jaxpr.
"""

import csv
import functools
import math
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypedDict

import jax
import jax.numpy as jnp
from jax.extend.core import Jaxpr, JaxprEqn, Literal

from mlcls_jax import jaxprs
from mlcls_jax.config import Model as ModelConfig
from mlcls_jax.models import registry
from mlcls_jax.models.initial import Constant
from mlcls_jax.models.network import Network, Variables, flatten

# Sizes counted before, with 80 labels: counting all models takes a minute. A test holds them.
STORED = Path(__file__).with_name("sizes.csv")


class Summary(TypedDict):
    """A row of the model table."""

    name: str
    parameters: int
    gmacs: float
    feature_map: tuple[int, int, int]  # h, w, C: what the head sees
    image_size: int


def summarize(name: str) -> Summary:
    """Sizes of the model `name` at its default resolution, with 80 labels.

    Raises:
      ConfigError: no such model.
    """
    size = registry.default_size(name)
    network = Network.of(ModelConfig(name=name, num_classes=80, image_size=(size, size)))
    return Summary(
        name=name,
        parameters=count_parameters(network),
        gmacs=count_macs(network, size) / 1e9,
        feature_map=feature_map(network, size),
        image_size=size,
    )


@functools.cache
def stored() -> dict[str, Summary]:
    """Return by name the sizes that were counted before, as `summarize` counts them."""
    with STORED.open(encoding="utf-8", newline="") as file:
        return {row["name"]: _read(row) for row in csv.DictReader(file)}


def _read(row: dict[str, str]) -> Summary:
    height, width, channels, size, parameters, macs = (int(row[column]) for column in _COLUMNS[1:])
    return Summary(
        name=row["name"],
        parameters=parameters,
        gmacs=macs / 1e9,
        feature_map=(height, width, channels),
        image_size=size,
    )


_COLUMNS = ("name", "height", "width", "channels", "size", "parameters", "macs")


def store(summaries: Iterable[Summary]) -> None:
    """Write the sizes that `stored` reads."""
    with STORED.open("w", encoding="utf-8", newline="") as file:
        lines = csv.writer(file, lineterminator="\n")
        lines.writerow(_COLUMNS)
        for one in summaries:
            macs = round(one["gmacs"] * 1e9)
            cells = (*one["feature_map"], one["image_size"], one["parameters"], macs)
            lines.writerow((one["name"], *cells))


def count_parameters(network: Network) -> int:
    """Stored numbers without the statistics of batch normalisation.

    Frozen constants are not counted: the originals have them built in.
    """
    leaves = flatten(network.abstract._replace(batch_stats={}))
    return sum(
        leaf.size
        for path, leaf in leaves.items()
        if not (path in network.frozen and isinstance(network.initial[path], Constant))
    )


def count_macs(
    network: Network, image_size: int | tuple[int, int], *, with_head: bool = True
) -> int:
    """Multiply-accumulates of one image: convolutions, linear layers and attention products.

    Multiplications element by element, norms and activations are left out, as papers do.
    """
    function = network.apply if with_head else partial(_features, network)
    return _macs_of(jax.make_jaxpr(function)(network.abstract, _image(image_size)).jaxpr)


def feature_map(network: Network, image_size: int | tuple[int, int]) -> tuple[int, int, int]:
    """Height, width and channels of what the backbone hands to the head."""
    features = partial(_features, network)
    return jax.eval_shape(features, network.abstract, _image(image_size)).shape[1:]


def _features(network: Network, variables: Variables, images: jax.Array) -> jax.Array:
    return network.module(variables).backbone(images)


def parameter_products(
    network: Network, image_size: int | tuple[int, int]
) -> Iterator[tuple[str, int, JaxprEqn]]:
    """Yield the matrix products with a parameter in the forward pass of one image.

    Yields:
      The parameter's path, which of the two operands it is, as it is or cast, and the product.
    """
    traced = jax.make_jaxpr(network.apply)(network.abstract, _image(image_size))
    # In the order of the leaves of `network.abstract`; the image comes last.
    parameters = dict(zip(traced.jaxpr.invars[:-1], flatten(network.abstract), strict=True))
    yield from _products_with(traced.jaxpr, parameters)


def _products_with(jaxpr: Jaxpr, parameters: dict[Any, str]) -> Iterator[tuple[str, int, JaxprEqn]]:
    for equation in jaxpr.eqns:
        paths = [None if isinstance(v, Literal) else parameters.get(v) for v in equation.invars]
        kind = equation.primitive.name
        if kind == "dot_general":
            yield from ((path, place, equation) for place, path in enumerate(paths) if path)
        elif kind == "convert_element_type" and paths[0]:
            parameters[equation.outvars[0]] = paths[0]
        for inner in jaxprs.inner(equation):
            known = zip(reversed(inner.invars), reversed(paths), strict=False)
            yield from _products_with(inner, {v: path for v, path in known if path})


def _image(size: int | tuple[int, int]) -> jax.ShapeDtypeStruct:
    """One image without its pixels, already normalised."""
    height, width = (size, size) if isinstance(size, int) else size
    return jax.ShapeDtypeStruct((1, height, width, 3), jnp.float32)


def _macs_of(jaxpr: Jaxpr) -> int:
    return sum(_macs_of_equation(equation) for equation in jaxpr.eqns)


def _macs_of_equation(equation: JaxprEqn) -> int:
    kind = equation.primitive.name
    if kind == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        shape = jaxprs.form(equation.invars[0]).shape
        return jaxprs.form(equation.outvars[0]).size * math.prod(shape[axis] for axis in contracted)
    if kind == "conv_general_dilated":
        kernel = jaxprs.form(equation.invars[1])
        outputs = kernel.shape[equation.params["dimension_numbers"].rhs_spec[0]]
        return jaxprs.form(equation.outvars[0]).size * (kernel.size // outputs)
    repeats = equation.params["length"] if kind == "scan" else 1
    return repeats * sum(_macs_of(jaxpr) for jaxpr in jaxprs.inner(equation))
