"""Imports that wait until something is used: by dotted name, or of optional libraries."""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mlcls_jax.errors import UserError, install_hint


def load(dotted: str) -> Any:
    """Import the object with this dotted name, `package.module.function` for instance."""
    module, _, name = dotted.rpartition(".")
    return getattr(importlib.import_module(module), name)


@contextmanager
def optional(
    purpose: str, *, extra: str = "", hint: str = "", kind: type[UserError] = UserError
) -> Iterator[None]:
    """Turn an import that fails in the block into an error that says how to install the library.

    Args:
      purpose: what needs which library, the beginning of the message.
      extra: the extra of pyproject.toml that has the library.
      hint: what to do instead, for libraries that are in no extra.
      kind: the error that is raised.
    """
    try:
        yield
    except ImportError as error:
        raise kind(f"{purpose}: {error}", hint or install_hint(extra)) from error
