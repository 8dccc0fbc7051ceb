"""Recipes of MobileNetV3; `mlcls_jax/recipes/mobilenetv3.py` explains each."""

from mlcls_jax.recipes.mobilenetv3 import get_config

__all__ = ["get_config"]
