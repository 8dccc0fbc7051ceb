"""Windows that slide over feature maps, tap by tap, as k * k shifted arrays.

A tap (i, j) is a place in the window; padding is k - 1 in all, as in `conv2d`.
"""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

Taps: TypeAlias = list[tuple[int, int]]


def padding(size: int) -> tuple[int, int]:
    """Rows above and below (columns left and right) that a window of this size needs."""
    return (size - 1) // 2, size // 2


def pad(x: Float[Array, "B H W C"], size: int, value: float = 0.0) -> Float[Array, "B P R C"]:
    """`x` with size - 1 more rows and columns of `value`, the larger half below and right."""
    around = padding(size)
    return jnp.pad(x, ((0, 0), around, around, (0, 0)), constant_values=value)


def window(
    x: Shaped[Array, "B H W C"],
    top: int,
    left: int,
    height: int,
    width: int,
    strides: tuple[int, int],
) -> Shaped[Array, "B h w C"]:
    """`height` x `width` pixels of `x` from (top, left), `strides` apart."""
    bottom = top + (height - 1) * strides[0] + 1
    right = left + (width - 1) * strides[1] + 1
    return x[:, top : bottom : strides[0], left : right : strides[1]]


def output_shape(height: int, width: int, stride: int) -> tuple[int, int]:
    """Height and width of what windows `stride` apart give."""
    return (height - 1) // stride + 1, (width - 1) // stride + 1


def squares_to_channels(x: Shaped[Array, "B H W C"], size: int) -> Shaped[Array, "B h w D"]:
    """Return squares of cells as channels, row by row; rows and columns that fill none go."""
    batch, rows, columns = x.shape[0], x.shape[1] // size, x.shape[2] // size
    x = x[:, : rows * size, : columns * size]
    x = x.reshape(batch, rows, size, columns, size, -1).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(batch, rows, columns, -1)


def gather_back(
    shape: tuple[int, ...],
    size: int,
    stride: int,
    maps: Sequence[Shaped[Array, "B h w C"]],
    share: Callable[..., Float[Array, "B h w C"]],
) -> Float[Array, "B H W C"]:
    """The transpose of sliding: for each pixel of the input, the sum over the windows it is in.

    Every stride-th row and column is summed apart, since each meets other taps: none is scattered.

    Args:
      shape: of the input, [B, H, W, C].
      size: k, of the window.
      stride: of the window.
      maps: what is known of each window.
      share: (i, j, *maps) → what windows give to the pixels at their tap (i, j), `maps` being
        shifted so that each number is that of the window which has the pixel there; 0 where
        there is none.
    """
    height, width = output_shape(shape[1], shape[2], stride)
    around = ((0, 0), (size, size), (size, size), (0, 0))
    padded = [jnp.pad(values, around) for values in maps]

    def given(i: int, j: int, down: int, right: int) -> Array:
        place = (size + down, size + right, height, width, (1, 1))
        return share(i, j, *(window(values, *place) for values in padded))

    def one_of(rows: Taps, columns: Taps) -> Array:
        total = sum(given(i, j, down, right) for i, down in rows for j, right in columns)
        # A window smaller than the stride skips some pixels.
        return jnp.broadcast_to(total, (shape[0], height, width, shape[3]))

    return by_phases(shape, size, stride, one_of)


def by_phases(
    shape: tuple[int, ...],
    size: int,
    stride: int,
    one_of: Callable[[Taps, Taps], Float[Array, "B h w C"]],
) -> Float[Array, "B H W C"]:
    """Return a map made of one of every stride-th row and column, for each place to begin at.

    `one_of` gets the taps that meet its rows, and those that meet its columns: (tap, number of the
    window that has such a pixel there less that of the pixel), taps ascending.
    """
    height, width = output_shape(shape[1], shape[2], stride)
    phases = [_taps(first, size, stride) for first in range(stride)]
    if stride == 1:
        return one_of(phases[0], phases[0])
    rows = [jnp.stack([one_of(down, right) for right in phases], 3) for down in phases]
    whole = jnp.stack(rows, 2)  # [B, h, stride, w, stride, C]
    whole = whole.reshape(shape[0], height * stride, width * stride, shape[3])
    return whole[:, : shape[1], : shape[2]]


def _taps(first: int, size: int, stride: int) -> Taps:
    # Tap i joins window p + shift to input row p * stride + first.
    last = first + (size - 1) // 2
    return [(i, (last - i) // stride) for i in range(last % stride, size, stride)]
