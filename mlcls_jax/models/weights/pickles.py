"""Reads weight files that are pickles, Paddle's and PyTorch's, without running what is in them.

Every array is made here, from bytes of the file, a plain dtype and a shape that fits them: NumPy's
own functions for pickles never see the file, since they believe what it says.
"""

import io
import math
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mlcls_jax.errors import WeightsError
from mlcls_jax.files import regular
from mlcls_jax.models.weights.opcodes import Global, RefusedError, StandIn, Table, read_pickle

NAME_TABLE_KEY = "StructuredToParameterName@@"  # Paddle's internal names; not a tensor
WRAPPERS = ("state_dict", "model")  # where training scripts put the tensors of a PyTorch file
# Files of PyTorch before 1.6 begin with a number and a version, each a pickle.
STREAM = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03."
REBUILT = ("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_parameter")
MAX_DIRECTORY = 1 << 22  # bytes of a zip's table of contents: some 40,000 tensors
MAX_DIMENSIONS = 32
MAX_REPEATS = 4  # all arrays together are at most so many times as long as the file: some share

_DTYPES = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1")
# Little-endian; bfloat16 is read as its bits and widened.
_STORAGES = {
    "torch.DoubleStorage": "<f8",
    "torch.FloatStorage": "<f4",
    "torch.HalfStorage": "<f2",
    "torch.BFloat16Storage": "<u2",
    "torch.LongStorage": "<i8",
    "torch.IntStorage": "<i4",
    "torch.ShortStorage": "<i2",
    "torch.CharStorage": "<i1",
    "torch.ByteStorage": "<u1",
    "torch.BoolStorage": "?",
}


def read_pdparams(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a `.pdparams` file by their structured keys.

    Raises:
      WeightsError: not a pickle, damaged, or it refers to anything but arrays of numbers (such a
        file could run code; nothing of it is run).
    """

    def load() -> Any:
        data = regular(path).read_bytes()
        budget = _Budget(len(data))
        content = read_pickle(io.BytesIO(data), _arrays(budget))
        if not isinstance(content, dict):
            return content
        return {key: _array(v, budget) for key, v in content.items() if key != NAME_TABLE_KEY}

    content = _unpickle(path, load)
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, np.ndarray):
            raise WeightsError(f"{path}: {key!r} is a {_kind(value)}, not an array of numbers")
    return content


def read_pth(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a PyTorch state dict (`.pth`, `.pt`, `.bin`) by their keys.

    Tensors may lie under `state_dict` or `model`; a prefix `module.` is taken off.

    Raises:
      WeightsError: damaged, or it refers to anything but tensors.
    """

    def load() -> Any:
        with _Reader(regular(path)) as file:
            return _read_archive(file) if zipfile.is_zipfile(file) else _read_stream(path)

    content = _unpickle(path, load)
    for wrapper in WRAPPERS:
        if isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    tensors = {key: _filled(v) for key, v in content.items()}
    tensors = {key: v for key, v in tensors.items() if isinstance(v, np.ndarray)}
    if not tensors:
        some = ", ".join(str(key) for key, _ in zip(content, range(20), strict=False))
        raise WeightsError(f"{path}: holds no tensors, but {some or 'nothing'}")
    prefix = "module." if all(str(key).startswith("module.") for key in tensors) else ""
    return {str(key).removeprefix(prefix): array for key, array in tensors.items()}


def _unpickle(path: Path, load: Callable[[], Any]) -> dict[Any, Any]:
    try:
        content = load()
    except WeightsError:
        raise
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror}") from error
    except RefusedError as error:
        raise WeightsError(
            f"{path}: refused, because it wants to use {error}, which no weight file needs",
            "Do not load this file with other tools: it may run code.",
        ) from error
    except Exception as error:
        raise WeightsError(f"{path}: not a weight file, or damaged: {error}") from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path}: holds a {_kind(content)}, not a table of arrays")
    return content


class _Budget:
    """Bytes that may still be made of a file: the same ones can be named again and again."""

    def __init__(self, size: int) -> None:
        self._left = MAX_REPEATS * size

    def take(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise ValueError(f"its arrays are more than {MAX_REPEATS} times as long as the file")


class _Dtype(StandIn):
    """Stands for a NumPy dtype."""

    def __init__(self, code: str, *_: Any) -> None:
        self.code = code if type(code) is str and code in _DTYPES else None  # None: no numbers
        self.order: Literal["<", ">", "|"] = "<"

    def set_state(self, state: Any) -> None:
        """Only the order of bytes is looked at; what has fields or items has no plain code."""
        order = state[1]
        if self.code and (type(order) is not str or order not in ("<", ">", "|")):
            raise ValueError("a dtype without an order of bytes")
        self.order = order


class _Array(StandIn):
    """Stands for a NumPy array, which is empty at first."""

    def __init__(self, budget: _Budget) -> None:
        self.array: np.ndarray | None = None  # None: not made, or not of numbers
        self._budget = budget

    def set_state(self, state: Any) -> None:
        """Take (version, shape, dtype, whether columns come first, bytes)."""
        _, shape, dtype, is_fortran, data = state
        self.fill(data, dtype, shape, is_contiguous=is_fortran is False)

    def fill(self, data: Any, dtype: Any, shape: Any, *, is_contiguous: bool) -> None:
        if not isinstance(dtype, _Dtype) or type(shape) is not tuple:
            raise ValueError("an array without dtype or shape")
        if dtype.code is None:
            return
        if not is_contiguous:
            raise ValueError(
                "an array's rows are not stored one after the other: write it anew, by"
                " numpy.ascontiguousarray"
            )
        kind = np.dtype(dtype.code).newbyteorder(dtype.order)
        size = _count(shape) * kind.itemsize
        if not isinstance(data, bytes | bytearray) or len(data) != size:
            raise ValueError(f"an array of {size:,} bytes is given {_length(data)}")
        self._budget.take(size)
        array = np.frombuffer(data, kind).reshape(shape)
        self.array = array.astype(kind.newbyteorder("="), copy=False)


def _arrays(budget: _Budget) -> dict[str, Callable[..., Any] | None]:
    """Parts of a NumPy array in a pickle."""

    def encode(text: str, encoding: str) -> bytes:
        """Decode bytes as protocol 2 writes them; refuse any other codec."""
        if encoding != "latin1":
            raise RefusedError("another codec than latin1")
        budget.take(len(text))
        return text.encode("latin1")

    def reconstruct(*_: Any) -> _Array:
        return _Array(budget)

    def from_buffer(data: Any, dtype: Any, shape: Any, order: Any) -> _Array:
        array = _Array(budget)
        array.fill(data, dtype, shape, is_contiguous=order == "C")
        return array

    return {
        "_codecs.encode": encode,
        "numpy.core.multiarray._reconstruct": reconstruct,
        "numpy._core.multiarray._reconstruct": reconstruct,
        "numpy.core.numeric._frombuffer": from_buffer,
        "numpy._core.numeric._frombuffer": from_buffer,
        "numpy.ndarray": None,
        "numpy.dtype": _Dtype,
        "collections.OrderedDict": Table,
    }


def _array(value: Any, budget: _Budget) -> Any:
    """The array in an entry of Paddle's; anything else is left for the message."""
    if isinstance(value, tuple) and len(value) == 2:  # old releases: (internal name, array)
        value = value[1]
    value = _filled(value)
    if isinstance(value, np.ndarray) and value.dtype == np.uint16:  # Paddle's way to store bfloat16
        budget.take(2 * value.nbytes)
        return _from_bfloat16(value)
    return value


def _filled(value: Any) -> Any:
    return value.array if isinstance(value, _Array) and value.array is not None else value


def _from_bfloat16(bits: np.ndarray) -> np.ndarray:
    return (bits.astype(np.uint32) << 16).view(np.float32)


def _count(shape: tuple[Any, ...]) -> int:
    """Return the number of entries of an array of this shape."""
    if len(shape) > MAX_DIMENSIONS or not all(type(n) is int and 0 <= n < 1 << 63 for n in shape):
        raise ValueError("a shape that no array has")
    return math.prod(shape)


def _length(data: Any) -> str:
    return f"{len(data):,}" if isinstance(data, bytes | bytearray) else f"a {type(data).__name__}"


def _kind(value: Any) -> str:
    return "ndarray" if isinstance(value, _Array) else type(value).__name__


class _Storage:
    """Numbers in a row, of which PyTorch's tensors are parts."""

    def __init__(self, numbers: np.ndarray, budget: _Budget) -> None:
        self.numbers, self.budget = numbers, budget


def _rebuild_tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> np.ndarray:
    """A tensor as a copy of its part of the storage; one that reaches beyond it is refused."""
    if not isinstance(storage, _Storage) or type(size) is not tuple or type(stride) is not tuple:
        raise ValueError("a tensor without storage, size or stride")
    numbers, count = storage.numbers, _count(size)
    _count((offset, *stride))
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if count > numbers.size or (count and last >= numbers.size):
        raise ValueError("a tensor reaches beyond its data")
    storage.budget.take(count * numbers.itemsize)
    if not count:
        return np.zeros(size, numbers.dtype)
    strides = tuple(step * numbers.itemsize for step in stride)
    return np.lib.stride_tricks.as_strided(numbers[offset:], size, strides).copy()


def _rebuild_parameter(data: Any, *_: Any) -> Any:
    return data


class _Reader(io.FileIO):
    """A file that gives at most so much at once: `zipfile` reads a table of contents in one go."""

    most = MAX_DIRECTORY

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > self.most:
            raise ValueError("its table of contents is too long")
        return super().read(size)


def _read_archive(file: _Reader) -> Any:
    """The value in a PyTorch file, of which no byte is read more than once."""
    with zipfile.ZipFile(file) as archive:
        file.most = left = file.seek(0, io.SEEK_END)
        budget = _Budget(left)
        pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise ValueError("it holds no data.pkl")
        storages: dict[tuple[str, str], _Storage] = {}

        def read(name: str) -> bytes:
            nonlocal left
            entry = archive.getinfo(name)
            if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
                raise ValueError(f"{name} is compressed, which PyTorch never does")
            left -= entry.file_size
            if left < 0:
                raise ValueError("its entries are longer than the file")
            return archive.read(entry)

        def load_storage(reference: Any) -> _Storage:
            kind, key, count = _storage_named(reference)
            if (kind, key) not in storages:
                data = read(f"{pickles[0].removesuffix('data.pkl')}data/{key}")
                storages[kind, key] = _storage(kind, key, count, data, budget)
            return storages[kind, key]

        return read_pickle(io.BytesIO(read(pickles[0])), _tensors(budget), load_storage)


def _read_stream(path: Path) -> Any:
    """The value in a file of PyTorch before 1.6: pickles in a row, then the numbers they name.

    The value is read twice: where its numbers begin is known only when it has ended.
    """
    with path.open("rb") as whole:
        if whole.read(len(STREAM)) != STREAM:
            raise ValueError("it is neither a zip file nor a row of pickles")
        file = io.BytesIO(whole.read())
    budget = _Budget(file.getbuffer().nbytes)
    read_pickle(file, {})  # of the machine that wrote it
    begin, named = file.tell(), {}

    def note(reference: Any) -> None:
        kind, key, count = _storage_named(reference[:5])
        if reference[5:] not in ((), (None,)):
            raise ValueError(f"storage {key} is a part of another")
        named[key] = (kind, count)

    read_pickle(file, _tensors(budget) | dict.fromkeys(REBUILT, lambda *_: None), note)
    storages: dict[str, _Storage] = {}
    for key in read_pickle(file, {}):
        kind, count = named.pop(key)
        if file.read(8) != count.to_bytes(8, "little"):
            raise ValueError(f"storage {key} is not as long as it says")
        data = file.read(count * np.dtype(_STORAGES[kind]).itemsize)
        storages[key] = _storage(kind, key, count, data, budget)
    file.seek(begin)
    return read_pickle(file, _tensors(budget), lambda reference: storages[reference[2]])


def _storage_named(reference: Any) -> tuple[str, str, int]:
    """Return kind, name and length of a storage that a pickle refers to."""
    _, kind, key, _, count = reference
    is_named = isinstance(kind, Global) and kind.name in _STORAGES
    if not is_named or type(key) is not str or type(count) is not int or count < 0:
        raise ValueError("a storage without kind, name or length")
    return kind.name, key, count


def _storage(kind: str, key: str, count: int, data: bytes, budget: _Budget) -> _Storage:
    dtype = np.dtype(_STORAGES[kind])
    if len(data) != count * dtype.itemsize:
        raise ValueError(f"storage {key} is not as long as it says")
    numbers = np.frombuffer(data, dtype)
    if kind == "torch.BFloat16Storage":
        budget.take(2 * numbers.nbytes)
        numbers = _from_bfloat16(numbers)
    return _Storage(numbers, budget)


def _tensors(budget: _Budget) -> dict[str, Callable[..., Any] | None]:
    """Parts of a tensor in a pickle."""
    rebuild = dict(zip(REBUILT, (_rebuild_tensor, _rebuild_parameter), strict=True))
    return {**_arrays(budget), **dict.fromkeys(_STORAGES), **rebuild}
