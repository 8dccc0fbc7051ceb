"""Operations on the images, as a graph: each has its inputs, one result, and parameters."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

BATCH = "batch"  # the one size that is not known

Shape = tuple[int | str, ...]


@dataclass(eq=False)
class Op:
    """One operation with one result; `kind` is a primitive of JAX or one that a rule made."""

    kind: str
    inputs: list["Op | np.ndarray"]
    shape: Shape
    params: dict[str, Any] = field(default_factory=dict)
    # How many operations read it: one that others read, too, is not changed for the sake of one.
    uses: int = 0

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["params"][name]
        except KeyError:
            raise AttributeError(name) from None

    @property
    def x(self) -> "Op":
        """The first input."""
        return self.inputs[0]


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


def becomes(op: Op, kind: str, inputs: list[Any], **params: Any) -> Op:
    """Return an operation that takes the place of `op`."""
    return Op(kind, inputs, op.shape, params, op.uses)


def keep(op: Op) -> Op:
    """Return the operation as it is."""
    return op


def skip(op: Op) -> Op:
    """Return the input itself, which the readers of `op` now read."""
    op.x.uses += op.uses - 1
    return op.x
