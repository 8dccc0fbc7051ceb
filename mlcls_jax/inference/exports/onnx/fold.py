"""Scales, shifts and bounds go into the operations beside them, above all into their weights."""

from dataclasses import replace
from typing import Any

import numpy as np

from mlcls_jax.errors import ExportError
from mlcls_jax.inference.exports.onnx.constants import by_feature, is_number, row, smallest
from mlcls_jax.inference.exports.onnx.ops import BATCH, Op, becomes, skip
from mlcls_jax.inference.exports.onnx.patterns import hard_swish, mean

WEIGHTED = ("conv", "linear", "layer_norm")  # weights end with the axis of the features
NHWC_CONV = ((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))


def affine(op: Op, x: Op, scale: Any, shift: Any) -> Op:
    """Compute scale * x + shift, inside what gives x where that is possible."""
    scale, shift = smallest(scale), smallest(shift)
    if is_number(scale, 1) and is_number(shift, 0):
        return skip(replace(op, inputs=[x]))
    if x.kind == "affine":
        return affine(op, x.x, x.scale * scale, x.shift * scale + shift)
    wide, high = by_feature(scale), by_feature(shift)
    if wide is not None and high is not None:
        if _is_flat_map(x):
            inner = affine(_on_map(op, x), x.x, row(wide, 4), row(high, 4))
            return becomes(op, "reshape", [inner])
        if x.kind in WEIGHTED and x.uses == 1:
            weights = {"weight": np.float32(x.weight * wide), "bias": x.bias * wide + high}
            return becomes(op, x.kind, x.inputs, **x.params | weights)
    if scale.ndim == shift.ndim == 0:
        if x.kind == "clip" and x.x.kind in WEIGHTED and x.uses == x.x.uses == 1 and scale > 0:
            inner = affine(x, x.x, scale, shift)
            return clip(op, inner, x.low * scale + shift, x.high * scale + shift)
        if shift == 0 and (found := mean(op, x, scale) or hard_swish(op, x, scale)):
            return found
    return becomes(op, "affine", [x], scale=scale, shift=shift)


def clip(op: Op, x: Op, low: float, high: float) -> Op:
    """Bound x, together with bounds that it has."""
    low, high = float(low), float(high)
    if _is_flat_map(x):
        return becomes(op, "reshape", [clip(_on_map(op, x), x.x, low, high)])
    if x.kind == "clip" and max(x.low, low) <= min(x.high, high):
        return clip(op, x.x, max(x.low, low), min(x.high, high))
    if (low, high) == (-np.inf, np.inf):
        return skip(replace(op, inputs=[x]))
    if x.kind == "affine" and (low, high) == (0, 1) and x.scale.ndim == x.shift.ndim == 0:
        return becomes(op, "hard_sigmoid", [x.x], alpha=float(x.scale), beta=float(x.shift))
    return becomes(op, "clip", [x], low=low, high=high)


def conv(op: Op) -> Op:
    """Make a convolution of NHWC, with what its input is scaled and shifted by in its weights."""
    x, kernel = op.inputs
    is_plain = tuple(op.dimension_numbers) == NHWC_CONV and set(op.lhs_dilation) == {1}
    if isinstance(kernel, Op) or not is_plain or op.batch_group_count != 1:
        raise ExportError("ONNX: convolutions must be NHWC, with constant kernels")
    if x.kind == "affine" and x.uses == 1 and op.feature_group_count == 1:
        # scale * (x + shift / scale): zeros around it stay zeros.
        wide, high = by_feature(x.scale), by_feature(x.shift)
        if wide is not None and high is not None and np.all(wide):
            wide, high = (np.broadcast_to(v, x.shape[-1:]) for v in (wide, high / wide))
            kernel = kernel * wide[:, None]
            x = becomes(x, "affine", x.inputs, scale=np.float64(1), shift=row(high, 4))
    return becomes(
        op,
        "conv",
        [x],
        weight=kernel,
        bias=np.zeros(kernel.shape[-1], np.float32),
        strides=op.window_strides,
        pads=op.padding,
        dilations=op.rhs_dilation,
        groups=op.feature_group_count,
    )


def dot(op: Op) -> Op:
    """Make a product with constant weights a linear layer, on the map where there is one."""
    left, right = op.inputs
    (contracted, _), (batched, _) = op.dimension_numbers
    if not isinstance(left, Op):
        return _scores(op, left, right) or op
    if isinstance(right, Op) or batched or right.ndim != 2 or contracted != (len(left.shape) - 1,):
        return op
    weight = right if op.dimension_numbers[0][1] == (0,) else right.T
    if _is_flat_map(left):
        return becomes(op, "reshape", [_linear(_on_map(op, left), left.x, weight)])
    return _linear(op, left, weight)


def _scores(op: Op, queries: np.ndarray, keys: Op) -> Op | None:
    """Recognise scores [B, h, Q, N] of fixed queries [1, Q, h, d] with keys [B, N, h, d] = x W + b.

    q · (x W + b) is x (W q) + b · q: the queries go into W if that makes fewer multiplications.
    """
    if op.dimension_numbers != (((3,), (3,)), ((0, 2), (0, 2))) or keys.kind != "reshape":
        return None
    linear, (_, tokens, heads, width) = keys.x, keys.shape
    if linear.kind != "linear" or linear.shape[-1] != heads * width or keys.uses * linear.uses != 1:
        return None
    features, count = linear.weight.shape[0], queries.shape[1]
    if count * features >= width * (features + count):
        return None
    products = np.einsum("qhd,ihd->ihq", queries[0], linear.weight.reshape(-1, heads, width))
    shifts = np.einsum("qhd,hd->hq", queries[0], linear.bias.reshape(heads, width))
    weights = {"weight": products.reshape(features, -1), "bias": shifts.reshape(-1)}
    shape = (*linear.shape[:-1], heads * count)
    inner = Op("linear", linear.inputs, shape, weights, 1)
    inner = Op("reshape", [inner], (BATCH, tokens, heads, count), {}, 1)
    return becomes(op, "transpose", [inner], permutation=(0, 2, 3, 1))


def _linear(op: Op, left: Op, weight: np.ndarray) -> Op:
    bias = np.zeros(weight.shape[1], np.float32)
    if left.kind == "affine":
        wide, high = by_feature(left.scale), by_feature(left.shift)
        if wide is not None and high is not None:
            bias = np.broadcast_to(high, weight.shape[:1]) @ weight
            weight = weight * np.broadcast_to(wide, weight.shape[:1])[:, None]
            left = left.x
    return becomes(op, "linear", [left], weight=weight, bias=bias)


def _is_flat_map(x: Op) -> bool:
    """Return whether x is [B, h, w, C] as [B, N, C]: cells are better worked on as the map.

    There it is a convolution, which needs no other order of axes and has its activation inside.
    """
    if x.kind != "reshape" or len(x.x.shape) != 4 or x.x.shape[0] != BATCH:
        return False
    _, height, width, channels = x.x.shape
    return x.shape[1:] == (height * width, channels)


def _on_map(op: Op, flat: Op) -> Op:
    """Return `op` as it is on the map before that was made flat."""
    flat.x.uses = max(flat.x.uses, flat.uses)
    return replace(op, shape=(*flat.x.shape[:-1], op.shape[-1]))
