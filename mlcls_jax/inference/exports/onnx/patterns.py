"""Patterns of several JAX operations that are one operation in ONNX."""

import math
from dataclasses import replace

import numpy as np

from mlcls_jax.inference.exports.onnx import ops
from mlcls_jax.inference.exports.onnx.constants import is_close, is_number
from mlcls_jax.inference.exports.onnx.ops import Numbers, Op, Plain, becomes


def mean(op: Op, x: Op, scale: Numbers) -> Op | None:
    """Recognise sum(x) / n."""
    total = x.x if x.is_plain("reshape") else x
    if not isinstance(total.does, ops.Reduce) or total.does.name != "reduce_sum":
        return None
    axes = total.does.axes
    if not is_number(scale * math.prod(total.x.shape[axis] for axis in axes), 1):
        return None
    found = replace(total, does=ops.Reduce("reduce_mean", axes), uses=op.uses)
    return found if x is total else becomes(op, Plain("reshape"), found)


def hard_swish(op: Op, x: Op, factor_of_x: Numbers) -> Op | None:
    """Recognise x * clip(x + 3, 0, 6) / 6."""
    if x.is_plain("mul") and is_number(factor_of_x, 1 / 6):
        for factor, gate in both_ways(x):
            if isinstance(gate.does, ops.Clip) and gate.does == (0, 6):
                (base, scale, shift), inner = line(factor), line(gate.x)
                is_same = inner[0] is base and is_close(inner[1], scale)
                if is_same and is_close(inner[2], shift + 3):
                    return becomes(op, Plain("hard_swish"), factor)
    return None


def layer_norm(op: Op, x: Op, factor: Op) -> Op | None:
    """Recognise x * rsqrt(mean(x * x) + eps), where x is y - mean(y), over the last axis."""
    last = (len(op.shape) - 1,)
    if not (
        factor.is_plain("rsqrt") and isinstance(factor.x.does, ops.Affine) and x.is_plain("sub")
    ):
        return None
    scale, shift = factor.x.does
    variance, (y, mean) = factor.x.x, x.inputs
    is_norm = (
        is_number(scale, 1)
        and shift.ndim == 0
        and _is_reduced(variance, "reduce_mean", last)
        and variance.x.is_plain("mul")
        and all(i is x for i in variance.x.inputs)
        and _is_reduced(mean, "reduce_mean", last)
        and mean.x is y
    )
    if not is_norm:
        return None
    ones, zeros = np.ones(op.shape[-1], np.float32), np.zeros(op.shape[-1], np.float32)
    return becomes(op, ops.LayerNorm(ones, zeros, float(shift)), y)


def softmax(op: Op) -> Op | None:
    """Recognise softmax over the last axis: exp(x - max(x)) / sum(exp(x - max(x)))."""
    last = (len(op.shape) - 1,)
    power, total = op.inputs
    is_sum = _is_reduced(total, "reduce_sum", last) and total.x is power
    if is_sum and power.is_plain("exp") and power.x.is_plain("sub"):
        x, top = power.x.inputs
        if _is_reduced(top, "reduce_max", last) and top.x is x:
            return becomes(op, Plain("softmax"), x)
    return None


def _is_reduced(op: "Op | np.ndarray", kind: str, axes: tuple[int, ...]) -> bool:
    return isinstance(op, Op) and isinstance(op.does, ops.Reduce) and op.does == (kind, axes)


def line(op: Op) -> tuple[Op, Numbers, Numbers]:
    """Return the x, scale and shift with which `op` is scale * x + shift."""
    if isinstance(op.does, ops.Affine):
        return op.x, op.does.scale, op.does.shift
    return op, np.float64(1), np.float64(0)


def both_ways(op: Op) -> list[tuple[Op, Op]]:
    """Return the two operands in both orders; nothing where one is a constant."""
    left, right = op.inputs
    return [(left, right), (right, left)] if isinstance(left, Op) and isinstance(right, Op) else []
