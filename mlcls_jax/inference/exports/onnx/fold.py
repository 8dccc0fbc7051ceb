"""Scales, shifts and bounds go into the operations beside them, above all into their weights."""

from dataclasses import replace
from typing import Any

import numpy as np

from mlcls_jax.errors import ExportError
from mlcls_jax.inference.exports.onnx import ops
from mlcls_jax.inference.exports.onnx.constants import by_feature, is_number, row, smallest
from mlcls_jax.inference.exports.onnx.ops import BATCH, Op, Plain, becomes, skip
from mlcls_jax.inference.exports.onnx.patterns import hard_swish, mean

WEIGHTED = (ops.Conv, ops.Linear, ops.LayerNorm)  # weights end with the axis of the features
NHWC_CONV = ((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))


def affine(op: Op, x: Op, scale: Any, shift: Any) -> Op:
    """Compute scale * x + shift, inside what gives x where that is possible."""
    scale, shift = smallest(scale), smallest(shift)
    if is_number(scale, 1) and is_number(shift, 0):
        return skip(replace(op, inputs=[x]))
    if isinstance(x.does, ops.Affine):
        return affine(op, x.x, x.does.scale * scale, x.does.shift * scale + shift)
    wide, high = by_feature(scale), by_feature(shift)
    if wide is not None and high is not None:
        if _is_flat_map(x):
            inner = affine(_on_map(op, x), x.x, row(wide, 4), row(high, 4))
            return becomes(op, Plain("reshape"), inner)
        if isinstance(x.does, WEIGHTED) and x.uses == 1:
            weight, bias = np.float32(x.does.weight * wide), x.does.bias * wide + high
            return becomes(op, x.does._replace(weight=weight, bias=bias), *x.inputs)
    if scale.ndim == shift.ndim == 0:
        is_inside = isinstance(x.does, ops.Clip) and isinstance(x.x.does, WEIGHTED)
        if is_inside and x.uses == x.x.uses == 1 and scale > 0:
            low, high = (bound * scale + shift for bound in x.does)
            return clip(op, affine(x, x.x, scale, shift), low, high)
        if is_number(shift, 0) and (found := mean(op, x, scale) or hard_swish(op, x, scale)):
            return found
    return becomes(op, ops.Affine(scale, shift), x)


def clip(op: Op, x: Op, low: float, high: float) -> Op:
    """Bound x, together with bounds that it has."""
    low, high = float(low), float(high)
    if _is_flat_map(x):
        return becomes(op, Plain("reshape"), clip(_on_map(op, x), x.x, low, high))
    if isinstance(x.does, ops.Clip):
        inner = max(x.does.low, low), min(x.does.high, high)
        if inner[0] <= inner[1]:
            return clip(op, x.x, *inner)
    if (low, high) == (-np.inf, np.inf):
        return skip(replace(op, inputs=[x]))
    if isinstance(x.does, ops.Affine) and (low, high) == (0, 1):
        scale, shift = x.does
        if scale.ndim == shift.ndim == 0:
            return becomes(op, ops.HardSigmoid(float(scale), float(shift)), x.x)
    return becomes(op, ops.Clip(low, high), x)


def conv(op: Op) -> Op:
    """Make a convolution of NHWC, with what its input is scaled and shifted by in its weights."""
    (x, kernel), params = op.inputs, op.params
    groups = params["feature_group_count"]
    is_nhwc = tuple(params["dimension_numbers"]) == NHWC_CONV and set(params["lhs_dilation"]) == {1}
    if isinstance(kernel, Op) or not is_nhwc or params["batch_group_count"] != 1:
        raise ExportError("ONNX: convolutions must be NHWC, with constant kernels")
    if isinstance(x.does, ops.Affine) and x.uses == 1 and groups == 1:
        # scale * (x + shift / scale): zeros around it stay zeros.
        wide, high = map(by_feature, x.does)
        if wide is not None and high is not None and np.all(wide):
            wide, high = (np.broadcast_to(v, x.shape[-1:]) for v in (wide, high / wide))
            kernel = kernel * wide[:, None]
            x = becomes(x, ops.Affine(np.float64(1), row(high, 4)), x.x)
    bias = np.zeros(kernel.shape[-1], np.float32)
    strides, pads, dilations = (params[n] for n in ("window_strides", "padding", "rhs_dilation"))
    return becomes(op, ops.Conv(kernel, bias, strides, pads, dilations, groups), x)


def dot(op: Op) -> Op:
    """Make a product with constant weights a linear layer, on the map where there is one."""
    left, right = op.inputs
    product = ops.Dot(*op.params["dimension_numbers"])
    if not isinstance(left, Op):
        return _scores(op, product, left, right) or becomes(op, product, left, right)
    is_last = product.contracted[0] == (len(left.shape) - 1,) and not product.batched[0]
    if isinstance(right, Op) or right.ndim != 2 or not is_last:
        return becomes(op, product, left, right)
    weight = right if product.contracted[1] == (0,) else right.T
    if _is_flat_map(left):
        return becomes(op, Plain("reshape"), _linear(_on_map(op, left), left.x, weight))
    return _linear(op, left, weight)


def _scores(op: Op, product: ops.Dot, queries: np.ndarray, keys: Op) -> Op | None:
    """Recognise scores [B, h, Q, N] of fixed queries [1, Q, h, d] with keys [B, N, h, d] = x W + b.

    q · (x W + b) is x (W q) + b · q: the queries go into W if that makes fewer multiplications.
    """
    if product != (((3,), (3,)), ((0, 2), (0, 2))) or not keys.is_plain("reshape"):
        return None
    linear, (_, tokens, heads, width) = keys.x, keys.shape
    if not isinstance(linear.does, ops.Linear) or keys.uses * linear.uses != 1:
        return None
    (weight, bias), count = linear.does, queries.shape[1]
    features = len(weight)
    if linear.shape[-1] != heads * width:
        return None
    if count * features >= width * (features + count):
        return None
    products = np.einsum("qhd,ihd->ihq", queries[0], weight.reshape(-1, heads, width))
    shifts = np.einsum("qhd,hd->hq", queries[0], bias.reshape(heads, width))
    folded = ops.Linear(products.reshape(features, -1), shifts.reshape(-1))
    inner = Op(folded, linear.inputs, (*linear.shape[:-1], heads * count), 1)
    inner = Op(Plain("reshape"), [inner], (BATCH, tokens, heads, count), 1)
    return becomes(op, ops.Transpose((0, 2, 3, 1)), inner)


def _linear(op: Op, left: Op, weight: np.ndarray) -> Op:
    bias = np.zeros(weight.shape[1], np.float32)
    if isinstance(left.does, ops.Affine):
        wide, high = map(by_feature, left.does)
        if wide is not None and high is not None:
            bias = np.broadcast_to(high, weight.shape[:1]) @ weight
            weight = weight * np.broadcast_to(wide, weight.shape[:1])[:, None]
            left = left.x
    return becomes(op, ops.Linear(weight, bias), left)


def _is_flat_map(x: Op) -> bool:
    """Return whether x is [B, h, w, C] as [B, N, C]: cells are better worked on as the map.

    There it is a convolution, which needs no other order of axes and has its activation inside.
    """
    if not x.is_plain("reshape") or len(x.x.shape) != 4 or x.x.shape[0] != BATCH:
        return False
    _, height, width, channels = x.x.shape
    return x.shape[1:] == (height * width, channels)


def _on_map(op: Op, flat: Op) -> Op:
    """Return `op` as it is on the map before that was made flat."""
    flat.x.uses = max(flat.x.uses, flat.uses)
    return replace(op, shape=(*flat.x.shape[:-1], op.shape[-1]))
