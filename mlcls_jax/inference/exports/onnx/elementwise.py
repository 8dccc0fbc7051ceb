"""Rules for operations on each number alone: sums, products, bounds and powers."""

import math

import numpy as np

from mlcls_jax.errors import ExportError
from mlcls_jax.inference.exports.onnx.constants import is_close, is_number, smallest
from mlcls_jax.inference.exports.onnx.fold import affine, clip
from mlcls_jax.inference.exports.onnx.ops import Op, Plain, Power, becomes, skip
from mlcls_jax.inference.exports.onnx.patterns import both_ways, layer_norm, line, softmax


def keep(op: Op) -> Op:
    """Keep a primitive without parameters as it is."""
    return becomes(op, Plain(op.name), *op.inputs)


def arithmetic(op: Op) -> Op:
    """Make add, sub, mul and div with a constant scale * x + shift."""
    name, (left, right) = op.name, op.inputs
    x, constant = (left, right) if isinstance(left, Op) else (right, left)
    if isinstance(constant, Op):
        found = _product(op) if name == "mul" else softmax(op) if name == "div" else None
        return found or keep(op)
    if x.shape != op.shape or (name == "div" and x is right):
        return keep(op)
    constant = np.asarray(constant, np.float64)
    if name in ("mul", "div"):
        return affine(op, x, constant if name == "mul" else 1.0 / constant, 0.0)
    if name == "sub" and x is right:
        return affine(op, x, -1.0, constant)
    return affine(op, x, 1.0, constant if name == "add" else -constant)


def _product(op: Op) -> Op | None:
    for x, factor in both_ways(op):
        if found := _gelu(op, x, factor) or layer_norm(op, x, factor):
            return found
    return None


def _gelu(op: Op, x: Op, factor: Op) -> Op | None:
    """Recognise gelu(u): u * (0.5 + 0.5 * erf(u / sqrt(2)))."""
    erf, half, other_half = line(factor)
    if not (is_number(half, 0.5) and is_number(other_half, 0.5) and erf.is_plain("erf")):
        return None
    base, scale, shift = line(erf.x)
    x_base, x_scale, x_shift = line(x)
    ratio = smallest(x_scale / scale)
    if x_base is not base or ratio.ndim or not is_close(x_shift, ratio * shift):
        return None
    root = math.sqrt(2)
    u = affine(Op(Plain("mul"), [base], op.shape, uses=1), base, root * scale, root * shift)
    return affine(op, Op(Plain("gelu"), [u], op.shape, uses=1), ratio / root, 0.0)


def bound(op: Op) -> Op:
    """Make max and min with a number a clip."""
    for x, number in (op.inputs, op.inputs[::-1]):
        if isinstance(x, Op) and not isinstance(number, Op) and np.ndim(smallest(number)) == 0:
            limit = float(smallest(number))
            is_lower = op.name == "max"
            return clip(op, x, limit, np.inf) if is_lower else clip(op, x, -np.inf, limit)
    return keep(op)


def clamp(op: Op) -> Op:
    """Make a clip of it."""
    low, x, high = op.inputs
    if isinstance(low, Op) or isinstance(high, Op) or low.ndim or high.ndim:
        raise ExportError("ONNX: no rule for clamp with bounds that are not numbers")
    return clip(op, x, float(low), float(high))


def power(op: Op) -> Op:
    """Make a square a product."""
    is_square = op.params.get("y", 2) == 2  # `square` has no y
    if is_square:
        return becomes(op, Plain("mul"), op.x, op.x)
    return becomes(op, Power(op.params["y"]), op.x)


def cast(op: Op) -> Op:
    """Keep the cast of the images alone: all else is float32."""
    return becomes(op, Plain("cast"), op.x) if op.x.is_plain("images") else skip(op)
