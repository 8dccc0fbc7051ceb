"""Recipes of PP-LCNet; `mlcls_jax/recipes/lcnet.py` explains each."""

from mlcls_jax.recipes.lcnet import get_config

__all__ = ["get_config"]
