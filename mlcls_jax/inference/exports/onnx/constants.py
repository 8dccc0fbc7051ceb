"""Constants of a graph: NumPy arrays, as small as they can be written."""

import math
from typing import Any

import numpy as np

from mlcls_jax.inference.exports.onnx.ops import Numbers


def smallest(constant: Any) -> Numbers:
    """Return one number if all are equal, else the array."""
    constant = np.asarray(constant, np.float64)
    is_one = constant.size and (constant == constant.flat[0]).all()
    return constant.flat[0] if is_one else constant


def by_feature(constant: Numbers) -> Numbers | None:
    """Return one number, or one per feature of the last axis; None: other axes differ, too."""
    if constant.ndim == 0:
        return constant
    return constant.reshape(-1) if constant.shape[-1] == constant.size else None


def row(vector: Numbers, rank: int) -> Numbers:
    """Return a vector as an array of this rank, along its last axis; a number as it is."""
    return vector.reshape((1,) * (rank - 1) + (-1,)) if vector.ndim else vector


def is_number(constant: Numbers, number: float) -> bool:
    """Return whether it is this number but for rounding in float32."""
    return constant.ndim == 0 and math.isclose(constant, number, rel_tol=1e-6)


def is_close(one: Numbers, other: Numbers) -> bool:
    """Return whether they are equal but for rounding in float32."""
    return np.allclose(one, other, rtol=1e-6, atol=1e-7)
