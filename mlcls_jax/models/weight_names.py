"""Name tables: which foreign tensor belongs to which of our parameters, and in which layout."""

import math
from typing import NamedTuple, cast

import numpy as np

from mlcls_jax.models.positions import resample_biases

IN_PLACE_EPSILON = np.float32(1e-5)  # what in-place norms add to the absolute value of a scale


class Foreign(NamedTuple):
    """Place of one of our parameters in a foreign file."""

    # Several: joined along their first axis. None: there is no such tensor, it is `constant`.
    key: str | tuple[str, ...] | None
    layout: str = "same"  # see `to_ours`; "scale" is a `constant` that multiplies the features
    constant: float = 0.0

    @property
    def keys(self) -> tuple[str, ...]:
        """The tensors it is made of."""
        if self.key is None:
            return ()
        return self.key if isinstance(self.key, tuple) else (self.key,)


NameTable = dict[str, Foreign]  # by our path, relative to a module


def with_prefix(table: NameTable, ours: str, theirs: str = "") -> NameTable:
    """The table of a submodule, seen from its owner."""
    if not theirs:
        return {f"{ours}/{path}": foreign for path, foreign in table.items()}
    return {
        f"{ours}/{path}": f._replace(key=theirs + cast(str, f.key)) for path, f in table.items()
    }


def norm_names(ours: str, theirs: str, *, origin: str) -> NameTable:
    """Batch normalisation in the names of Paddle or PyTorch."""
    mean, var = {"paddle": ("_mean", "_variance")}.get(origin, ("running_mean", "running_var"))
    keys = {"scale": "weight", "bias": "bias", "mean": mean, "var": var}
    return {f"{ours}/{name}": Foreign(f"{theirs}.{key}") for name, key in keys.items()}


def conv_norm_names(ours: str, conv: str, norm: str, *, origin: str) -> NameTable:
    """Convolution and batch normalisation of a `ConvNorm`, by their names in a file."""
    kernel = {f"{ours}/conv/kernel": Foreign(f"{conv}.weight", "conv")}
    return kernel | norm_names(f"{ours}/norm", norm, origin=origin)


def affine_names(ours: str, theirs: str, layout: str) -> NameTable:
    """A layer with weight and bias: `layout` is that of the weight, `linear` for instance."""
    return {
        f"{ours}/kernel": Foreign(f"{theirs}.weight", layout),
        f"{ours}/bias": Foreign(f"{theirs}.bias"),
    }


def layer_norm_names(ours: str, theirs: str) -> NameTable:
    """Layer normalisation, the same everywhere."""
    return {
        f"{ours}/scale": Foreign(f"{theirs}.weight"),
        f"{ours}/bias": Foreign(f"{theirs}.bias"),
    }


def linear_layout(origin: str) -> str:
    """Paddle stores linear weights [in, out] as we do, PyTorch [out, in]."""
    return "same" if origin == "paddle" else "linear"


def to_ours(array: np.ndarray, layout: str, shape: tuple[int, ...]) -> np.ndarray:
    """A foreign array in our layout.

    Layouts: "same"; "linear" [out, in] → [in, out]; "query", "key_value" the first third, or the
    rest, of such a matrix or of its bias; "conv" [out, in, kh, kw] → [kh, kw, in, out]; "conv1x1"
    [out, in, 1, 1] → [in, out]; "group" [Q * g, D, 1, 1] → [Q, D, g], for which `shape` (ours)
    gives Q; "reshape" the same numbers in another shape; "positions" [1 + N, C], with a first axis
    of 1 or without, → [1, 1 + N, C]; "biases" [(2 W - 1)^2, heads], resampled where the window is
    another; "number" [n, 1, 1] → [n]; "absolute" the scale of an in-place norm, of which the sign
    does not count. An array that no such layer has is given back as it is: the caller reports the
    shapes.
    """
    if layout == "linear":
        return array.T
    if layout in ("query", "key_value") and array.ndim in (1, 2):
        return np.split(array, [len(array) // 3])[layout == "key_value"].T
    if layout == "absolute":
        return np.abs(array) + IN_PLACE_EPSILON
    if layout == "reshape":
        return array.reshape(shape) if array.size == math.prod(shape) else array
    if layout == "positions":
        return array[None] if array.ndim == 2 else array
    if layout == "biases":
        return _biases(array, shape)
    if layout == "number":
        return array[:, 0, 0] if array.shape[1:] == (1, 1) else array
    if layout in ("conv", "conv1x1", "group") and array.ndim != 4:
        return array
    if layout == "conv":
        return array.transpose(2, 3, 1, 0)
    if layout in ("conv1x1", "group") and array.shape[2:] != (1, 1):
        return array
    if layout == "conv1x1":
        return array[:, :, 0, 0].T
    if layout == "group":
        queries = shape[0]
        if array.shape[0] % queries:
            return array  # a different class or query count: the caller reports the shapes
        return array.reshape(queries, -1, array.shape[1]).transpose(0, 2, 1)
    return array


def _biases(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if array.ndim != 2 or array.shape[1] != shape[1]:
        return array
    stored, side = (math.isqrt(count) // 2 + 1 for count in (array.shape[0], shape[0]))
    if (2 * stored - 1) ** 2 != len(array):
        return array
    return np.asarray(resample_biases(array.astype(np.float32), stored, (side, side)))


def to_theirs(array: np.ndarray, layout: str) -> np.ndarray:
    """The inverse of `to_ours`; "reshape" and "positions" leave the shape to the caller."""
    if layout == "linear":
        return array.T
    if layout == "number":
        return array[:, None, None]
    if layout == "absolute":
        return array - IN_PLACE_EPSILON
    if layout == "conv":
        return array.transpose(3, 2, 0, 1)
    if layout == "conv1x1":
        return array.T[:, :, None, None]
    if layout == "group":
        return array.transpose(0, 2, 1).reshape(-1, array.shape[1])[:, :, None, None]
    return array
