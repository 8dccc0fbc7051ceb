"""Leave tests to the slow tier, which `pytest -m slow` runs and `.ci/run` after the fast one."""

import importlib
import os
from types import ModuleType
from typing import Any

import pytest


def slow(*values: Any, **options: Any) -> Any:
    """Return one case of a parametrized test that belongs to the slow tier."""
    return pytest.param(*values, marks=pytest.mark.slow, **options)


def need(module: str) -> ModuleType:
    """Import a module of requirements-full.txt, or skip the test that asks for it.

    Where MLCLS_REQUIRE_FULL is set, as in CI, a missing one fails the test.
    """
    if os.environ.get("MLCLS_REQUIRE_FULL"):
        return importlib.import_module(module)
    return pytest.importorskip(module)
