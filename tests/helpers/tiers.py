"""Leave tests to the slow tier, which `pytest -m slow` runs and `.ci/run` after the fast one."""

import importlib
import itertools
import os
from collections.abc import Sequence
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


def pairs(*axes: Sequence[Any]) -> list[Any]:
    """Return all combinations; slow are those beyond what shows each pair of two axes' values."""
    cases = list(itertools.product(*(range(len(axis)) for axis in axes)))

    def shown(case: tuple[int, ...]) -> set[tuple[tuple[int, int], ...]]:
        return set(itertools.combinations(enumerate(case), 2))

    missing, fast = set().union(*map(shown, cases)), set()
    while missing:
        best = max(cases, key=lambda case: len(shown(case) & missing))
        missing -= shown(best)
        fast.add(best)
    return [
        pytest.param(
            *(axis[i] for axis, i in zip(axes, case, strict=True)),
            marks=[] if case in fast else pytest.mark.slow,
        )
        for case in cases
    ]
