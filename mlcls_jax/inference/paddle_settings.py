"""`inference.yml` beside an exported model of PaddleX: its name, image size, labels, threshold."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from mlcls_jax.data.frame import Frame
from mlcls_jax.errors import WeightsError, raise_faults
from mlcls_jax.files import regular
from mlcls_jax.imagenet import MEAN, STD
from mlcls_jax.inference.description import is_same
from mlcls_jax.parsing import parse_yaml, shorten

SETTINGS = "inference.yml"
# What changes nothing here: images are decoded as RGB, and laid out as the network takes them.
_LAYOUT = ("DecodeImage", "ToCHWImage", "KeepKeys")


@dataclass(frozen=True)
class Settings:
    """What the file says; None where it says nothing."""

    model_name: str | None = None
    frame: Frame | None = None
    labels: tuple[str, ...] | None = None
    threshold: float | None = None


def read_settings(folder: Path) -> Settings:
    """Return the settings of an inference folder; nothing if it has no such file.

    Raises:
      WeightsError: the file is malformed, or asks for what is not done here; names every such key.
    """
    path = folder / SETTINGS
    if not path.exists():
        return Settings()
    content = parse_yaml(regular(path).read_bytes(), path, WeightsError)
    if not isinstance(content, dict):
        raise WeightsError(f"{path}: must be a mapping, not {shorten(repr(content))}")
    frame, faults = _preprocessing(_section(content, "PreProcess").get("transform_ops") or [])
    labels, threshold, more = _postprocessing(_section(content, "PostProcess"))
    name = _section(content, "Global").get("model_name")
    raise_faults(
        WeightsError,
        [f"{path}: {fault}" for fault in (*faults, *more)],
        "To do without these settings give the folder as weights, with model_name and labels:"
        " images are then squeezed to the model's size, whole.",
    )
    return Settings(_our_name(name) if isinstance(name, str) else None, frame, labels, threshold)


def _section(content: dict[str, Any], key: str) -> dict[str, Any]:
    section = content.get(key)
    return section if isinstance(section, dict) else {}


def _our_name(name: str) -> str:
    """Return our name of a model that PaddleClas calls PPLCNet_x1_0 or PPHGNetV2_B4."""
    name = re.sub(r"^PPLCNet_", "PP-LCNet_", name)
    return re.sub(r"^PPHGNetV2_", "PP-HGNetV2-", name)


def _preprocessing(operations: Any) -> tuple[Frame | None, list[str]]:
    size, faults = None, []
    short = cut = None  # of a resize of the shorter side and a crop of the middle
    for name, options in _named(operations):
        place, given = f"PreProcess.{name}", shorten(repr(options))
        if name == "ResizeImage":
            short, size = options.get("resize_short"), _size(options.get("size"))
            if not (_is_side(short) or (short is None and size)):
                faults.append(f"{place}={given}: must have a size or resize_short, in pixels")
            elif options.get("interpolation") not in (None, "bilinear", "LINEAR"):
                faults.append(f"{place}.interpolation={options['interpolation']}: must be bilinear")
        elif name == "CropImage":
            cut = _size(options.get("size"))
            if cut is None or not _is_side(short) or short < min(cut):
                told = "must have a size, and follow a ResizeImage with resize_short of as much"
                faults.append(f"{place}={given}: {told}")
        elif name == "NormalizeImage":
            faults += (f"{place}.{fault}" for fault in _normalisation(options))
        elif name not in _LAYOUT:
            faults.append(f"{place}: is not done here")
    if short is not None and cut is None and not faults:
        faults.append("PreProcess.ResizeImage: after resize_short there must be a CropImage")
    if faults or cut:
        return (None if faults or not cut else Frame(cut, "crop", short)), faults
    return (Frame(size) if size else None), faults


def _named(operations: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield name and options of each entry of a list of mappings with one key."""
    for operation in operations if isinstance(operations, list) else [operations]:
        entries = operation.items() if isinstance(operation, dict) else [(operation, None)]
        for name, options in entries:
            yield str(name), options if isinstance(options, dict) else {}


def _size(value: Any) -> tuple[int, int] | None:
    """Return height and width of what Paddle gives as one side, or as width and height."""
    sides = value if isinstance(value, list) else [value, value]
    if len(sides) != 2 or not all(map(_is_side, sides)):
        return None
    width, height = sides
    return height, width


def _is_side(value: Any) -> TypeGuard[int]:
    return type(value) is int and value > 0


def _normalisation(options: dict[str, Any]) -> Iterator[str]:
    for key, ours in (("mean", MEAN), ("std", STD), ("scale", (1 / 255,))):
        value = options.get(key)
        given = value if isinstance(value, list) else [value]
        try:
            numbers = [_number(one) for one in given]
        except (ValueError, ZeroDivisionError):
            numbers = []
        if value is not None and not is_same(numbers, ours):
            shown = ours if len(ours) > 1 else "1/255"
            yield f"{key}={shorten(repr(value))}: the networks here are given pixels with {shown}"


def _number(value: Any) -> float:
    """Return a number that may be written as a fraction: `1./255.`, which Paddle evaluates."""
    above, _, below = str(value).partition("/")
    return float(above) / float(below or 1)


def _postprocessing(
    section: dict[str, Any],
) -> tuple[tuple[str, ...] | None, float | None, list[str]]:
    """Return labels, threshold and faults of the only operation with labels, if there is one."""
    operations = {name: one for name, one in section.items() if isinstance(one, dict)}
    found = (n for n, one in operations.items() if one.get("label_list") is not None)
    options = operations.get(name := next(found, ""), {})
    labels, threshold = options.get("label_list"), options.get("threshold")
    if labels is None:
        return None, None, []
    if not isinstance(labels, list):
        given = shorten(repr(labels))
        return None, None, [f"PostProcess.{name}.label_list={given}: must be a list"]
    faults = []
    if threshold is not None and not (isinstance(threshold, int | float) and 0 <= threshold <= 1):
        given = shorten(repr(threshold))
        faults.append(f"PostProcess.{name}.threshold={given}: must be a number from 0 to 1")
    return tuple(map(str, labels)), threshold, faults
