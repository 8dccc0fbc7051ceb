"""Vision transformers so small that tests can afford them, of the options of a family."""

from dataclasses import replace

import pytest

from mlcls_jax.models import registry
from mlcls_jax.models.registry import find_variant

SIZES = {"width": 32, "hidden": 128, "depth": 2, "num_heads": 2, "grid": 2}


def register(patch: pytest.MonkeyPatch, family: str) -> None:
    """Make one known as CLIP_tiny, DINOv3_tiny and so on: the family's first, made small."""
    variants = registry.FAMILIES[family].variants
    patch.setitem(variants, f"{family}_tiny", replace(next(iter(variants.values())), **SIZES))


def shrink(patch: pytest.MonkeyPatch, name: str) -> str:
    """Make the network `name` known in 32 channels and two blocks; return the name of that."""
    family, variant = find_variant(name)
    sizes = family.variants[variant]
    hidden = int(32 * sizes.hidden / sizes.width)
    small = replace(sizes, width=32, hidden=hidden, depth=2, num_heads=2)
    patch.setitem(family.variants, f"{variant}_mini", small)
    return f"{variant}_mini"
