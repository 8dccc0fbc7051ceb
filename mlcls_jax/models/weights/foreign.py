"""Fills a model from foreign or own weights and reports what fitted."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from mlcls_jax.errors import WeightsError
from mlcls_jax.files import regular
from mlcls_jax.models.network import Model, Network, flatten, unflatten
from mlcls_jax.models.registry import find_variant
from mlcls_jax.models.weight_names import Foreign, NameTable, to_ours
from mlcls_jax.models.weights.fetch import HUB_FILES
from mlcls_jax.models.weights.onnx_file import read_onnx
from mlcls_jax.models.weights.paddle_inference import (
    by_structured_names,
    has_static_names,
    is_inference_folder,
    read_inference_folder,
)
from mlcls_jax.models.weights.pickles import STREAM, read_pdparams, read_pth
from mlcls_jax.models.weights.sources import name_for, weight_file

# What others keep beside weights and anyone can compute: counters, and of windows who meets whom.
COMPUTED = (
    "num_batches_tracked",
    "relative_position_index",
    "relative_coords_table",
    "attn_mask",
)
SHOWN = 5  # names in a message
MAX_HEADER = 10_000_000  # bytes of a safetensors file's: 100,000 tensors; it takes 15 times as much


@dataclass(frozen=True)
class LoadReport:
    """Report on every tensor of a loaded file."""

    origin: str  # "paddle", "timm", …, or "mlcls_jax"
    loaded: tuple[str, ...]  # our paths
    initial: tuple[str, ...]  # our paths that kept their initial value
    reshaped: tuple[str, ...]  # of those, the ones present in the source with another shape
    ignored: tuple[str, ...]  # foreign keys without a place in the model
    resampled: tuple[str, ...] = ()  # of those loaded, position embeddings of another grid; kept

    def __str__(self) -> str:
        lines = [f"{len(self.loaded)} tensors loaded ({self.origin} names)"]
        if self.resampled:
            lines.append(f"of another grid, resampled to the images': {_some(self.resampled)}")
        if self.initial:
            lines.append(f"{len(self.initial)} kept their initial value: {_some(self.initial)}")
        if self.reshaped:
            lines.append(f"of those, with another shape in the source: {_some(self.reshaped)}")
        if self.ignored:
            lines.append(f"{len(self.ignored)} of the source not used: {_some(self.ignored)}")
        return "; ".join(lines)


def load(
    model: Model,
    source: str | Path | Mapping[str, np.ndarray],
    *,
    strict: bool = True,
) -> LoadReport:
    """Replace the model's variables by those of `source`, where they fit.

    Args:
      model: the model to fill; it is left alone if anything is wrong.
      source: a file (`.pdparams` of Paddle, `.pth` or `.safetensors` in the names of timm, OpenAI's
        or Hugging Face's CLIP, or our own; `.onnx` of Paddle or PyTorch), its URL or
        `hf://owner/name`, a folder with `weights.safetensors` or Paddle's `inference.pdiparams`,
        a word such as `official` or `backbone` (`mlcls weights` lists them), or a mapping from such
        names to arrays.
      strict: fail if any tensor outside the head is missing or of another shape.

    Raises:
      WeightsError: unreadable, nothing fits, or (strict) the backbone is incomplete.
    """
    if isinstance(source, Mapping):
        return fill(model, source, "the given mapping", strict=strict)
    config = model.network.config
    path = weight_file(source, config.name)
    report = fill(model, read_weights(path), str(source), strict=strict)
    if (name := name_for(config.name, str(source))) != config.name:
        network = Network.of(replace(model.network.config, name=name))
        model.replace(network, model.variables)
    return report


def fill(
    model: Model, arrays: Mapping[str, np.ndarray], where: str, *, strict: bool = True
) -> LoadReport:
    """Like `load`, from arrays by their names; errors call them `where`."""
    network, current = model.network, flatten(model.variables)
    arrays = _structured(network, arrays)
    origin, table = _matching_table(arrays, network.foreign_names)
    _check_types(arrays, table, where)
    grid, resampled = _grid_of(arrays, table, flatten(network.abstract))
    if grid is not None:
        network = Network.of(replace(network.config, position_grid=grid))
    loaded, initial, reshaped = {}, [], []
    for path, value in flatten(network.abstract).items():
        array = _take(table[path], arrays, value.shape)
        if array is None:
            initial.append(path)
        elif array.shape == value.shape:
            loaded[path] = jnp.asarray(array, value.dtype)
            if table[path].layout == "biases":
                given = np.shape(arrays[table[path].keys[0]])
                if given[-2] != value.shape[-2]:
                    resampled.append(f"{path} {given}, here {value.shape}")
        else:
            initial.append(path)
            reshaped.append(f"{path} {array.shape}, here {value.shape}")
    used = {key for foreign in table.values() for key in foreign.keys}
    ignored = [key for key in arrays if key not in used and not key.endswith(COMPUTED)]
    report = LoadReport(origin, *map(tuple, (loaded, initial, reshaped, ignored, resampled)))
    _check(report, arrays, table, where, strict=strict)
    has_decoder = network.has_evidence and any(path.startswith("head/") for path in loaded)
    adapt = find_variant(network.config.name)[0].adapt
    config = adapt(network.config, origin, has_decoder=has_decoder)
    if config != network.config:
        network = Network.of(config)
    model.replace(network, unflatten(current | loaded, model.variables))
    return report


def gather(
    arrays: Mapping[str, np.ndarray], table: NameTable, shapes: Mapping[str, Any], where: str
) -> dict[str, np.ndarray]:
    """Return by our paths, in float32, all that a module of these shapes needs.

    Raises:
      WeightsError: an array is missing or does not fit.
    """
    _check_types(arrays, table, where)
    found, faults = {}, []
    for path, value in shapes.items():
        array = _take(table[path], arrays, value.shape)
        if array is None or array.shape != value.shape:
            given = "is missing" if array is None else f"is {array.shape}, must be {value.shape}"
            faults.append(f"{', '.join(table[path].keys)} {given}")
        else:
            found[path] = np.asarray(array, np.float32)
    if faults:
        raise WeightsError(f"{where}: {_some(faults)}", "Fetch the file again.")
    return found


def _grid_of(
    arrays: Mapping[str, np.ndarray], table: NameTable, shapes: Mapping[str, Any]
) -> tuple[int | None, list[str]]:
    """Return the side of another grid of patches that position embeddings are for, and which."""
    for path, foreign in table.items():
        if foreign.layout != "positions" or foreign.keys[0] not in arrays:
            continue
        given, ours = np.shape(arrays[foreign.keys[0]]), shapes[path].shape
        others = ours[1] - math.isqrt(ours[1]) ** 2  # a class token, or none
        side = math.isqrt(max(given[-2] - others, 0)) if len(given) in (2, 3) else 0
        is_fit = (1, side**2 + others, ours[2]) == (*(1,) * (3 - len(given)), *given)
        if is_fit and side and given[-2] != ours[1]:
            return side, [f"{path} {given}, here {ours}"]
    return None, []


def count_classes(network: Network, arrays: Mapping[str, np.ndarray]) -> int | None:
    """Return the number of labels of the classifier among the arrays; None without one.

    `network` is the architecture, with any number of labels.
    """
    arrays = _structured(network, arrays)
    _, table = _matching_table(arrays, network.foreign_names)
    for key in table[f"head/{network.outline.head.label_bias}"].keys:
        if key in arrays and np.ndim(arrays[key]) == 1:
            return len(arrays[key])
    return None


def _structured(network: Network, arrays: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
    """Return the arrays by the names that layers have, where only their numbers are known."""
    if not has_static_names(arrays):
        return arrays
    shapes = {path: array.shape for path, array in flatten(network.abstract).items()}
    return by_structured_names(arrays, network.foreign_names["paddle"], shapes)


def _take(
    foreign: Foreign, arrays: Mapping[str, np.ndarray], shape: tuple[int, ...]
) -> np.ndarray | None:
    """The tensor in our layout; None if the source lacks it."""
    if foreign.key is None:  # the origin has it built in
        return np.full(shape, foreign.constant, np.float32)
    if not all(key in arrays for key in foreign.keys):
        return None
    parts = [np.asarray(arrays[key]) for key in foreign.keys]
    joined = parts[0]
    if len({part.shape for part in parts[1:]} | {joined.shape}) == 1 and joined.ndim:
        joined = np.concatenate(parts)
    return to_ours(joined, foreign.layout, shape)


def read_weights(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a weight file by their own names.

    Raises:
      WeightsError: missing, damaged, or of an unknown kind.
    """
    if path.is_dir():
        if is_inference_folder(path):
            return read_inference_folder(path)
        here = (path / name for name in ("weights.safetensors", *HUB_FILES))
        path = next((file for file in here if file.exists()), path / "weights.safetensors")
    if not path.exists():
        raise WeightsError(
            f"{path}: there is no such file", "Check the path; a relative one starts here."
        )
    return _reader(path)(path)


def _reader(path: Path) -> Callable[[Path], dict[str, np.ndarray]]:
    """Return what reads a weight file: by its content, as files get other names on their way."""
    with regular(path).open("rb") as file:
        start = file.read(64)
    if start.startswith(b"version https://git-lfs"):
        raise WeightsError(
            f"{path}: is a pointer of Git LFS, not the weights", "Run `git lfs pull` there."
        )
    if start[8:9] == b"{":  # after the length of its header
        return _read_safetensors
    if start.startswith((b"PK\x03\x04", STREAM[:4])):  # PyTorch's, the new and the old
        return read_pth
    if start.startswith(b"\x80"):  # another pickle
        return read_pdparams
    if (known := READERS.get(path.suffix)) is None:
        raise WeightsError(
            f"{path}: unknown kind of weight file {path.suffix!r}",
            "Weights come as .pdparams, .pth, .safetensors, .onnx, a run's best_model folder or an"
            " inference folder of Paddle.",
        )
    return known


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        with regular(path).open("rb") as file:
            header = int.from_bytes(file.read(8), "little")
        if header > MAX_HEADER:
            raise ValueError(f"its header has {header:,} bytes, more than {MAX_HEADER:,}")
        return load_file(path)
    except (AttributeError, TypeError) as error:  # NumPy lacks the type of its numbers
        raise WeightsError(
            f"{path}: holds numbers of a type that cannot be read here: {error}",
            "Save it as float32, float16 or bfloat16.",
        ) from error
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(f"{path}: not a safetensors file, or damaged: {error}") from error


READERS = {
    ".pdparams": read_pdparams,
    **dict.fromkeys((".pth", ".pt", ".bin"), read_pth),
    ".safetensors": _read_safetensors,
    ".onnx": read_onnx,
}
SUFFIXES = tuple(READERS)


def _check_types(arrays: Mapping[str, np.ndarray], table: NameTable, where: str) -> None:
    """Everything in a model is a floating number: others would be converted without a word."""
    used = (key for foreign in table.values() for key in foreign.keys if key in arrays)
    types = {key: np.asarray(arrays[key]).dtype for key in used}
    wrong = [f"{k} is {t}" for k, t in types.items() if not jnp.issubdtype(t, jnp.floating)]
    if wrong:
        raise WeightsError(
            f"{where}: weights are floating numbers, but {_some(wrong)}",
            "Weights of a quantised model cannot be loaded: take those it was made from.",
        )


def _matching_table(
    arrays: Mapping[str, np.ndarray], foreign: dict[str, NameTable]
) -> tuple[str, NameTable]:
    """The name table under which most of the arrays are known."""
    some = next(iter(foreign.values()))
    kept = {"positions"}  # the one layout that own files may have in another size
    own = {
        path: Foreign(path, f.layout if f.layout in kept else "same") for path, f in some.items()
    }
    tables = foreign | {"mlcls_jax": own}
    hits = {
        origin: sum(key in arrays for f in table.values() for key in f.keys)
        for origin, table in tables.items()
    }
    origin = max(hits, key=hits.__getitem__)
    return origin, tables[origin]


def _check(
    report: LoadReport,
    arrays: Mapping[str, np.ndarray],
    table: NameTable,
    where: str,
    *,
    strict: bool,
) -> None:
    if not any(key in arrays for path in report.loaded for key in table[path].keys):
        raise WeightsError(
            f"{where}: nothing fits this model; the source has {_some(report.ignored)}",
            "Check that model.name is the architecture of these weights.",
        )
    lacking = [path for path in report.initial if not path.startswith("head/")]
    if strict and lacking:
        wrong = [line for line in report.reshaped if not line.startswith("head/")]
        raise WeightsError(
            f"{where}: {len(lacking)} tensors of the backbone are missing or have another shape: "
            + _some(wrong + [path for path in lacking if not any(path in w for w in wrong)]),
            "Check model.name and its options, or set model.weights_strict=false.",
        )


def _some(names: Sequence[str]) -> str:
    """The first of them, as messages may show what a file says."""
    shown = (n if len(n) <= 200 and n.isprintable() else ascii(n[:200]) for n in names[:SHOWN])
    rest = len(names) - SHOWN
    return ", ".join(shown) + (f" and {rest} more" if rest > 0 else "")
