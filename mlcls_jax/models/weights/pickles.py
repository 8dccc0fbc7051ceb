"""Reads Paddle's `.pdparams`, a pickle, without running anything that is in it."""

import io
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

from mlcls_jax.errors import WeightsError

NAME_TABLE_KEY = "StructuredToParameterName@@"  # Paddle's internal names; not a tensor


def read_pdparams(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a `.pdparams` file by their structured keys.

    Raises:
      WeightsError: not a pickle, damaged, or it refers to anything but NumPy arrays (such a file
        could run code; nothing of it is run).
    """
    try:
        content = _ArrayUnpickler(io.BytesIO(path.read_bytes())).load()
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror}") from error
    except _RefusedError as error:
        raise WeightsError(
            f"{path}: refused, because it wants to use {error}, which no weight file needs",
            "Do not load this file with other tools: it may run code.",
        ) from error
    except Exception as error:  # a damaged pickle raises nearly anything
        raise WeightsError(f"{path}: not a Paddle weight file, or damaged: {error}") from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path}: holds a {type(content).__name__}, not a table of arrays")
    return {key: _array(path, key, v) for key, v in content.items() if key != NAME_TABLE_KEY}


def _array(path: Path, key: Any, value: Any) -> np.ndarray:
    if isinstance(value, tuple) and len(value) == 2:  # old releases: (internal name, array)
        value = value[1]
    if not isinstance(key, str) or not isinstance(value, np.ndarray) or value.dtype == object:
        raise WeightsError(f"{path}: {key!r} is a {type(value).__name__}, not an array of numbers")
    if value.dtype == np.uint16:  # Paddle's way to store bfloat16
        return (value.astype(np.uint32) << 16).view(np.float32)
    return value


class _RefusedError(Exception):
    pass


class _ArrayUnpickler(pickle.Unpickler):
    """Admits what arrays are made of and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("_codecs", "encode"):
            return _encode_latin1
        array_modules = ("numpy.core.multiarray", "numpy._core.multiarray")
        if module in array_modules and name == "_reconstruct":
            return np._core.multiarray._reconstruct
        if module in ("numpy.core.numeric", "numpy._core.numeric") and name == "_frombuffer":
            return np._core.numeric._frombuffer
        if (module, name) in (("numpy", "ndarray"), ("numpy", "dtype")):
            return getattr(np, name)
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        raise _RefusedError(f"{module}.{name}")


def _encode_latin1(text: str, encoding: str) -> bytes:
    """How protocol 2 writes bytes; any other codec is refused."""
    if encoding != "latin1":
        raise _RefusedError(f"the codec {encoding}")
    return text.encode("latin1")
