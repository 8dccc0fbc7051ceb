"""How one option of the schema is written down."""

from dataclasses import field
from typing import Any, Literal


def option(
    default: Any,
    help: str,
    *,
    min: float | None = None,
    max: float | None = None,
    path: Literal["local", "any"] | None = None,
    is_secret: bool = False,
) -> Any:
    """A field with one line of help and, for numbers, the range of its values (ends included).

    `path`: the value is a path, in which `~` and `file://` are written out when it is parsed; of
    this machine, or else (any) its reader may understand other URLs. A secret is left out of the
    `repr`.
    """
    metadata = {"help": help, "min": min, "max": max, "path": path}
    return field(default=default, metadata=metadata, repr=not is_secret)
