"""What the program's own text says of an option: who reads it, and with what it must agree."""

import ast
import dataclasses
import functools
import re
from collections.abc import Iterator
from pathlib import Path

import mlcls_jax
from mlcls_jax import recipes
from mlcls_jax.config import Config, contradictions, section_of

_ROOT = Path(mlcls_jax.__file__).parent
_NOT_READERS = ("config", "recipes")


def recipe_values(key: str, usual: object) -> dict[str, list[str]]:
    """Return the values that recipes give an option, other than the usual one, and their names."""
    found: dict[str, list[str]] = {}
    for name in recipes.names():
        value = functools.reduce(getattr, key.split("."), recipes.load(name))
        if value != usual:
            found.setdefault(str(value), []).append(name)
    return found


def agreements(key: str) -> list[str]:
    """Return the messages about contradictions with other options; … stands for their values."""
    section, _, name = key.rpartition(".")
    found = []
    for node in ast.walk(ast.parse(Path(contradictions.__file__).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Yield) and node.value:
            text = _template(node.value)
            is_named = re.search(rf"(?<![\w.]){re.escape(key)}\b", text)
            of_section = section and text.startswith(f"{section}: ")
            names = [f.name for f in dataclasses.fields(_section(section))] if of_section else []
            is_meant = of_section and (name in text or not any(other in text for other in names))
            if is_named or is_meant:
                found.append(text)
    return found


def readers(key: str) -> list[str]:
    """Return `FILE:LINE,LINE` of each file in the package that reads the option."""
    found, (section, _, name) = [], key.rpartition(".")
    for path in sorted(_ROOT.rglob("*.py")):
        text, place = path.read_text(encoding="utf-8"), path.relative_to(_ROOT)
        if place.parts[0] in _NOT_READERS or not re.search(rf"\b{name}\b", text):
            continue
        tree = ast.parse(text)
        owners = {section.rpartition(".")[2] or "config", *_variables(tree, section)}
        nodes = [*ast.walk(tree)]
        lines = {
            node.lineno
            for node in nodes
            if isinstance(node, ast.Attribute)
            and node.attr == name
            and _last_name(node.value) in owners
        }
        if any(_reads_by_name(node, owners) for node in nodes):
            lines |= {n.lineno for n in nodes if isinstance(n, ast.Constant) and n.value == name}
        if lines:
            found.append(f"{place}:{','.join(map(str, sorted(lines)))}")
    return found


def _reads_by_name(node: ast.AST, owners: set[str]) -> bool:
    """Return whether it is `getattr(config, key)` with a name that is a text elsewhere."""
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "getattr"
        and _last_name(node.args[0]) in owners
    )


def _template(node: ast.AST) -> str:
    """Return the text that an expression makes, with … for what is not written there."""
    if isinstance(node, ast.JoinedStr):
        return "".join(map(_template, node.values))
    if isinstance(node, ast.BinOp):
        return _template(node.left) + _template(node.right)
    return str(node.value) if isinstance(node, ast.Constant) else "…"


def _section(name: str) -> type:
    kind: type = Config
    for part in filter(None, name.split(".")):
        kind = section_of(kind.__dataclass_fields__[part])  # pyright: ignore
    return kind


def _variables(tree: ast.AST, section: str) -> Iterator[str]:
    """Yield the names of arguments, fields and variables that hold the section."""
    kind = _section(section).__name__
    for node in ast.walk(tree):
        if isinstance(node, ast.arg | ast.AnnAssign) and node.annotation:
            kinds = re.findall(r"\w+", ast.unparse(node.annotation))
            if kind in kinds:
                yield node.arg if isinstance(node, ast.arg) else _last_name(node.target)
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                pairs = [(target, node.value)]
                if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                    pairs = list(zip(target.elts, node.value.elts, strict=False))
                for left, right in pairs:  # of `a, b = config.train, config.model`
                    if getattr(right, "attr", None) == section.rpartition(".")[2]:
                        yield _last_name(left)


def _last_name(node: ast.AST) -> str:
    """Return `train` of `train` and of `config.train`."""
    return getattr(node, "id", "") or getattr(node, "attr", "")
