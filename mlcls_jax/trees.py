"""Leaves of pytrees by path: `backbone/conv1/kernel` for instance."""

from collections.abc import Callable
from typing import Any

import jax


def by_path(tree: Any) -> dict[str, Any]:
    """Return the leaves of a tree by path, in the tree's order."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {_text(path): leaf for path, leaf in leaves}


def map_by_path(function: Callable[[str, Any], Any], tree: Any) -> Any:
    """Return a tree of the same structure with `function(path, leaf)` in place of each leaf."""
    return jax.tree_util.tree_map_with_path(lambda path, leaf: function(_text(path), leaf), tree)


def _text(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")
