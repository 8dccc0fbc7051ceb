"""Reads weight files that are pickles, Paddle's and PyTorch's, without running what is in them."""

import io
import math
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from mlcls_jax.errors import WeightsError

NAME_TABLE_KEY = "StructuredToParameterName@@"  # Paddle's internal names; not a tensor
WRAPPERS = ("state_dict", "model")  # where training scripts put the tensors of a PyTorch file


def read_pdparams(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a `.pdparams` file by their structured keys.

    Raises:
      WeightsError: not a pickle, damaged, or it refers to anything but NumPy arrays (such a file
        could run code; nothing of it is run).
    """
    content = _unpickle(path, lambda: _ArrayUnpickler(io.BytesIO(path.read_bytes())).load())
    return {key: _array(path, key, v) for key, v in content.items() if key != NAME_TABLE_KEY}


def read_pth(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a PyTorch state dict (`.pth`, `.pt`, `.bin`) by their keys.

    Tensors may lie under `state_dict` or `model`; a prefix `module.` is taken off.

    Raises:
      WeightsError: damaged, of PyTorch before 1.6, or it refers to anything but tensors.
    """

    def load() -> Any:
        with zipfile.ZipFile(path) as archive:
            return _TensorUnpickler(archive).load()

    if path.exists() and not zipfile.is_zipfile(path):
        raise WeightsError(
            f"{path}: is not the zip file that PyTorch writes since 1.6, or is damaged",
            "Load it in PyTorch and save it again, best as .safetensors.",
        )
    content = _unpickle(path, load)
    for wrapper in WRAPPERS:
        if isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    tensors = {key: v for key, v in content.items() if isinstance(v, np.ndarray)}
    if not tensors:
        raise WeightsError(f"{path}: holds no tensors, but {', '.join(map(str, content))}")
    prefix = "module." if all(str(key).startswith("module.") for key in tensors) else ""
    return {str(key).removeprefix(prefix): array for key, array in tensors.items()}


def _unpickle(path: Path, load: Callable[[], Any]) -> dict[Any, Any]:
    try:
        content = load()
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror}") from error
    except _RefusedError as error:
        raise WeightsError(
            f"{path}: refused, because it wants to use {error}, which no weight file needs",
            "Do not load this file with other tools: it may run code.",
        ) from error
    except Exception as error:
        raise WeightsError(f"{path}: not a weight file, or damaged: {error}") from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path}: holds a {type(content).__name__}, not a table of arrays")
    return content


def _array(path: Path, key: Any, value: Any) -> np.ndarray:
    if isinstance(value, tuple) and len(value) == 2:  # old releases: (internal name, array)
        value = value[1]
    if not isinstance(key, str) or not isinstance(value, np.ndarray) or value.dtype == object:
        raise WeightsError(f"{path}: {key!r} is a {type(value).__name__}, not an array of numbers")
    if value.dtype == np.uint16:  # Paddle's way to store bfloat16
        return _from_bfloat16(value)
    return value


def _from_bfloat16(bits: np.ndarray) -> np.ndarray:
    return (bits.astype(np.uint32) << 16).view(np.float32)


class _RefusedError(Exception):
    pass


def _encode_latin1(text: str, encoding: str) -> bytes:
    """How protocol 2 writes bytes; any other codec is refused."""
    if encoding != "latin1":
        raise _RefusedError(f"the codec {encoding}")
    return text.encode("latin1")


class _ArrayUnpickler(pickle.Unpickler):
    """Admits what arrays are made of and nothing else."""

    ADMITTED: ClassVar[dict[tuple[str, str], Any]] = {
        ("_codecs", "encode"): _encode_latin1,
        ("numpy.core.multiarray", "_reconstruct"): np._core.multiarray._reconstruct,
        ("numpy._core.multiarray", "_reconstruct"): np._core.multiarray._reconstruct,
        ("numpy.core.numeric", "_frombuffer"): np._core.numeric._frombuffer,
        ("numpy._core.numeric", "_frombuffer"): np._core.numeric._frombuffer,
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("collections", "OrderedDict"): OrderedDict,
    }

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self.ADMITTED[module, name]
        except KeyError:
            raise _RefusedError(f"{module}.{name}") from None


def _rebuild_tensor(
    storage: np.ndarray, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any
) -> np.ndarray:
    """A tensor as a copy of its part of the storage; one that reaches beyond it is refused."""
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    whole = math.prod(size) <= storage.size and min((offset, *size, *stride), default=0) >= 0
    if not whole or (math.prod(size) and last >= storage.size):
        raise ValueError("a tensor reaches beyond its data")
    strides = tuple(step * storage.itemsize for step in stride)
    return np.lib.stride_tricks.as_strided(storage[offset:], size, strides).copy()


def _rebuild_parameter(data: np.ndarray, *_: Any) -> np.ndarray:
    return data


# Little-endian; bfloat16 is read as its bits and widened.
_STORAGES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "BFloat16Storage": "<u2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "<i1",
    "ByteStorage": "<u1",
    "BoolStorage": "?",
}


class _TensorUnpickler(_ArrayUnpickler):
    """Also admits PyTorch's tensors, as arrays."""

    ADMITTED: ClassVar[dict[tuple[str, str], Any]] = _ArrayUnpickler.ADMITTED | {
        ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
        ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
        **{("torch", name): name for name in _STORAGES},
    }

    def __init__(self, archive: zipfile.ZipFile) -> None:
        pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise ValueError("it holds no data.pkl")
        super().__init__(io.BytesIO(archive.read(pickles[0])))
        self._archive, self._folder = archive, pickles[0].removesuffix("data.pkl")

    def persistent_load(self, reference: Any) -> np.ndarray:
        _, kind, key, *_ = reference
        data = np.frombuffer(self._archive.read(f"{self._folder}data/{key}"), _STORAGES[kind])
        return _from_bfloat16(data) if kind == "BFloat16Storage" else data
