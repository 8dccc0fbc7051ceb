"""Rules for operations that change shapes: reshapes, reductions, slices and windows."""

from dataclasses import replace

from mlcls_jax.errors import ExportError
from mlcls_jax.inference.exports.onnx.ops import Op, becomes, skip


def reshape(op: Op) -> Op:
    """Join it with a reshape before it."""
    x = op.x.x if op.x.kind == "reshape" else op.x
    return skip(replace(op, inputs=[x])) if x.shape == op.shape else becomes(op, "reshape", [x])


def broadcast(op: Op) -> Op:
    """Make it a reshape, and an expansion where numbers are repeated."""
    ones = [1] * len(op.shape)
    for axis, size in zip(op.broadcast_dimensions, op.x.shape, strict=True):
        ones[axis] = size
    inner = reshape(Op("reshape", op.inputs, tuple(ones), {}, op.uses))
    return inner if inner.shape == op.shape else becomes(op, "expand", [inner])


def reduce(op: Op) -> Op:
    """Keep reduced axes as ones; those that JAX drops are dropped by a reshape."""
    is_one = all(op.x.shape[axis] == 1 for axis in op.axes)
    if is_one and len(op.axes) > 1:  # of a map that is one cell
        return reshape(op)
    kept = tuple(1 if axis in op.axes else size for axis, size in enumerate(op.x.shape))
    return becomes(op, "reshape", [Op(op.kind, op.inputs, kept, {"axes": tuple(op.axes)}, 1)])


def cut(op: Op) -> Op:
    """Make a slice of a linear layer's parts a layer with those columns."""
    if any(step != 1 for step in op.params.get("strides") or ()):
        raise ExportError("ONNX: no rule for a slice with strides")
    starts = tuple(map(int, op.start_indices))
    x = op.x
    is_split = op.params.get("is_split") and op.shape[:-1] == x.shape[:-1]
    if x.kind == "linear" and is_split:  # each part by its own columns
        columns = slice(starts[-1], starts[-1] + op.shape[-1])
        weight, bias = x.weight[:, columns], x.bias[columns]
        return becomes(op, "linear", x.inputs, weight=weight, bias=bias)
    return becomes(op, "slice", [x], starts=starts)


def gather(op: Op) -> Op:
    """Make it a slice, which x[:, :1] of a symbolic batch is: constant indices, whole windows."""
    x, indices = op.inputs
    names = op.dimension_numbers
    is_slice = not (names.collapsed_slice_dims or names.operand_batching_dims)
    if not is_slice or isinstance(indices, Op) or indices.shape != (len(names.start_index_map),):
        raise ExportError("ONNX: no rule for gather other than a slice")
    starts = [0] * len(x.shape)
    for axis, start in zip(names.start_index_map, indices, strict=True):
        starts[axis] = min(int(start), x.shape[axis] - op.shape[axis])
    return becomes(op, "slice", [x], starts=tuple(starts))


def pad(op: Op) -> Op:
    """Allow a constant at the edges."""
    x, value = op.inputs
    if isinstance(value, Op) or any(min(low, high) < 0 or i for low, high, i in op.padding_config):
        raise ExportError("ONNX: no rule for pad other than by a constant at the edges")
    pads = tuple((int(low), int(high)) for low, high, _ in op.padding_config)
    return becomes(op, "pad", [x], pads=pads, value=float(value))


def max_pool(op: Op) -> Op:
    """Allow a window over H, W of NHWC."""
    sizes, strides, pads = op.window_dimensions, op.window_strides, op.padding
    is_plain = set(op.base_dilation) == set(op.window_dilation) == {1}
    if len(sizes) != 4 or not is_plain or {sizes[0], sizes[3], strides[0], strides[3]} != {1}:
        raise ExportError("ONNX: no rule for a window maximum other than over H, W of NHWC")
    return becomes(
        op, "max_pool", op.inputs, sizes=sizes[1:3], strides=strides[1:3], pads=pads[1:3]
    )
