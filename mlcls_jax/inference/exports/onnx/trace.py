"""From a jaxpr to a graph of what depends on the images; the rest is computed here and now."""

from collections.abc import Collection, Iterator
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, JaxprEqn

from mlcls_jax import jaxprs
from mlcls_jax.errors import ExportError
from mlcls_jax.inference.exports.onnx.ops import BATCH, Op, Plain, Primitive, Shape


def trace(function: ClosedJaxpr, known: Collection[str]) -> Op:
    """Return the graph of a jaxpr whose one input and one output have a symbolic batch.

    Constants are NumPy arrays; one that JAX repeats for each image has a batch of 1.

    Raises:
      ExportError: it has a primitive that is not `known`, or mixes the images of a batch.
    """
    (images,) = function.jaxpr.invars
    source = Op(Plain("images"), [], _shape(images.aval))

    def rule(equation: JaxprEqn, operands: list[Any]) -> list[Any]:
        operands = [x if isinstance(x, Op) else np.asarray(x) for x in operands]
        if not any(isinstance(x, Op) for x in operands):
            return _compute(equation, operands, known)
        _check(equation, known)
        return list(_operations(equation, operands))

    (result,) = jaxprs.evaluate(function, [source], rule)
    if not isinstance(result, Op):
        raise ExportError("the scores do not depend on the images")
    return result


def _compute(
    equation: JaxprEqn, operands: list[np.ndarray], known: Collection[str]
) -> list[np.ndarray]:
    """Compute results for a batch of one image, where they are the same for all."""
    if any(BATCH in _shape(atom.aval) for atom in (*equation.invars, *equation.outvars)):
        _check(equation, known)
    params = {name: _for_one_image(value) for name, value in equation.params.items()}
    return [np.asarray(array) for array in jaxprs.bind(equation, operands, params)]


def _for_one_image(value: Any) -> Any:
    if type(value) is tuple:
        return tuple(map(_for_one_image, value))
    return 1 if jax.export.is_symbolic_dim(value) else value


def _check(equation: JaxprEqn, known: Collection[str]) -> None:
    """Refuse what has no rule, other types than float32, and what mixes or picks images."""
    kind = equation.primitive.name
    if kind not in known and kind != "split":
        raise ExportError(
            f"ONNX: no rule for the primitive {kind} of JAX:"
            f" {', '.join(str(v.aval) for v in equation.invars)}",
            f"Add a rule for {kind} to RULES in {__package__}.rules, or write the model"
            " without it.",
        )
    for variable in equation.outvars:
        aval: Any = variable.aval
        if _shape(aval).count(BATCH) != 1:
            raise ExportError(f"ONNX: {kind} takes the images of a batch together or apart")
        if aval.dtype != np.float32:
            raise ExportError(f"ONNX: {kind} computes in {aval.dtype}, not float32")


def _operations(equation: JaxprEqn, operands: list[Any]) -> Iterator[Op]:
    kind = equation.primitive.name
    if kind == "split":
        axis, start = equation.params["axis"], 0
        for size, variable in zip(equation.params["sizes"], equation.outvars, strict=True):
            shape = _shape(variable.aval)
            starts = tuple(start if a == axis else 0 for a in range(len(shape)))
            params = {"start_indices": starts, "is_split": True}
            yield Op(Primitive("slice", params), operands, shape)
            start += int(size)
        return
    (variable,) = equation.outvars
    yield Op(Primitive(kind, equation.params), operands, _shape(variable.aval))


def _shape(aval: Any) -> Shape:
    """Return the sizes, with BATCH for the symbolic one."""
    if any(jax.export.is_symbolic_dim(n) and str(n) != "b" for n in aval.shape):
        raise ExportError(f"ONNX: {aval} takes the images of a batch together or apart")
    return tuple(BATCH if jax.export.is_symbolic_dim(n) else int(n) for n in aval.shape)
