"""The pass that makes a graph small: a rule per operation, each of which keeps its value.

Scales and shifts go into the weights beside them, and what JAX spells out (softmax, layer
normalisation, ...) becomes one operation.
"""

from collections.abc import Callable
from dataclasses import replace

from mlcls_jax.inference.exports.onnx import elementwise, fold, shapes
from mlcls_jax.inference.exports.onnx.ops import Op, Primitive, count_uses, in_order, skip

# Primitive of JAX → function of an operation whose inputs are done.
RULES: dict[str, Callable[[Op], Op]] = {
    **dict.fromkeys(("add", "sub", "mul", "div"), elementwise.arithmetic),
    **dict.fromkeys(("max", "min"), elementwise.bound),
    **dict.fromkeys(("square", "integer_pow"), elementwise.power),
    **dict.fromkeys(("stop_gradient", "copy"), skip),
    **dict.fromkeys(("reshape", "squeeze", "expand_dims"), shapes.reshape),
    **dict.fromkeys(("reduce_sum", "reduce_max", "reduce_min"), shapes.reduce),
    **dict.fromkeys(
        ("abs", "erf", "exp", "log", "logistic", "rsqrt", "sqrt", "tanh"), elementwise.keep
    ),
    "neg": lambda op: fold.affine(op, op.x, -1.0, 0.0),
    "clamp": elementwise.clamp,
    "convert_element_type": elementwise.cast,
    "broadcast_in_dim": shapes.broadcast,
    "slice": shapes.cut,
    "gather": shapes.gather,
    "pad": shapes.pad,
    "transpose": shapes.transpose,
    "concatenate": shapes.concatenate,
    "conv_general_dilated": fold.conv,
    "dot_general": fold.dot,
    "reduce_window_max": shapes.max_pool,
}


def simplify(result: Op) -> Op:
    """Return the result of a smaller graph of the same value."""
    count_uses(result)
    new: dict[Op, Op] = {}
    for op in in_order(result):
        inputs = [new[i] if isinstance(i, Op) else i for i in op.inputs]
        if isinstance(op.does, Primitive):
            new[op] = RULES[op.name](replace(op, inputs=inputs))
        else:
            new[op] = op
    return new[result]
