"""Weights under the names and in the layouts of Paddle and timm, for use elsewhere."""

import pickle
from pathlib import Path

import numpy as np
import safetensors.numpy

from mlcls_jax import files
from mlcls_jax.errors import WeightsError
from mlcls_jax.models.network import Model, flatten
from mlcls_jax.models.weight_names import NameTable, to_theirs
from mlcls_jax.paths import local_path

ORIGINS = ("paddle", "timm")


def to_foreign(model: Model, origin: str) -> dict[str, np.ndarray]:
    """All tensors of `model` by the keys of `origin`, paddle or timm, in its layouts.

    An ML-Decoder head has Paddle's names in both. A factor on the features that the origin does not
    have goes into the layer that they enter: logits stay the same but for rounding.

    Raises:
      ValueError: no such origin, or the model has no names there.
      WeightsError: the model has a number that the origin cannot express.
    """
    tables = {name: model.network.foreign_names.get(name) for name in ORIGINS}
    if not (table := tables.get(origin)):
        known = ", ".join(name for name, table in tables.items() if table)
        raise ValueError(f"origin {origin!r}: there are {known}")
    arrays = {}
    ours = {path: np.asarray(value) for path, value in flatten(model.variables).items()}
    _fold_scale(ours, table, model.network.outline.head.entry)
    for path, array in ours.items():
        foreign = table[path]
        if foreign.key is None:
            if not np.array_equal(array, np.full_like(array, foreign.constant)):
                raise WeightsError(
                    f"{path} is {array.ravel()[:3]}, but {origin} has {foreign.constant} built in",
                    "These weights came from elsewhere: export them to where they came from.",
                )
            continue
        theirs = to_theirs(array, foreign.layout)
        parts = [theirs] if len(foreign.keys) == 1 else np.split(theirs, len(foreign.keys))
        arrays |= {k: np.ascontiguousarray(p) for k, p in zip(foreign.keys, parts, strict=True)}
    return arrays


def _fold_scale(arrays: dict[str, np.ndarray], table: NameTable, entry: str | None) -> None:
    """Make the factor on the features that of the origin: 0.8 in Paddle, 1 in timm.

    The rest of it goes into the head's kernel at `entry`, which multiplies the features.
    """
    for path in (path for path, foreign in table.items() if foreign.layout == "scale"):
        constant = table[path].constant
        if arrays[path] == np.float32(constant):
            continue
        if entry is None:
            continue  # the caller tells that it cannot be expressed
        factor, kernel = np.float64(arrays[path]) / constant, arrays[f"head/{entry}"]
        arrays[f"head/{entry}"] = (kernel * factor).astype(kernel.dtype)
        arrays[path] = np.full_like(arrays[path], constant)


def save(model: Model, path: str | Path, origin: str) -> Path:
    """Write `to_foreign(model, origin)` as `.pdparams` or `.safetensors`, whole or not at all.

    Raises:
      WeightsError: unknown kind of file.
    """
    path = local_path("path", path)
    if path.suffix not in (".pdparams", ".safetensors"):
        raise WeightsError(f"{path}: unknown kind of weight file; use .pdparams or .safetensors")
    arrays = to_foreign(model, origin)
    is_paddle = path.suffix == ".pdparams"
    content = pickle.dumps(arrays, protocol=4) if is_paddle else safetensors.numpy.save(arrays)
    files.write_bytes(path, content)
    return path
