"""Weights of other origin: `load(model, source)` fills a model and reports what fitted."""

from mlcls_jax.models.weights.foreign import LoadReport, load

__all__ = ["LoadReport", "load"]
