"""JSON, YAML and XML of unknown origin: what is malformed or hostile becomes an error by its place.

Parsers of the standard library and of PyYAML let many kinds of exceptions through: RecursionError
for deep nesting, ValueError for numbers of thousands of digits, LookupError for encodings.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, NoReturn
from xml.etree import ElementTree

from mlcls_jax.errors import DataError, UserError
from mlcls_jax.readable import shorten

MAX_YAML = 2**18  # characters: PyYAML is slow, and nobody writes longer ones by hand
# The first line of a CSV file that tells Excel what divides its cells.
EXCEL = re.compile(r"sep=[,;\t|]\r?\n")
_MAX_DEPTH = 32  # of YAML


def parse_json(content: bytes, place: object, kind: type[UserError] = DataError) -> Any:
    """Return the value of a JSON text in UTF-8, with or without a byte order mark.

    Raises:
      kind: it is none; `place`, a path for instance, stands in the message.
    """
    try:
        return json.loads(_decode(content, place, kind))
    except json.JSONDecodeError as error:
        raise kind(
            f"{place}:{error.lineno}: is not JSON: {error.msg} (column {error.colno})",
            "The file may be cut off: fetch it again.",
        ) from error
    except RecursionError as error:
        raise kind(f"{place}: is nested too deeply", "Fetch or write it again.") from error
    except ValueError as error:  # a number of more than 4,300 digits
        raise kind(f"{place}: has a number that cannot be read: {error}") from error
    except MemoryError as error:
        raise kind(f"{place}: does not fit into memory") from error


def parse_yaml(content: bytes, place: object, kind: type[UserError] = DataError) -> Any:
    """Return the value of a short YAML text in UTF-8, of plain types and without aliases.

    Raises:
      kind: it is none, or longer than `MAX_YAML`; `place` stands in the message.
    """
    return _read_yaml(content, place, kind, lambda loader: loader.get_single_data())


def parse_yaml_texts(content: bytes, place: object, kind: type[UserError] = DataError) -> Any:
    """Return what `parse_yaml` does, but every scalar as the text that stands there: no, 007, ~.

    Raises:
      kind: as `parse_yaml`.
    """

    def read(loader: Any) -> Any:
        loader.yaml_implicit_resolvers = {}
        return loader.get_single_data()

    return _read_yaml(content, place, kind, read)


def parse_settings(
    content: bytes, place: object, kind: type[UserError] = DataError
) -> tuple[Any, dict[str, int]]:
    """Return the value of a YAML text as `parse_yaml` does, and the line of each dotted key.

    Scalars are those of YAML 1.2: 1e-4 is a number; 10:15, yes and no are text. None is null, too.

    Raises:
      kind: as `parse_yaml`, or a key is there twice.
    """
    lines: dict[str, int] = {}

    def note(node: Any, prefix: str) -> None:
        for key, value in node.value if node.id == "mapping" else ():
            name, line = f"{prefix}{key.value}", key.start_mark.line + 1
            if name in lines:
                raise kind(f"{place}:{line}: {name}: is in line {lines[name]} already")
            lines[name] = line
            note(value, f"{name}.")

    def read(loader: Any) -> Any:
        loader.yaml_implicit_resolvers = {None: _CORE_SCALARS}
        node = loader.get_single_node()
        if node is None:
            return None
        note(node, "")
        return loader.construct_document(node)

    return _read_yaml(content, place, kind, read), lines


_CORE_SCALARS = [
    ("tag:yaml.org,2002:null", re.compile(r"^(~|null|Null|NULL|None|)$")),
    ("tag:yaml.org,2002:bool", re.compile(r"^(true|True|TRUE|false|False|FALSE)$")),
    ("tag:yaml.org,2002:int", re.compile(r"^[-+]?(0|[1-9][0-9]*)$")),
    (
        "tag:yaml.org,2002:float",
        re.compile(r"^[-+]?((\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|\.inf|\.nan)$", re.I),
    ),
]


def _read_yaml(
    content: bytes, place: object, kind: type[UserError], read: Callable[[Any], Any]
) -> Any:
    """Return what `read` makes of a loader of the text."""
    import yaml

    class Loader(yaml.SafeLoader):
        """Without aliases, which make a short text an endless value."""

        depth = 0

        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                raise kind(f"{place}:{self.get_mark().line + 1}: has an alias", "Write it out.")
            self.depth += 1
            if self.depth > _MAX_DEPTH:
                raise kind(f"{place}: is nested too deeply")
            node = super().compose_node(parent, index)
            self.depth -= 1
            return node

    text = _decode(content, place, kind)
    if len(text) > MAX_YAML:
        raise kind(f"{place}: has {len(text):,} characters, more than {MAX_YAML:,}")
    try:
        return read(Loader(text))
    except UserError:
        raise
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f":{mark.line + 1}" if mark else ""
        raise kind(f"{place}{where}: is not YAML: {shorten(error)}") from error
    # Its constructors let ValueError, IndexError, AttributeError, … of odd values through.
    except Exception as error:
        raise kind(f"{place}: has a value that cannot be read: {shorten(error)}") from error


def parse_xml(
    path: Path | BinaryIO, kind: type[UserError] = DataError, *, place: object = None
) -> ElementTree.Element:
    """Return the root of an XML file without a document type.

    Raises:
      kind: it is none; tells its path, or `place`.
      OSError: it cannot be opened.
    """
    place = place or path

    class NoDoctype(ElementTree.TreeBuilder):
        """Refuses document types, because those define entities, which may grow without bounds."""

        def doctype(self, *_: Any) -> NoReturn:
            raise kind(f"{place}: has a DOCTYPE, which annotations do not need")

    try:
        return ElementTree.parse(path, ElementTree.XMLParser(target=NoDoctype())).getroot()
    except ElementTree.ParseError as error:
        raise kind(f"{place}:{error.position[0]}: is not XML: {error}") from error
    except (LookupError, ValueError) as error:  # an encoding that nobody knows, or of many bytes
        raise kind(f"{place}: is not XML: {shorten(error)}", "Save it as UTF-8.") from error


def _decode(content: bytes, place: object, kind: type[UserError]) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise kind(f"{place}: is not UTF-8: {shorten(error)}", "Save it as UTF-8.") from error
