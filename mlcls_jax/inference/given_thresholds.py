"""Thresholds as users give them: one number, one per label, or numbers by label."""

import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mlcls_jax.errors import InputError, nearest

MAX_COMPARED = 1000  # labels that a misspelt one is compared with: more would take long

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 80

# What a user may give: a number for all labels, one per label in their order, or numbers by label.
Threshold = float | Sequence[float] | Mapping[str | int, float]


def limits(
    value: Threshold, class_ids: Mapping[str, int], own: float | np.ndarray
) -> float | np.ndarray:
    """Return one number, or float32 [K] in the order of `class_ids`.

    Labels that a mapping does not name have its "default", or else their `own` threshold.

    Raises:
      InputError: it is of no known kind, does not fit the labels, or is no number in 0…1.
    """
    count = len(class_ids)
    if isinstance(value, Mapping):
        if len(value) > count + 1:
            raise InputError(
                f"threshold has {len(value)} entries, but the model has {count} labels"
            )
        found = np.full(count, _number(value["default"]) if "default" in value else own, np.float32)
        for key, limit in value.items():
            if key != "default":
                found[_class_id(key, class_ids)] = _number(limit)
        return found
    if isinstance(value, (list, tuple, np.ndarray)):
        if len(value) != count:
            raise InputError(
                f"threshold has {len(value)} numbers, but the model has {count} labels"
            )
        return np.array([_number(limit) for limit in value], np.float32)
    return _number(value)


def _class_id(key: str | int, class_ids: Mapping[str, int]) -> int:
    number = key if isinstance(key, (int, np.integer)) and not isinstance(key, bool) else -1
    if isinstance(key, str):
        if key in class_ids:
            return class_ids[key]
        # int() is slow, or fails, for what has thousands of digits.
        number = int(key) if key.isdecimal() and len(key) <= 9 else -1
    if 0 <= number < len(class_ids):
        return int(number)
    text = _shown(key)
    close = nearest(text.strip("'\""), [*class_ids][:MAX_COMPARED])
    raise InputError(
        f"threshold has the key {text}, which is no class id below {len(class_ids)}, no label"
        " and not default" + (f"; did you mean {close!r}?" if close else "")
    )


def _shown(value: Any) -> str:
    """Return a short `repr`: it may be whatever somebody has sent to a server."""
    return _SHORT.repr(value)


def _number(value: Any) -> float:
    is_number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    if not is_number or not 0 <= value <= 1:
        raise InputError(
            f"threshold is {_shown(value)}; it must be a number from 0 to 1, one per label, or a"
            " dict of them by class id or label"
        )
    return float(value)
