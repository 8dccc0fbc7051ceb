"""Paddle's inference folders: tensors that are known by the number of their layer alone.

`inference.pdiparams` holds tensors without names, in the order of their static names, which the
program beside it lists: `inference.json` (Paddle 3) or `inference.pdmodel` (before). A static name
such as `conv2d_3.w_0` counts the layers of a kind in the order in which the network's constructor
made them, and that is the order of our tables of Paddle's names.
"""

import json
import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

import ml_dtypes
import numpy as np

from mlcls_jax.errors import WeightsError
from mlcls_jax.files import regular
from mlcls_jax.models.weight_names import NameTable
from mlcls_jax.readable import shorten

PARAMETERS = "inference.pdiparams"
PROGRAMS = ("inference.json", "inference.pdmodel")

# kind_number.slot; exports may append _deepcopy_number.
_STATIC = re.compile(r"(\w+?)_(\d+)\.([wb]_\d+)(?:_deepcopy_\d+)?")
# Kinds that our tables do not tell apart, or call otherwise.
_KINDS = {"batch_norm2d": "batch_norm"}
# Paddle's numbers of types of tensors.
_TYPES = {
    2: np.int32,
    3: np.int64,
    4: np.float16,
    5: np.float32,
    6: np.float64,
    22: ml_dtypes.bfloat16,
}
_DENSE = 7  # Paddle's number for variables that are tensors, rather than feeds and fetches


def is_inference_folder(folder: Path) -> bool:
    """Return whether the folder holds an exported model of Paddle."""
    return (folder / PARAMETERS).is_file()


def read_inference_folder(folder: Path) -> dict[str, np.ndarray]:
    """Return the arrays of an inference folder by their static names.

    Raises:
      WeightsError: a file is missing or damaged, or the two do not belong together.
    """
    program = next((folder / name for name in PROGRAMS if (folder / name).is_file()), None)
    if program is None:
        raise WeightsError(
            f"{folder}: has {PARAMETERS}, but neither {' nor '.join(PROGRAMS)}",
            "The parameters have no names of their own: copy the program file, too.",
        )
    path = folder / PARAMETERS
    try:
        content = regular(program).read_bytes()
        shapes = (
            _names_of_json(content) if program.suffix == ".json" else _names_of_pdmodel(content)
        )
        if wrong := [name for name in shapes if not isinstance(name, str)]:
            raise ValueError(f"{shorten(wrong[0])} is the name of a tensor")
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise WeightsError(f"{program}: is no program of Paddle, or damaged: {error}") from error
    try:
        tensors = list(_tensors(memoryview(regular(path).read_bytes())))
    except (OSError, ValueError, LookupError) as error:
        raise WeightsError(
            f"{path}: is no file of Paddle's parameters, or damaged: {error}"
        ) from error
    if len(tensors) != len(shapes):
        raise WeightsError(
            f"{path}: holds {len(tensors)} tensors, but {program.name} names {len(shapes)}",
            "Copy both files of one export.",
        )
    return dict(zip(sorted(shapes), tensors, strict=True))


def has_static_names(arrays: Mapping[str, np.ndarray]) -> bool:
    """Return whether most of the arrays are named by the numbers of their layers."""
    return sum(_STATIC.fullmatch(name) is not None for name in arrays) > len(arrays) / 2


def by_structured_names(
    arrays: Mapping[str, np.ndarray], table: NameTable, shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, np.ndarray]:
    """Rename arrays with static names as `table` has them: `conv2d_0.w_0` is conv1.conv.weight.

    Args:
      arrays: with static names; those that are left over keep them.
      table: the network's, for files of Paddle, in the order of the constructor.
      shapes: ours, by our path.
    """
    wanted: dict[tuple[str, str], list[str]] = defaultdict(list)
    for slot, key in _static_slots(table, shapes):
        wanted[slot].append(key)
    found: dict[tuple[str, str], list[tuple[int, str]]] = defaultdict(list)
    for name in arrays:
        if match := _STATIC.fullmatch(name):
            kind, number, slot = match.groups()
            found[_KINDS.get(kind, kind), slot].append((int(number), name))
    renamed = {
        name: key
        for slot, keys in wanted.items()
        # Layers of the head come last: those of a backbone fit, whatever follows.
        for key, (_, name) in zip(keys, sorted(found[slot]), strict=False)
    }
    return {renamed.get(name, name): array for name, array in arrays.items()}


def _static_slots(
    table: NameTable, shapes: Mapping[str, tuple[int, ...]]
) -> Iterator[tuple[tuple[str, str], str]]:
    """Yield kind and place in the layer, and the key, of each tensor in the order of the table."""
    layers: dict[str, dict[str, str]] = defaultdict(dict)  # parts by layer, as Paddle calls both
    for path, foreign in table.items():
        for key in foreign.keys:
            layer, _, part = key.rpartition(".")
            layers[layer][part] = path
    for layer, parts in layers.items():
        if not layer:  # parameters of the network itself, which only CLIP's has
            for number, part in enumerate(parts):
                yield ("vision_transformer", f"w_{number}"), part
            continue
        if "_mean" in parts:
            kind = "batch_norm"
        elif "scale" in parts:
            kind = "learnable_affine_block"
        elif table[parts["weight"]].layout in ("conv", "conv1x1", "group"):
            kind = "conv2d"
        elif len(shapes[parts["weight"]]) == 1:
            kind = "layer_norm"
        else:
            kind = "linear" if "bias" in parts else "embedding"
        slots = {"weight": "w_0", "bias": "b_0", "_mean": "w_1", "_variance": "w_2"}
        if kind == "learnable_affine_block":
            slots = {"scale": "w_0", "bias": "w_1"}
        for part in parts:
            yield (kind, slots[part]), f"{layer}.{part}"


def _names_of_json(content: bytes) -> list[str]:
    """Return the names of a program of Paddle 3."""
    block = json.loads(content)["program"]["regions"][0]["blocks"][0]
    return [operation["A"][3] for operation in block["ops"] if operation["#"] == "p"]


def _names_of_pdmodel(content: bytes) -> list[str]:
    """Return the names of the persistable tensors of the first block of a ProgramDesc."""
    names = []
    for variable in _parts(_parts(memoryview(content), 1)[0], 3):
        kind = next(value for field, value in _fields(_parts(variable, 2)[0]) if field == 1)
        is_persistable = any(field == 3 and value for field, value in _fields(variable))
        if is_persistable and kind == _DENSE:
            names.append(bytes(_parts(variable, 1)[0]).decode())
    return names


def _tensors(content: memoryview) -> Iterator[np.ndarray]:
    at = 0

    def take(count: int) -> memoryview:
        nonlocal at
        if not 0 <= count <= len(content) - at:
            raise ValueError(f"it ends within a tensor, at byte {at:,}")
        at += count
        return content[at - count : at]

    def number(size: int) -> int:
        return int.from_bytes(take(size), "little")

    while at < len(content):
        versions = [number(4)]
        for _ in range(number(8)):  # levels of detail, which weights do not have
            take(number(8))
        versions.append(number(4))
        if versions != [0, 0]:
            raise ValueError(f"a tensor is of version {max(versions)}, and 0 is known")
        kind, dims = 0, []
        for field, value in _fields(take(number(4))):
            if field == 1:
                kind = value
            elif field == 2:
                dims += [value] if isinstance(value, int) else list(_varints(value))
        if kind not in _TYPES:
            raise ValueError(f"a tensor has numbers of the unknown type {kind}")
        dtype = np.dtype(_TYPES[kind])
        yield np.frombuffer(take(math.prod(dims) * dtype.itemsize), dtype).reshape(dims)


def _fields(message: memoryview) -> Iterator[tuple[int, "int | memoryview"]]:
    """Yield the fields of a protobuf message: whole numbers, and bytes of all else."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        field, form = tag >> 3, tag & 7
        if form == 0:
            value, at = _varint(message, at)
            yield field, value
            continue
        if form == 2:
            size, at = _varint(message, at)
        elif form in (1, 5):
            size = 8 if form == 1 else 4
        else:
            raise ValueError(f"no field has the form {form}")
        if size > len(message) - at:
            raise ValueError("a field is longer than what holds it")
        yield field, message[at : at + size]
        at += size


def _parts(message: memoryview, wanted: int) -> list[memoryview]:
    """Return the texts or messages in a field, which may be there several times."""
    return [
        value for field, value in _fields(message) if field == wanted and not isinstance(value, int)
    ]


def _varints(packed: memoryview) -> Iterator[int]:
    at = 0
    while at < len(packed):
        value, at = _varint(packed, at)
        yield value


def _varint(content: memoryview, at: int) -> tuple[int, int]:
    """Return the whole number that begins at `at`, and where it ends."""
    value = 0
    for shift in range(0, 64, 7):
        byte = content[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a number is longer than 64 bits")
