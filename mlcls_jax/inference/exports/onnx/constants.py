"""Constants of a graph: NumPy arrays, as small as they can be written."""

import math
from typing import Any

import numpy as np


def smallest(constant: Any) -> np.ndarray:
    """One number if all are equal."""
    constant = np.asarray(constant, np.float64)
    is_one = constant.size and (constant == constant.flat[0]).all()
    return constant.flat[0] if is_one else constant


def by_feature(constant: np.ndarray) -> np.ndarray | None:
    """One number, or one a feature of the last axis; None: it differs along other axes."""
    if constant.ndim == 0:
        return constant
    return constant.reshape(-1) if constant.shape[-1] == constant.size else None


def row(vector: np.ndarray, rank: int) -> np.ndarray:
    return vector.reshape((1,) * (rank - 1) + (-1,)) if vector.ndim else vector


def is_number(constant: np.ndarray, number: float) -> bool:
    """Whether it is this number but for rounding in float32."""
    return constant.ndim == 0 and math.isclose(constant, number, rel_tol=1e-6)


def is_close(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether they are equal but for rounding in float32."""
    return np.allclose(one, other, rtol=1e-6, atol=1e-7)
