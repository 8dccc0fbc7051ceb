"""Swins so small that tests can afford them; `tests/data/timm` has timm's numbers of them."""

import dataclasses

import pytest

from mlcls_jax.models import registry
from mlcls_jax.models.backbones.swin import SwinConfig

V1 = SwinConfig(width=32, depths=(2, 2, 1, 1), windows=(4, 3, 4, 2), size=64)
V2 = dataclasses.replace(V1, is_v2=True, trained_windows=(3, 3, 3, 2))


def register(patch: pytest.MonkeyPatch) -> None:
    """Make them known as Swin_mini and SwinV2_mini."""
    variants = registry.FAMILIES["SwinTransformer"].variants
    patch.setitem(variants, "Swin_mini", V1)
    patch.setitem(variants, "SwinV2_mini", V2)
