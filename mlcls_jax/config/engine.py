"""Turning values into a checked `Config`, and the schema into text.

`default()` gives the schema's tree as a locked `ConfigDict`, which config files fill and
`--config.…` flags override; `parse()` checks it and turns it into a `Config`.
"""

import ast
import dataclasses
import functools
import math
import re
import typing
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import yaml
from ml_collections import ConfigDict, config_dict

from mlcls_jax import errors, paths
from mlcls_jax.config.contradictions import contradictions
from mlcls_jax.config.field import bare_type, base_type, choices_of, is_optional, kind_text
from mlcls_jax.config.schema import Config
from mlcls_jax.config.training_sections import Model
from mlcls_jax.errors import ConfigError


class Fault(NamedTuple):
    """What is wrong with a key or its value."""

    key: str
    text: str  # begins with the key


def default() -> ConfigDict:
    """Return the schema's defaults as a locked `ConfigDict`, for config files to fill."""
    return _to_config_dict(Config).lock()


def parse(values: ConfigDict) -> Config:
    """Return a checked `Config`.

    Raises:
      ConfigError: lists every fault: unknown key (with the nearest right one), wrong type, value
        out of range, impossible combination.
    """
    faults: list[Fault] = []
    config = _parse_section(Config, values.to_dict(), "", faults)
    told = [fault.text for fault in faults] or contradictions(config)
    if told:
        raise ConfigError("\n".join(told), "`mlcls config` lists every key with its range.")
    return config


def changed(values: ConfigDict | Config, settings: Mapping[str, Any]) -> Config:
    """Return a configuration with other values, by their keys.

    Raises:
      ConfigError: a key or value is wrong; tells all of them.
    """
    known = options()
    if unknown := [unknown_key(key) for key in settings if key not in known]:
        raise ConfigError("\n".join(unknown))
    others = default()
    with others.ignore_type():
        others.update_from_flattened_dict({key: at(values, key) for key in known} | dict(settings))
    return parse(others)


def check(given: dict[str, Any]) -> tuple[dict[str, Any], list[Fault]]:
    """Return the values of a part of a configuration by dotted key, and what is wrong with them.

    Combinations are not judged; `parse` does, once the configuration is whole.
    """
    faults: list[Fault] = []
    config = _parse_section(Config, given, "", faults)
    return {key: at(config, key) for key in options() if _has(given, key)}, faults


def options(kind: type = Config, prefix: str = "") -> dict[str, dataclasses.Field]:
    """Return every option by its dotted name, such as `train.epochs`."""
    found = {}
    for f in dataclasses.fields(kind):
        if section := section_of(f):
            found |= options(section, f"{prefix}{f.name}.")
        else:
            found[prefix + f.name] = f
    return found


def nearest(key: str) -> str | None:
    """Return the existing option that `key` was most likely meant to be."""
    names = {known: known.rpartition(".")[2] for known in options()}
    name = key.rpartition(".")[2]
    if same_name := [k for k, n in names.items() if n == name]:
        return errors.nearest(key, same_name, cutoff=0.0)
    if close := errors.nearest(key, names):
        return close
    close = errors.nearest(name, names.values())
    return next((k for k, n in names.items() if n == close), None)


def unknown_key(key: str) -> str:
    """Return the message for a key that the schema does not have."""
    inside = [known for known in options() if known.startswith(f"{key}.")]
    if inside:
        return f"{key}: is a section; it has {', '.join(inside)}"
    suggestion = nearest(key)
    hint = f"did you mean {suggestion}?" if suggestion else "`mlcls config` lists the keys."
    return f"{key}: there is no such key; {hint}"


def kind_of(key: str) -> str:
    """Return in words what an option's value must be: `int, at least 1`."""
    return kind_text(options()[key])


def matching(text: str) -> list[str]:
    """Return the option of this name, those of this section, or else those that contain the text.

    Raises:
      ConfigError: there are none.
    """
    known = options()
    found = [key for key in known if key == text or key.startswith(f"{text}.")]
    found = found or [
        key for key, f in known.items() if text.lower() in f"{key} {f.metadata['help']}".lower()
    ]
    if not found:
        raise ConfigError(unknown_key(text))
    return found


def describe(keys: Collection[str] | None = None, values: Any = None) -> str:
    """Return the schema as text: key, type, default, range and help, one paragraph per section.

    Args:
      keys: the options to describe; None: all.
      values: a configuration whose values are shown, with the defaults where they differ.
    """
    rows, previous = [], ""
    for key, f in options().items():
        if keys is not None and key not in keys:
            continue
        name = key.rpartition(".")[0]
        if name != previous:
            rows.append("")
            previous = name
        value = f.default if values is None else at(values, key)
        default = "" if value == f.default else f"; default: {f.default}"
        rows.append(
            f"  --config.{key}={value}  ({kind_text(f)}{default})\n      {f.metadata['help']}"
        )
    return "\n".join(rows)


def value_of(key: str, text: str) -> Any:
    """Return what the text of a flag means as a value of this option; `parse` checks it."""
    if base_type(options()[key]) is str and text != "None":
        return text
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def at(values: Any, key: str) -> Any:
    """Return the value of an option in a configuration, or in a `ConfigDict` of one."""
    return functools.reduce(getattr, key.split("."), values)


def _has(given: Any, key: str) -> bool:
    first, _, rest = key.partition(".")
    return isinstance(given, dict) and first in given and (not rest or _has(given[first], rest))


def to_dict(config: Any) -> dict[str, Any]:
    """Return plain nested dicts, lists and scalars, ready for JSON or YAML."""
    return {
        f.name: to_dict(value) if dataclasses.is_dataclass(value) else _plain(value)
        for f in dataclasses.fields(config)
        for value in [getattr(config, f.name)]
    }


def flattened(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the values of nested dicts by dotted name, such as `train.epochs`."""
    flat = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flattened(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def to_yaml(config: Config) -> str:
    """Return the configuration as YAML, in the order of the schema."""
    return yaml.dump(to_dict(config), Dumper=_Dumper, sort_keys=False, allow_unicode=True)


class _Dumper(yaml.SafeDumper):
    """Also quotes text that YAML 1.2 takes for a number, or our reader for null."""


_Dumper.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^(None|[-+]?(\.\d+|\d+(\.\d*)?)[eE][-+]?\d+)$"),
    list("N-+.0123456789"),
)


def model_from_dict(values: dict[str, Any]) -> Model:
    """Return the `Model` section from plain values, as stored in a bundle.

    Raises:
      ConfigError: like `parse`.
    """
    faults: list[Fault] = []
    model = _parse_section(Model, dict(values), "model.", faults)
    if faults:
        raise ConfigError("\n".join(fault.text for fault in faults))
    return model


def section_of(f: dataclasses.Field) -> type | None:
    """Return the class of a field that holds a section, None of one that holds an option."""
    return f.type if isinstance(f.type, type) and dataclasses.is_dataclass(f.type) else None


def _to_config_dict(kind: type) -> ConfigDict:
    values = ConfigDict()
    for f in dataclasses.fields(kind):
        if section := section_of(f):
            values[f.name] = _to_config_dict(section)
        elif f.default is None:  # a plain None could not be overridden by a flag
            values[f.name] = config_dict.placeholder(base_type(f))
        else:
            values[f.name] = f.default
    return values


def _parse_section(kind: type, values: dict[str, Any], prefix: str, faults: list[Fault]) -> Any:
    fields = {f.name: f for f in dataclasses.fields(kind)}
    unknown = [f"{prefix}{name}" for name in values if name not in fields]
    faults += [Fault(key, unknown_key(key)) for key in unknown]
    parsed = {}
    for name, f in fields.items():
        if name not in values:
            continue
        section = section_of(f)
        if section and isinstance(values[name], dict):
            parsed[name] = _parse_section(section, values[name], f"{prefix}{name}.", faults)
        elif section:
            faults.append(Fault(prefix + name, unknown_key(prefix + name)))
        else:
            value, fault = _parse_value(f, values[name])
            parsed[name] = value
            if fault:
                key = prefix + name
                faults.append(Fault(key, f"{key}={values[name]!r}: {fault}"))
    return kind(**parsed)


def _parse_value(f: dataclasses.Field, value: Any) -> tuple[Any, str | None]:
    """Return the value in the field's type, and what is wrong with it (None: nothing)."""
    if value is None:
        return None, None if is_optional(f) else f"must be {kind_text(f)}"
    base, choices = base_type(f), choices_of(f)
    if base is tuple:
        value = tuple(value) if isinstance(value, (tuple, list)) else (value,)
        item = typing.get_args(bare_type(f))[0]
        if item is float:
            value = tuple(float(v) if type(v) is int else v for v in value)
        if not all(isinstance(v, item) and not isinstance(v, bool) for v in value):
            return value, f"must be {kind_text(f)}"
        if len(value) == 1 and item is str and re.fullmatch(r"\w+(,\w+)+", value[0]):
            value = tuple(value[0].split(","))  # names given as one flag: a,b,c
        if typing.get_args(bare_type(f))[-1] is not Ellipsis:  # (height, width)
            if len(value) not in (1, 2):
                return value, "must be one number or (height, width)"
            value = (value[0], value[-1])
    elif base is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    elif not isinstance(value, base) or (isinstance(value, bool) and base is not bool):
        return value, f"must be {kind_text(f)}"
    if f.metadata["path"]:
        value = paths.expand(str(value))
        if fault := paths.why_not(f.metadata["path"], value):
            return value, fault
    if choices and value not in choices:
        close = errors.nearest(str(value), choices)
        hint = f"; did you mean {close}?" if close else ""
        return value, f"must be one of {', '.join(choices)}{hint}"
    low, high = f.metadata["min"], f.metadata["max"]
    for number in value if isinstance(value, tuple) else (value,):
        if (low is not None and not number >= low) or (high is not None and not number <= high):
            return value, f"must be {kind_text(f)}"
        if isinstance(number, float) and not math.isfinite(number):
            return value, "must be finite"
    return value, None


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
