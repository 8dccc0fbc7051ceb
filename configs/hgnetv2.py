"""Recipes of PP-HGNetV2; `mlcls_jax/recipes/hgnetv2.py` explains each."""

from mlcls_jax.recipes.hgnetv2 import get_config

__all__ = ["get_config"]
