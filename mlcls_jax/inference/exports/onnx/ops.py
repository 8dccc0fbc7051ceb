"""Operations on the images, as a graph: what each does, its inputs, and the shape of its result."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

BATCH = -1  # the one size that is not known

Shape = tuple[int, ...]
Numbers = np.ndarray | np.float64
Pads = tuple[tuple[int, int], ...]  # before and behind, per axis


class Primitive(NamedTuple):
    """What JAX traced; a rule makes one of the following of it."""

    name: str
    params: dict[str, Any]


class Plain(NamedTuple):
    """An operation without parameters: one of JAX, or images, cast, expand, gelu, …."""

    name: str


class Affine(NamedTuple):
    """scale * x + shift; both are numbers, or arrays that broadcast to x."""

    scale: Numbers
    shift: Numbers


class Clip(NamedTuple):
    """x between two numbers, of which one may be infinite."""

    low: float
    high: float


class HardSigmoid(NamedTuple):
    """alpha * x + beta between 0 and 1."""

    alpha: float
    beta: float


class Conv(NamedTuple):
    """A convolution of [B, h, w, C]."""

    weight: np.ndarray  # [kh, kw, C / groups, D]
    bias: np.ndarray  # [D]
    strides: tuple[int, int] = (1, 1)
    pads: Pads = ((0, 0), (0, 0))
    dilations: tuple[int, int] = (1, 1)
    groups: int = 1


class Linear(NamedTuple):
    """A product of the last axis with a matrix."""

    weight: np.ndarray  # [C, D]
    bias: np.ndarray  # [D]


class LayerNorm(NamedTuple):
    """Layer normalisation over the last axis."""

    weight: np.ndarray  # [C]
    bias: np.ndarray  # [C]
    epsilon: float


class Reduce(NamedTuple):
    """A reduction that keeps its axes as ones."""

    name: str  # reduce_sum, reduce_mean, reduce_max, reduce_min
    axes: tuple[int, ...]


class MaxPool(NamedTuple):
    """The largest of each window of [B, h, w, C]."""

    sizes: tuple[int, int]
    strides: tuple[int, int]
    pads: Pads


class Slice(NamedTuple):
    """A part of the result's shape."""

    starts: tuple[int, ...]


class Take(NamedTuple):
    """Rows of one axis, by their indices."""

    axis: int
    indices: np.ndarray


class Pad(NamedTuple):
    """A constant around the edges."""

    pads: Pads
    value: float


class Transpose(NamedTuple):
    """The axes in another order."""

    permutation: tuple[int, ...]


class Concatenate(NamedTuple):
    """The inputs one after the other."""

    axis: int


class Dot(NamedTuple):
    """A product of two operands, as JAX's `dot_general`."""

    contracted: tuple[tuple[int, ...], tuple[int, ...]]
    batched: tuple[tuple[int, ...], tuple[int, ...]]


class Power(NamedTuple):
    """A whole power."""

    exponent: int


Does = (
    Primitive | Plain | Affine | Clip | HardSigmoid | Conv | Linear | LayerNorm | Reduce | MaxPool
    | Slice | Take | Pad | Transpose | Concatenate | Dot | Power
)  # fmt: skip


@dataclass(eq=False)
class Op:
    """One operation with one result."""

    does: Does
    inputs: list[Any]  # operations and constants
    shape: Shape
    # How many operations read it: one that others read, too, is not changed for the sake of one.
    uses: int = 0

    @property
    def x(self) -> "Op":
        """The first input."""
        return self.inputs[0]

    @property
    def name(self) -> str:
        """The name of a primitive, or of an operation without parameters."""
        assert isinstance(self.does, Primitive | Plain)
        return self.does.name

    @property
    def params(self) -> dict[str, Any]:
        """The parameters of a primitive of JAX."""
        assert isinstance(self.does, Primitive)
        return self.does.params

    def is_plain(self, *names: str) -> bool:
        """Return whether it is an operation without parameters of one of these names."""
        return isinstance(self.does, Plain) and self.does.name in names


def in_order(result: Op) -> list[Op]:
    """Return all operations that `result` needs, inputs first."""
    order: dict[Op, None] = {}
    stack = [(result, False)]
    while stack:
        op, is_ready = stack.pop()
        if is_ready:
            order[op] = None
        elif op not in order:
            stack.append((op, True))
            stack += [(i, False) for i in reversed(op.inputs) if isinstance(i, Op)]
    return list(order)


def count_uses(result: Op) -> None:
    """Set `uses` of all operations that `result` needs."""
    result.uses = 1
    for op in in_order(result):
        for operand in op.inputs:
            if isinstance(operand, Op):
                operand.uses += 1


def becomes(op: Op, does: Does, *inputs: Any) -> Op:
    """Return an operation that takes the place of `op`."""
    return Op(does, list(inputs), op.shape, op.uses)


def skip(op: Op) -> Op:
    """Return the input itself, which the readers of `op` now read."""
    op.x.uses += op.uses - 1
    return op.x
