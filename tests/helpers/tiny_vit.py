"""Vision transformers so small that tests can afford them, of the options of a family."""

from dataclasses import replace

import pytest

from mlcls_jax.models import registry

SIZES = {"width": 32, "hidden": 128, "depth": 2, "num_heads": 2, "grid": 2}


def register(patch: pytest.MonkeyPatch, family: str) -> None:
    """Make one known as CLIP_tiny, DINOv3_tiny and so on: the family's first, made small."""
    variants = registry.FAMILIES[family].variants
    patch.setitem(variants, f"{family}_tiny", replace(next(iter(variants.values())), **SIZES))
