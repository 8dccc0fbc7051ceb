"""Multi-label image classification in JAX: PP-LCNet and friends under an ML-Decoder head."""

from typing import Any

__version__ = "0.1.0"
__all__ = ["create_model", "create_pipeline", "list_models"]


def __getattr__(name: str) -> Any:
    """The public functions, imported when they are first asked for: a config file needs none."""
    if name in ("create_model", "create_pipeline"):
        from mlcls_jax.inference import api

        return getattr(api, name)
    if name == "list_models":
        from mlcls_jax.models.registry import list_models

        return list_models
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
