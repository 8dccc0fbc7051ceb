"""Recipes of CLIP's vision transformer; `mlcls_jax/recipes/clip_vit.py` explains each."""

from mlcls_jax.recipes.clip_vit import get_config

__all__ = ["get_config"]
