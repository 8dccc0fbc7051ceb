"""How an array lies in memory, where the compiler's choice is a bad one."""

from jax.experimental.layout import Layout, with_layout_constraint
from jaxtyping import Array


def as_it_is(x: Array) -> Array:
    """Return `x`, for the compiler to lay out."""
    return x


def row_major(x: Array) -> Array:
    """Return `x` laid out by its axes, the last one fastest; and so its gradient.

    XLA on GPUs lets the sum over a batch, which is the gradient of position embeddings, decide for
    every map that is added to them: the batch last, and transposed around each matrix product.
    """
    return with_layout_constraint(x, Layout(major_to_minor=tuple(range(x.ndim))))
