"""Multi-label image classification in JAX: PP-LCNet and friends under an ML-Decoder head."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for editors; at run time they are imported on use
    from mlcls_jax.inference.api import create_model, create_pipeline
    from mlcls_jax.models.registry import list_models
    from mlcls_jax.runs import evaluate, load, train

__version__ = "0.1.0"
__all__ = ["create_model", "create_pipeline", "evaluate", "list_models", "load", "train"]

_MODULES = {
    **dict.fromkeys(("create_model", "create_pipeline"), "inference.api"),
    **dict.fromkeys(("evaluate", "load", "train"), "runs"),
    "list_models": "models.registry",
}


def __getattr__(name: str) -> Any:
    """Import a public function when it is first used: a configuration file needs none."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
