"""What JAX spells out in several operations and ONNX has as one."""

import math
from dataclasses import replace

import numpy as np

from mlcls_jax.inference.exports.onnx.constants import is_close, is_number
from mlcls_jax.inference.exports.onnx.ops import Op, becomes


def mean(op: Op, x: Op, scale: np.ndarray) -> Op | None:
    """Recognise sum(x) / n."""
    total = x.x if x.kind == "reshape" else x
    if total.kind != "reduce_sum":
        return None
    if not is_number(scale * math.prod(total.x.shape[axis] for axis in total.axes), 1):
        return None
    found = replace(total, kind="reduce_mean", uses=op.uses)
    return found if x is total else becomes(op, "reshape", [found])


def hard_swish(op: Op, x: Op, factor_of_x: np.ndarray) -> Op | None:
    """Recognise x * clip(x + 3, 0, 6) / 6."""
    if x.kind == "mul" and is_number(factor_of_x, 1 / 6):
        for factor, gate in both_ways(x):
            if gate.kind == "clip" and (gate.low, gate.high) == (0, 6):
                (base, scale, shift), inner = line(factor), line(gate.x)
                is_same = inner[0] is base and is_close(inner[1], scale)
                if is_same and is_close(inner[2], shift + 3):
                    return becomes(op, "hard_swish", [factor])
    return None


def layer_norm(op: Op, x: Op, factor: Op) -> Op | None:
    """Recognise x * rsqrt(mean(x * x) + eps), where x is y - mean(y), over the last axis."""
    last = (len(op.shape) - 1,)
    if factor.kind != "rsqrt" or factor.x.kind != "affine" or x.kind != "sub":
        return None
    variance, (y, mean) = factor.x.x, x.inputs
    is_norm = (
        is_number(factor.x.scale, 1)
        and factor.x.shift.ndim == 0
        and _is_reduced(variance, "reduce_mean", last)
        and variance.x.kind == "mul"
        and all(i is x for i in variance.x.inputs)
        and _is_reduced(mean, "reduce_mean", last)
        and mean.x is y
    )
    if not is_norm:
        return None
    ones, zeros = np.ones(op.shape[-1], np.float32), np.zeros(op.shape[-1], np.float32)
    params = {"weight": ones, "bias": zeros, "epsilon": float(factor.x.shift)}
    return becomes(op, "layer_norm", [y], **params)


def softmax(op: Op) -> Op:
    """Recognise softmax over the last axis: exp(x - max(x)) / sum(exp(x - max(x)))."""
    last = (len(op.shape) - 1,)
    power, total = op.inputs
    is_sum = _is_reduced(total, "reduce_sum", last) and total.x is power
    if is_sum and power.kind == "exp" and power.x.kind == "sub":
        x, top = power.x.inputs
        if _is_reduced(top, "reduce_max", last) and top.x is x:
            return becomes(op, "softmax", [x])
    return op


def _is_reduced(op: "Op | np.ndarray", kind: str, axes: tuple[int, ...]) -> bool:
    return isinstance(op, Op) and op.kind == kind and op.axes == axes


def line(op: Op) -> tuple[Op, np.ndarray, np.ndarray]:
    """Return the x, scale and shift with which `op` is scale * x + shift."""
    if op.kind == "affine":
        return op.x, op.scale, op.shift
    return op, np.float64(1), np.float64(0)


def both_ways(op: Op) -> list[tuple[Op, Op]]:
    """Return the two operands in both orders; nothing where one is a constant."""
    left, right = op.inputs
    return [(left, right), (right, left)] if isinstance(left, Op) and isinstance(right, Op) else []
