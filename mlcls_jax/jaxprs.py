"""What JAX has traced: the programs inside an operation, and evaluating one by rules of one's own.

The rest of the package reads jaxprs through these functions, so what JAX changes in them is
followed here.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from jax.core import ShapedArray
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal

_CHECKPOINTS = ("remat2", "checkpoint")  # jax.checkpoint, in older releases; then by its own name
# Operations that do no more than call another traced program.
_CALLS = ("jit", "pjit", "closed_call", "custom_jvp_call", "custom_vjp_call", *_CHECKPOINTS)


def inner(equation: JaxprEqn) -> Iterator[Jaxpr]:
    """Yield the jaxprs that an operation calls, such as those of jit, custom_vjp_call and scan."""
    for value in equation.params.values():
        if isinstance(value, ClosedJaxpr):
            yield value.jaxpr
        elif isinstance(value, Jaxpr):
            yield value


def is_checkpoint(equation: JaxprEqn) -> bool:
    """Return whether the gradient computes again what is in there."""
    return equation.primitive.name in _CHECKPOINTS


def form(atom: Any) -> ShapedArray:
    """Return shape and type of an operand or a result of an operation."""
    return atom.aval


def evaluate(
    program: ClosedJaxpr,
    arguments: Sequence[Any],
    rule: Callable[[JaxprEqn, list[Any]], Sequence[Any]],
) -> list[Any]:
    """Return the outputs of a program whose operations are computed by `rule`; calls are entered.

    Args:
      program: what JAX has traced.
      arguments: one per input, of any kind that the rule knows.
      rule: gives an operation's results from the operation and its operands: results of earlier
        operations, arguments or constants.
    """
    return _evaluate(program.jaxpr, program.consts, arguments, rule)


def bind(
    equation: JaxprEqn, operands: Sequence[Any], params: dict[str, Any] | None = None
) -> Sequence[Any]:
    """Return an operation's results as JAX computes them, where given with other parameters."""
    params = equation.params if params is None else params
    results = equation.primitive.bind(*operands, **params)
    return results if equation.primitive.multiple_results else [results]


def _evaluate(
    jaxpr: Jaxpr, constants: Sequence[Any], arguments: Sequence[Any], rule: Callable[..., Any]
) -> list[Any]:
    values = dict(zip(jaxpr.constvars, constants, strict=True))
    values |= zip(jaxpr.invars, arguments, strict=True)

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, Literal) else values[atom]

    for equation in jaxpr.eqns:
        operands = [read(atom) for atom in equation.invars]
        if equation.primitive.name in _CALLS:
            params = equation.params
            called = params.get("jaxpr") or params.get("call_jaxpr") or params["fun_jaxpr"]
            is_closed = isinstance(called, ClosedJaxpr)
            body, consts = (called.jaxpr, called.consts) if is_closed else (called, ())
            results = _evaluate(body, consts, operands, rule)
        else:
            results = rule(equation, operands)
        values |= zip(equation.outvars, results, strict=True)
    return [read(atom) for atom in jaxpr.outvars]
