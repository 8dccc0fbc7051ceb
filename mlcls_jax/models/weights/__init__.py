"""Weights of other origin: `load(model, source)` fills a model and reports what fitted.

`save(model, path, origin)` is the way back.
"""

from mlcls_jax.models.weights.export import save, to_foreign
from mlcls_jax.models.weights.foreign import LoadReport, load

__all__ = ["LoadReport", "load", "save", "to_foreign"]
