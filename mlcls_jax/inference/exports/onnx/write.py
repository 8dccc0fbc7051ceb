"""Nodes and weights of ONNX for each operation of a graph."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto

from mlcls_jax.inference.exports.onnx import ops
from mlcls_jax.inference.exports.onnx.layout import NCHW, Nodes, Order, groups, moves_nothing, plain
from mlcls_jax.inference.exports.onnx.ops import BATCH, Op, Plain, in_order

SAME_NAME = {
    **{"add": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "max": "Max", "min": "Min"},
    **{"abs": "Abs", "erf": "Erf", "exp": "Exp", "log": "Log", "sqrt": "Sqrt", "tanh": "Tanh"},
    **{"logistic": "Sigmoid", "hard_swish": "HardSwish"},
}
REDUCTIONS = {
    **{"reduce_sum": "ReduceSum", "reduce_mean": "ReduceMean"},
    **{"reduce_max": "ReduceMax", "reduce_min": "ReduceMin"},
}
Written = tuple[str, Order]


def write(result: Op, images: str, scores: str) -> tuple[list[NodeProto], list[TensorProto]]:
    """Return nodes and weights that compute `result`, called `scores`, from uint8 `images` NHWC."""
    to = Nodes(images)
    sequence = in_order(result)
    for op in sequence:
        for operand in op.inputs:
            if isinstance(operand, Op):
                to.readers.setdefault(operand, []).append(op)
    for op in sequence:
        if isinstance(op.does, Plain):
            name, order = PLAIN[op.name](op, to)
        else:
            name, order = WRITERS[type(op.does)](op.does, op, to)
        to.stored[op] = {order: name}
    last = to.read(result, plain(result))
    for node in to.nodes:
        for names in (node.input, node.output):
            names[:] = [scores if name == last else name for name in names]
    return to.nodes, to.weights


def _images(op: Op, to: Nodes) -> Written:
    """Bytes are moved before they become numbers of four bytes, if a convolution reads them."""
    reader = op
    while len(to.readers.get(reader, [])) == 1 and (
        reader.is_plain("images", "cast") or isinstance(reader.does, ops.Affine)
    ):
        (reader,) = to.readers[reader]
    if isinstance(reader.does, ops.Conv | ops.MaxPool):
        return to.node("Transpose", [to.images], perm=NCHW), NCHW
    return to.images, plain(op)


def _cast(op: Op, to: Nodes) -> Written:
    order = to.order(op.x)
    return to.node("Cast", [to.read(op.x, order)], to=TensorProto.FLOAT), order


def _elementwise(op: Op, to: Nodes) -> Written:
    """Operands must have one order: that of the largest that is no constant."""
    operands = [i for i in op.inputs if isinstance(i, Op)]
    order = to.order(next((i for i in operands if i.shape == op.shape), operands[0]))
    return to.node(SAME_NAME[op.name], [to.read(i, order) for i in op.inputs]), order


def _rsqrt(op: Op, to: Nodes) -> Written:
    order = to.order(op.x)
    return to.node("Reciprocal", [to.node("Sqrt", [to.read(op.x, order)])]), order


def _power(does: ops.Power, op: Op, to: Nodes) -> Written:
    order = to.order(op.x)
    return to.node("Pow", [to.read(op.x, order), to.weight(does.exponent)]), order


def _affine(does: ops.Affine, op: Op, to: Nodes) -> Written:
    order = to.order(op.x)
    name = to.read(op.x, order)
    if np.any(does.scale != 1):
        name = to.node("Mul", [name, to.read(does.scale, order)])
    if np.any(does.shift != 0):
        name = to.node("Add", [name, to.read(does.shift, order)])
    return name, order


def _clip(does: ops.Clip, op: Op, to: Nodes) -> Written:
    order = to.order(op.x)
    name = to.read(op.x, order)
    if does == (0, math.inf):
        return to.node("Relu", [name]), order
    bounds = ["" if math.isinf(bound) else to.weight(bound) for bound in does]
    return to.node("Clip", [name, *bounds][: 3 if bounds[1] else 2]), order


def _hard_sigmoid(does: ops.HardSigmoid, op: Op, to: Nodes) -> Written:
    order = to.order(op.x)
    name = to.read(op.x, order)
    return to.node("HardSigmoid", [name], alpha=does.alpha, beta=does.beta), order


def _gelu(op: Op, to: Nodes) -> Written:
    """The five nodes that runtimes know as the exact GELU."""
    order = to.order(op.x)
    x = to.read(op.x, order)
    erf = to.node("Erf", [to.node("Div", [x, to.weight(math.sqrt(2))])])
    product = to.node("Mul", [x, to.node("Add", [erf, to.weight(1)])])
    return to.node("Mul", [product, to.weight(0.5)]), order


def _softmax(op: Op, to: Nodes) -> Written:
    return to.node("Softmax", [to.read(op.x, plain(op))], axis=-1), plain(op)


def _layer_norm(does: ops.LayerNorm, op: Op, to: Nodes) -> Written:
    inputs = [to.read(op.x, plain(op)), to.weight(does.weight), to.weight(does.bias)]
    return to.node("LayerNormalization", inputs, axis=-1, epsilon=does.epsilon), plain(op)


def _reduce(does: ops.Reduce, op: Op, to: Nodes) -> Written:
    order = to.order(op.x)
    name, axes = to.read(op.x, order), [order.index(axis) for axis in does.axes]
    if does.name == "reduce_mean" and order == NCHW and sorted(axes) == [2, 3]:
        return to.node("GlobalAveragePool", [name]), order
    if does.name == "reduce_sum":  # the only one whose axes are an input
        return to.node("ReduceSum", [name, to.weight(axes, np.int64)], keepdims=1), order
    return to.node(REDUCTIONS[does.name], [name], axes=axes, keepdims=1), order


def _conv(does: ops.Conv, op: Op, to: Nodes) -> Written:
    (top, bottom), (left, right) = does.pads
    inputs = [to.read(op.x, NCHW), to.weight(does.weight.transpose(3, 2, 0, 1))]
    if np.any(does.bias):
        inputs.append(to.weight(does.bias))
    name = to.node(
        "Conv",
        inputs,
        kernel_shape=does.weight.shape[:2],
        strides=does.strides,
        pads=(top, left, bottom, right),
        dilations=does.dilations,
        group=does.groups,
    )
    return name, NCHW


def _linear(does: ops.Linear, op: Op, to: Nodes) -> Written:
    """On a map a 1 x 1 convolution, else a matrix product."""
    if len(op.shape) == 4:
        return _conv(ops.Conv(does.weight[None, None], does.bias), op, to)
    x, weight = to.read(op.x, plain(op)), to.weight(does.weight)
    if len(op.shape) == 2:
        return to.node("Gemm", [x, weight, to.weight(does.bias)]), plain(op)
    name = to.node("MatMul", [x, weight])
    return to.node("Add", [name, to.weight(does.bias)]) if np.any(does.bias) else name, plain(op)


def _max_pool(does: ops.MaxPool, op: Op, to: Nodes) -> Written:
    (top, bottom), (left, right) = does.pads
    name = to.node(
        "MaxPool",
        [to.read(op.x, NCHW)],
        kernel_shape=does.sizes,
        strides=does.strides,
        pads=(top, left, bottom, right),
    )
    return name, NCHW


def _dot(does: ops.Dot, op: Op, to: Nodes) -> Written:
    """Products of matrices, one for each index of the axes that both have in common."""
    operands, (contracted, batched) = op.inputs, does
    sides = []
    for value, inner, outer in zip(operands, contracted, batched, strict=True):
        free = tuple(a for a in range(len(value.shape)) if a not in (*inner, *outer))
        sides.append((value, tuple(outer), tuple(inner), free))
    if any(len(inner) != 1 or len(free) != 1 for _, _, inner, free in sides):
        return _einsum(op, sides, to)
    axes = plain(op)
    ways = []
    for (a, b), order in ((sides, axes), (sides[::-1], (*axes[:-2], axes[-1], axes[-2]))):
        orders = ((*a[1], *a[3], *a[2]), (*b[1], *b[2], *b[3]))
        moved = sum(
            isinstance(v, Op) and not moves_nothing(to.order(v), o, v.shape)
            for (v, *_), o in zip((a, b), orders, strict=True)
        )
        ways.append((moved, [(a[0], orders[0]), (b[0], orders[1])], order))
    _, factors, order = min(ways, key=lambda way: way[0])
    return to.node("MatMul", [to.read(value, o) for value, o in factors]), order


def _einsum(op: Op, sides: list[tuple[Any, Order, Order, Order]], to: Nodes) -> Written:
    letters = iter("abcdefghijklmnopqrstuvwxyz")
    (left, *left_axes), (right, *right_axes) = sides
    names: tuple[dict[int, str], dict[int, str]] = ({}, {})
    result = []
    for group in range(2):  # batch axes, then contracted ones
        for i, j in zip(left_axes[group], right_axes[group], strict=True):
            names[0][i] = names[1][j] = letter = next(letters)
            result += [letter] if group == 0 else []
    for side, axes in zip(names, (left_axes[2], right_axes[2]), strict=True):
        for axis in axes:
            side[axis] = next(letters)
            result.append(side[axis])
    inputs, terms = [], []
    for value, name in ((left, names[0]), (right, names[1])):
        order = to.order(value) if isinstance(value, Op) else tuple(range(value.ndim))
        inputs.append(to.read(value, order))
        terms.append("".join(name[axis] for axis in order))
    # The batch first, as whoever reads it next will want.
    order = tuple(sorted(plain(op), key=lambda axis: op.shape[axis] != BATCH))
    equation = f"{','.join(terms)}->{''.join(result[axis] for axis in order)}"
    return to.node("Einsum", inputs, equation=equation), order


def _reshape(op: Op, to: Nodes) -> Written:
    """Without moving anything where the axes that are merged or split lie side by side."""
    order = to.order(op.x)
    parts = groups(op.x.shape, op.shape)
    place = {axis: index for index, axis in enumerate(a for a in order if op.x.shape[a] != 1)}
    starts = [place[group[0]] for group, _ in parts]
    together = all(
        [place[axis] for axis in group] == list(range(start, start + len(group)))
        for (group, _), start in zip(parts, starts, strict=True)
    )
    if not together:
        return to.reshape(to.read(op.x, plain(op.x)), op.shape), plain(op)
    in_place = [axis for start in sorted(starts) for axis in parts[starts.index(start)][1]]
    ones = [axis for axis, size in enumerate(op.shape) if axis not in in_place]
    new = plain(op) if in_place == sorted(in_place) else (*in_place, *ones)
    return to.reshape(to.read(op.x, order), [op.shape[axis] for axis in new]), new


def _expand(op: Op, to: Nodes) -> Written:
    order = to.order(op.x)
    sizes = [1 if op.shape[axis] == BATCH else op.shape[axis] for axis in order]
    return to.node("Expand", [to.read(op.x, order), to.weight(sizes, np.int64)]), order


def _transpose(does: ops.Transpose, op: Op, to: Nodes) -> Written:
    """Nothing is moved; the order is called by the new names of the axes."""
    order = to.order(op.x)
    return to.read(op.x, order), tuple(does.permutation.index(axis) for axis in order)


def _concatenate(does: ops.Concatenate, op: Op, to: Nodes) -> Written:
    order = next(to.order(i) for i in op.inputs if isinstance(i, Op))
    names = []
    for value in op.inputs:
        if isinstance(value, Op):
            names.append(to.read(value, order))
        else:
            names.append(to.repeated(value, order, op.shape))
    return to.node("Concat", names, axis=order.index(does.axis)), order


def _slice(does: ops.Slice, op: Op, to: Nodes) -> Written:
    order = to.order(op.x)
    axes = [a for a in order if op.shape[a] != op.x.shape[a]]
    bounds = [
        [does.starts[a] for a in axes],
        [does.starts[a] + op.shape[a] for a in axes],
        [order.index(a) for a in axes],
    ]
    inputs = [to.read(op.x, order), *(to.weight(b, np.int64) for b in bounds)]
    return to.node("Slice", inputs) if axes else inputs[0], order


def _take(does: ops.Take, op: Op, to: Nodes) -> Written:
    order = to.order(op.x)
    inputs = [to.read(op.x, order), to.weight(does.indices, np.int64)]
    return to.node("Gather", inputs, axis=order.index(does.axis)), order


def _pad(does: ops.Pad, op: Op, to: Nodes) -> Written:
    order = to.order(op.x)
    pads = [does.pads[axis][side] for side in range(2) for axis in order]
    inputs = [to.read(op.x, order), to.weight(pads, np.int64), to.weight(does.value)]
    return to.node("Pad", inputs), order


# An operation without parameters → its writer.
PLAIN: dict[str, Callable[[Op, Nodes], Written]] = {
    **dict.fromkeys(SAME_NAME, _elementwise),
    "images": _images,
    "cast": _cast,
    "rsqrt": _rsqrt,
    "gelu": _gelu,
    "softmax": _softmax,
    "reshape": _reshape,
    "expand": _expand,
}
WRITERS: dict[type, Callable[[Any, Op, Nodes], Written]] = {
    ops.Power: _power,
    ops.Affine: _affine,
    ops.Clip: _clip,
    ops.HardSigmoid: _hard_sigmoid,
    ops.LayerNorm: _layer_norm,
    ops.Reduce: _reduce,
    ops.Conv: _conv,
    ops.Linear: _linear,
    ops.MaxPool: _max_pool,
    ops.Dot: _dot,
    ops.Transpose: _transpose,
    ops.Concatenate: _concatenate,
    ops.Slice: _slice,
    ops.Take: _take,
    ops.Pad: _pad,
}
