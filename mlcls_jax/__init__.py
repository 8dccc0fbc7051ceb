"""Multi-label image classification in JAX: PP-LCNet and friends under an ML-Decoder head."""

__version__ = "0.1.0"
