"""Recipes of ResNet; `mlcls_jax/recipes/resnet.py` explains each."""

from mlcls_jax.recipes.resnet import get_config

__all__ = ["get_config"]
