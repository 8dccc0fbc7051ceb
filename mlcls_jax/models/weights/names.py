"""Name tables: which foreign tensor belongs to which of our parameters, and in which layout."""

import numpy as np

# our path, relative to a module → (foreign key, layout)
NameTable = dict[str, tuple[str, str]]


def with_prefix(table: NameTable, ours: str, theirs: str = "") -> NameTable:
    """The table of a submodule, seen from its owner."""
    return {f"{ours}/{path}": (theirs + key, layout) for path, (key, layout) in table.items()}


def norm_names(ours: str, theirs: str) -> NameTable:
    """Batch normalisation in Paddle's names."""
    return {
        f"{ours}/scale": (f"{theirs}.weight", "same"),
        f"{ours}/bias": (f"{theirs}.bias", "same"),
        f"{ours}/mean": (f"{theirs}._mean", "same"),
        f"{ours}/var": (f"{theirs}._variance", "same"),
    }


def to_ours(array: np.ndarray, layout: str, shape: tuple[int, ...]) -> np.ndarray:
    """A foreign array in our layout.

    Layouts: "same"; "conv" [out, in, kh, kw] → [kh, kw, in, out]; "conv1x1" [out, in, 1, 1] →
    [in, out]; "group" [Q * g, D, 1, 1] → [Q, D, g], for which `shape` (ours) gives Q.
    """
    if layout == "conv":
        return array.transpose(2, 3, 1, 0)
    if layout == "conv1x1":
        return array[:, :, 0, 0].T
    if layout == "group":
        queries = shape[0]
        if array.shape[0] % queries:
            return array  # a different class or query count: the caller reports the shapes
        return array.reshape(queries, -1, array.shape[1]).transpose(0, 2, 1)
    return array


def to_theirs(array: np.ndarray, layout: str) -> np.ndarray:
    """The inverse of `to_ours`."""
    if layout == "conv":
        return array.transpose(3, 2, 0, 1)
    if layout == "conv1x1":
        return array.T[:, :, None, None]
    if layout == "group":
        return array.transpose(0, 2, 1).reshape(-1, array.shape[1])[:, :, None, None]
    return array
