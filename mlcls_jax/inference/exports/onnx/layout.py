"""Return the order of axes in which values are written.

ONNX convolves NCHW where JAX convolves NHWC, so every value is written in the order of axes that
its operation likes, that order is remembered, and axes are only moved for readers that must have
another one.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

from mlcls_jax.inference.exports.onnx.ops import BATCH, Numbers, Op, Shape

Order = tuple[int, ...]  # stored axis -> axis in JAX
NCHW: Order = (0, 3, 1, 2)


class Nodes:
    """The nodes and weights written so far."""

    def __init__(self, images: str) -> None:
        self.images = images
        self.nodes: list[NodeProto] = []
        self.weights: list[TensorProto] = []
        self.stored: dict[Op, dict[Order, str]] = {}  # the first order is that of its operation
        self.readers: dict[Op, list[Op]] = {}
        self.shared: dict[tuple[Any, ...], str] = {}  # names of weights by content

    def node(self, kind: str, inputs: Sequence[str], **attributes: Any) -> str:
        """Append a node and return the name of its output."""
        name = f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def weight(self, array: Any, dtype: type = np.float32) -> str:
        """Return the name of a constant; small ones are written once."""
        array = np.asarray(array, dtype)
        key = (array.tobytes() if array.size < 64 else len(self.weights), array.shape, dtype)
        if key not in self.shared:
            self.shared[key] = f"weight_{len(self.weights)}"
            self.weights.append(numpy_helper.from_array(array, self.shared[key]))
        return self.shared[key]

    def order(self, op: Op) -> Order:
        """Return the order of axes in which `op` was written."""
        return next(iter(self.stored[op]))

    def read(self, value: Op | Numbers, order: Order) -> str:
        """Return the name of `value` with its axes in `order`."""
        if not isinstance(value, Op):
            value = np.asarray(value)
            return self.weight(value.transpose(order) if value.ndim == len(order) else value)
        names = self.stored[value]
        if order not in names:
            first = self.order(value)
            shape = [value.shape[axis] for axis in order]
            if moves_nothing(first, order, value.shape):
                names[order] = self.reshape(names[first], shape)
            else:
                moves = [first.index(axis) for axis in order]
                names[order] = self.node("Transpose", [names[first]], perm=moves)
        return names[order]

    def reshape(self, name: str, shape: Sequence[int]) -> str:
        """Give `name` another shape, in which one size may be BATCH."""
        return self.node("Reshape", [name, self.weight(shape, np.int64)])

    def repeated(self, array: np.ndarray, order: Order, shape: Shape) -> str:
        """Repeat a constant with a batch of one for each image."""
        name = self.weight(array.transpose(order))
        if BATCH not in shape:
            return name
        batch = self.node("Shape", [self.images], start=0, end=1)
        axis = [shape[a] for a in order].index(BATCH)
        ones = self.weight(np.ones(len(shape)), np.int64)
        sizes = self.node("ScatterElements", [ones, self.weight([axis], np.int64), batch])
        return self.node("Expand", [name, sizes])


def plain(op: Op) -> Order:
    """Return the order of axes in JAX."""
    return tuple(range(len(op.shape)))


def moves_nothing(old: Order, new: Order, shape: Shape) -> bool:
    """Return whether only axes of size one change places, so that the numbers lie as before."""
    return [a for a in old if shape[a] != 1] == [a for a in new if shape[a] != 1]


def groups(old: Shape, new: Shape) -> list[tuple[list[int], list[int]]]:
    """Pair axes of `old` with those of `new` they become: few at a time, without ones."""
    axes = [[i for i, size in enumerate(shape) if size != 1] for shape in (old, new)]
    groups = []
    while axes[0]:
        ours, theirs = ([side.pop(0)] for side in axes)
        while (count := _size(old, ours)) != (wanted := _size(new, theirs)):
            (ours if count < wanted else theirs).append(axes[count > wanted].pop(0))
        groups.append((ours, theirs))
    return groups


def _size(shape: Shape, axes: list[int]) -> int:
    return math.prod(shape[axis] for axis in axes)
