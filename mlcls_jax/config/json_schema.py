"""The configuration as a JSON Schema, by which editors complete and check YAML."""

import dataclasses
import typing
from typing import Any

from mlcls_jax.config.engine import section_of
from mlcls_jax.config.field import bare_type, base_type, choices_of, is_optional
from mlcls_jax.config.schema import Config

_TYPES = {str: "string", int: "integer", float: "number", bool: "boolean"}


def json_schema(kind: type = Config) -> dict[str, Any]:
    """Return the schema of a section, or of the whole configuration, as plain values."""
    properties = {}
    for f in dataclasses.fields(kind):
        section = section_of(f)
        properties[f.name] = json_schema(section) if section else _of_option(f)
    return {
        "type": "object",
        "description": (kind.__doc__ or "").splitlines()[0],
        "properties": properties,
        "additionalProperties": False,
    }


def _of_option(f: dataclasses.Field) -> dict[str, Any]:
    default = list(f.default) if isinstance(f.default, tuple) else f.default
    told = {"description": f.metadata["help"], "default": default}
    if choices := choices_of(f):
        return {"enum": [*choices, *[None] * is_optional(f)], **told}
    if base_type(f) is not tuple:
        value = _of_value(f, base_type(f))
        if is_optional(f):
            value["type"] = [value["type"], "null"]
        return {**value, **told}
    item, last = typing.get_args(bare_type(f))[:2]
    several: dict[str, Any] = {"type": "array", "items": _of_value(f, item)}
    if last is not Ellipsis:  # height and width
        several |= {"minItems": 1, "maxItems": 2}
    forms = [several, _of_value(f, item)]  # one value need not stand in brackets
    return {"anyOf": [*forms, *[{"type": "null"}] * is_optional(f)], **told}


def _of_value(f: dataclasses.Field, kind: type) -> dict[str, Any]:
    limits = {
        "minimum": f.metadata["min"],
        "maximum": f.metadata["max"],
        "minLength": 1 if f.metadata["path"] else None,
    }
    return {"type": _TYPES[kind], **{k: v for k, v in limits.items() if v is not None}}
