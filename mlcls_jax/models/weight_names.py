"""Name tables: which foreign tensor belongs to which of our parameters, and in which layout."""

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple, cast

import numpy as np
from flax import nnx

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


# A regular expression, and what stands in the place of what it finds; see `renamed`.
Rule = tuple[str, str | Callable[[re.Match[str]], str]]

# Parameters of the layers in `layers.py` and `norms.py` → what files call them.
_LAYERS = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}
_PADDLE = _LAYERS | {"mean": "_mean", "var": "_variance"}


def renamed(
    module: nnx.Module,
    origin: str,
    rules: Iterable[Rule] = (),
    *,
    layouts: Mapping[str, str] = {},
) -> NameTable:
    """Return where a file has each parameter of a module, in the order in which that was made.

    A layer's `stage0/norm/scale` is `stage0.norm.weight` at first; kernels of four axes have the
    layout "conv", of two that of linear layers. Rules say what differs.

    Args:
      module: as its constructor has made it: what Flax merges has lost the order.
      origin: of the file.
      rules: pairs of a regular expression and what stands there instead, applied one after another.
        `{q,k,v}_proj` in the end means several tensors: `Foreign.key` has one for each of these.
      layouts: other layouts than the above, by a regular expression that finds our paths.
    """
    parts, table = _PADDLE if origin == "paddle" else _LAYERS, {}
    for path, variable in _parameters(module):
        owner, _, name = path.rpartition("/")
        key = f"{owner}/{parts.get(name, name)}".removeprefix("/").replace("/", ".")
        for pattern, text in rules:
            key = re.sub(pattern, text, key)
        axes = len(variable.shape) if name == "kernel" else 1
        layout = {4: "conv", 2: linear_layout(origin)}.get(axes, "same")
        layout = next((other for part, other in layouts.items() if re.search(part, path)), layout)
        start, *several = re.split(r"[{,}]", key)
        keys = tuple(start + one + several[-1] for one in several[:-1])
        table[path] = Foreign(keys or key, layout)
    return table


def own_names(module: nnx.Module) -> NameTable:
    """Return the table of a module that no one else writes: names and layouts are ours."""
    return {path: Foreign(path.replace("/", ".")) for path, _ in _parameters(module)}


def _parameters(owner: nnx.Module, prefix: str = "") -> Iterator[tuple[str, nnx.Variable]]:
    for name, value in vars(owner).items():
        if isinstance(value, nnx.Variable):
            yield prefix + name, value
        elif isinstance(value, nnx.Module):
            yield from _parameters(value, f"{prefix}{name}/")


def with_prefix(table: NameTable, ours: str, theirs: str = "") -> NameTable:
    """The table of a submodule, seen from its owner."""
    return {
        f"{ours}/{path}": f._replace(key=theirs + cast(str, f.key)) if theirs else f
        for path, f in table.items()
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
