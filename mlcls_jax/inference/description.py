"""`inference.json`, what a bundle says of itself, checked like a config before use."""

import json
import math
import re
import reprlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeGuard

from mlcls_jax.config import Model as ModelConfig
from mlcls_jax.config import model_from_dict
from mlcls_jax.data.frame import FITS, Frame
from mlcls_jax.errors import ConfigError, WeightsError, raise_faults
from mlcls_jax.models import registry
from mlcls_jax.models.pixels import Pixels

FORMAT = 1
TEMPERATURES = (1e-3, 1e3)  # beyond, float32 scores are all 0, 1 or equal
MAX_SIZE = 2**20  # of anything in the model section: no network is that wide

_HINT = "Export or copy the bundle again: a file that was changed by hand must keep to its format."


@dataclass(frozen=True)
class Description:
    """Validated content of `inference.json`."""

    config: ModelConfig
    labels: tuple[str, ...]
    threshold: float | tuple[float, ...] | None
    temperature: float
    weights_sha256: str | None  # None: written by a version before there were checksums
    facts: dict[str, Any]
    frame: Frame


def preprocess(frame: Frame, pixels: Pixels) -> dict[str, Any]:
    """Preprocessing of images, whose fit is all that may differ."""
    return {
        "resize": frame.size,  # height, width; aspect ratio not kept but for another "fit"
        **frame.describe(),
        "interpolation": "pillow bilinear, antialiased",
        "color": "RGB",
        "scale": 1 / 255,
        "mean": pixels.mean,
        "std": pixels.std,
    }


def parse(content: bytes, path: Path) -> Description:
    """Parse the content of the file at `path`.

    Raises:
      WeightsError: it is damaged, of a newer version, or says what cannot be or cannot be done;
        names every such key.
    """
    try:
        told = json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path}: cannot be read: {error}", _HINT) from error
    if not isinstance(told, dict):
        raise WeightsError(f"{path}: must be a JSON object, not {_short(told)}", _HINT)
    written = told.get("format")
    if _is_whole(written) and written > FORMAT:
        raise WeightsError(
            f"{path}: format={_short(written)}: is of a newer version; this one reads {FORMAT}",
            "Upgrade: pip install --upgrade mlcls_jax",
        )
    config, faults = _model(told.get("model"))
    if not _is_whole(written) or written != FORMAT:
        faults.append(f"format={_short(written)}: must be {FORMAT}")
    faults += _label_faults(told.get("labels"), config)
    labels: list[Any] = told["labels"] if isinstance(told.get("labels"), list) else []
    threshold: Any = told.get("threshold")
    faults += _threshold_faults(threshold, labels, config)
    temperature = _number(told.get("temperature", 1.0))
    low, high = TEMPERATURES
    if temperature is None or not low <= temperature <= high:
        value = _short(told.get("temperature"))
        faults.append(f"temperature={value}: must be a number from {low:g} to {high:g}")
    digest = told.get("weights_sha256")
    if digest is not None and not (
        isinstance(digest, str) and re.fullmatch("[0-9a-f]{64}", digest)
    ):
        faults.append(f"weights_sha256={_short(digest)}: must be 64 hexadecimal digits")
    frame = Frame(config.image_size if config else (1, 1))
    if config is not None:
        frame, more = _frame(told.get("preprocess", {}), config)
        faults += more
    raise_faults(WeightsError, [f"{path}: {fault}" for fault in faults], _HINT)
    assert config is not None and temperature is not None  # or there were faults
    if isinstance(threshold, list):
        threshold = tuple(map(float, threshold))
    else:
        threshold = None if config.task == "single" else float(threshold)
    known = ("weights", "epoch", "step", "metrics", "calibration")
    facts = {key: told[key] for key in known if key in told}
    return Description(config, tuple(labels), threshold, temperature, digest, facts, frame)


def _model(values: Any) -> tuple[ModelConfig | None, list[str]]:
    if not isinstance(values, dict):
        return None, [f"model={_short(values)}: must be an object"]
    faults = [
        f"model.{key}={_short(value)}: is larger than any model"
        for key, value in values.items()
        for number in (value if isinstance(value, list) else [value])
        if isinstance(number, int) and abs(number) > MAX_SIZE
    ]
    if values.get("text_embeddings") is not None:  # its numbers are in the weights
        faults.append(f"model.text_embeddings={_short(values['text_embeddings'])}: must be null")
    if faults:
        return None, faults
    try:
        return replace(model_from_dict(values), weights=None), []
    except ConfigError as error:
        return None, error.message.splitlines()


def _label_faults(labels: Any, config: ModelConfig | None) -> Iterator[str]:
    if not isinstance(labels, list):
        yield f"labels={_short(labels)}: must be a list of texts"
        return
    for index, label in enumerate(labels):
        if not isinstance(label, str) or not label.strip():
            yield f"labels[{index}]={_short(label)}: must be a text that is not empty"
        elif any("\ud800" <= character <= "\udfff" for character in label):
            yield f"labels[{index}]={_short(label)}: is no valid Unicode"
    texts = Counter(label for label in labels if isinstance(label, str))
    for label, count in texts.items():
        if count > 1:
            yield f"labels: {_short(label)} is there {count} times; each needs its own name"
    if config is not None and len(labels) != config.num_classes:
        yield f"labels: there are {len(labels)}, but model.num_classes={config.num_classes}"


def _threshold_faults(value: Any, labels: list[Any], config: ModelConfig | None) -> Iterator[str]:
    if isinstance(value, list):
        if len(value) != len(labels):
            yield f"threshold: there are {len(value)}, but {len(labels)} labels"
        for index, one in enumerate(value):
            if not _is_score(one):
                yield f"threshold[{index}]={_short(one)}: must be a number from 0 to 1"
    elif not _is_score(value) and not (value is None and config and config.task == "single"):
        yield f"threshold={_short(value)}: must be a number from 0 to 1, or one per label"


def _frame(given: Any, config: ModelConfig) -> tuple[Frame, list[str]]:
    """Return how pictures are fitted, and faults of the section "preprocess"."""
    size = config.image_size
    frame = Frame(size)
    if not isinstance(given, dict):
        return frame, [f"preprocess={_short(given)}: must be an object"]
    fit, short = given.get("fit", frame.fit), given.get("resize_short")
    if not isinstance(fit, str) or fit not in FITS:
        return frame, [f"preprocess.fit={_short(fit)}: must be one of {', '.join(FITS)}"]
    if fit == "crop" and not (_is_whole(short) and min(size) <= short <= MAX_SIZE):
        told = f"must be a whole number, at least the image's short side {min(size)}"
        return frame, [f"preprocess.resize_short={_short(short)}: {told}"]
    frame = Frame(size, fit, short if fit == "crop" else None)
    try:
        ours = preprocess(frame, registry.pixels(config.name))
    except ConfigError as error:  # there is no such model
        return frame, [error.message]
    return frame, [*_preprocess_faults(given, {"fit": fit, **ours})]


def _preprocess_faults(given: dict[str, Any], ours: dict[str, Any]) -> Iterator[str]:
    for key, value in given.items():
        if key not in ours:
            yield f"preprocess.{key}={_short(value)}: is not known to this version"
        elif not is_same(value, ours[key]):
            yield (
                f"preprocess.{key}={_short(value)}: this version does nothing but"
                f" {json.dumps(ours[key])}"
            )


def is_same(value: Any, ours: Any) -> bool:
    """Return whether a value from a file is ours: a text, a number, or a list for a tuple."""
    if isinstance(ours, tuple | list):
        is_list = isinstance(value, list) and len(value) == len(ours)
        return is_list and all(map(is_same, value, ours))
    if isinstance(ours, str):
        return value == ours
    number = _number(value)
    return number is not None and math.isclose(number, ours, rel_tol=1e-6)


def _is_score(value: Any) -> bool:
    number = _number(value)
    return number is not None and 0 <= number <= 1


def _is_whole(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _number(value: Any) -> float | None:
    """The value as a finite number, if it is one."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _short(value: Any) -> str:
    return reprlib.repr(value).encode(errors="backslashreplace").decode()
