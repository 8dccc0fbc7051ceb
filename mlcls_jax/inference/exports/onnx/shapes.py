"""Rules for operations that change shapes: reshapes, reductions, slices and windows."""

from dataclasses import replace

import numpy as np

from mlcls_jax.errors import ExportError
from mlcls_jax.inference.exports.onnx import ops
from mlcls_jax.inference.exports.onnx.ops import Op, Plain, becomes, skip


def reshape(op: Op) -> Op:
    """Join it with a reshape before it."""
    x = op.x.x if op.x.is_plain("reshape") else op.x
    is_same = x.shape == op.shape
    return skip(replace(op, inputs=[x])) if is_same else becomes(op, Plain("reshape"), x)


def broadcast(op: Op) -> Op:
    """Make it a reshape, and an expansion where numbers are repeated."""
    ones = [1] * len(op.shape)
    for axis, size in zip(op.params["broadcast_dimensions"], op.x.shape, strict=True):
        ones[axis] = size
    inner = reshape(Op(op.does, op.inputs, tuple(ones), op.uses))
    return inner if inner.shape == op.shape else becomes(op, Plain("expand"), inner)


def reduce(op: Op) -> Op:
    """Keep reduced axes as ones; those that JAX drops are dropped by a reshape."""
    axes = tuple(op.params["axes"])
    is_one = all(op.x.shape[axis] == 1 for axis in axes)
    if is_one and len(axes) > 1:  # of a map that is one cell
        return reshape(op)
    kept = tuple(1 if axis in axes else size for axis, size in enumerate(op.x.shape))
    return becomes(op, Plain("reshape"), Op(ops.Reduce(op.name, axes), op.inputs, kept, 1))


def cut(op: Op) -> Op:
    """Make a slice of a linear layer's parts a layer with those columns."""
    if any(step != 1 for step in op.params.get("strides") or ()):
        raise ExportError("ONNX: no rule for a slice with strides")
    starts = tuple(map(int, op.params["start_indices"]))
    x = op.x
    is_split = op.params.get("is_split") and op.shape[:-1] == x.shape[:-1]
    if isinstance(x.does, ops.Linear) and is_split:  # each part by its own columns
        columns = slice(starts[-1], starts[-1] + op.shape[-1])
        return becomes(op, ops.Linear(x.does.weight[:, columns], x.does.bias[columns]), *x.inputs)
    return becomes(op, ops.Slice(starts), x)


def gather(op: Op) -> Op:
    """Make it a slice, which x[:, :1] of a symbolic batch is, or rows of one axis, x[:, [3, 1]]."""
    x, indices = op.inputs
    names = op.params["dimension_numbers"]
    if isinstance(indices, Op) or names.operand_batching_dims:
        raise ExportError("ONNX: no rule for gather by what is computed")
    if len(names.start_index_map) == 1 and indices.ndim == 2:
        (axis,) = names.start_index_map
        sizes = tuple(1 if a == axis else size for a, size in enumerate(x.shape))
        kept = tuple(a for a in range(len(x.shape)) if a != axis)
        is_whole = op.params["slice_sizes"][1:] == sizes[1:] and axis > 0
        if is_whole and names.collapsed_slice_dims == (axis,) and names.offset_dims == kept:
            return becomes(op, ops.Take(axis, np.clip(indices[:, 0], 0, x.shape[axis] - 1)), x)
    if names.collapsed_slice_dims or indices.shape != (len(names.start_index_map),):
        raise ExportError("ONNX: no rule for gather other than of a slice, or of rows of one axis")
    starts = [0] * len(x.shape)
    for axis, start in zip(names.start_index_map, indices, strict=True):
        starts[axis] = min(int(start), x.shape[axis] - op.shape[axis])
    return becomes(op, ops.Slice(tuple(starts)), x)


def pad(op: Op) -> Op:
    """Allow a constant at the edges."""
    (x, value), sides = op.inputs, op.params["padding_config"]
    if isinstance(value, Op) or any(min(low, high) < 0 or i for low, high, i in sides):
        raise ExportError("ONNX: no rule for pad other than by a constant at the edges")
    pads = tuple((int(low), int(high)) for low, high, _ in sides)
    return becomes(op, ops.Pad(pads, float(value)), x)


def max_pool(op: Op) -> Op:
    """Allow a window over H, W of NHWC."""
    params = op.params
    sizes, strides = params["window_dimensions"], params["window_strides"]
    is_plain = set(params["base_dilation"]) == set(params["window_dilation"]) == {1}
    if len(sizes) != 4 or not is_plain or {sizes[0], sizes[3], strides[0], strides[3]} != {1}:
        raise ExportError("ONNX: no rule for a window maximum other than over H, W of NHWC")
    return becomes(op, ops.MaxPool(sizes[1:3], strides[1:3], params["padding"][1:3]), op.x)


def transpose(op: Op) -> Op:
    """Take over the order of axes."""
    return becomes(op, ops.Transpose(op.params["permutation"]), op.x)


def concatenate(op: Op) -> Op:
    """Take over the axis."""
    return becomes(op, ops.Concatenate(op.params["dimension"]), *op.inputs)
