"""ONNX Runtime on the CPU."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from mlcls_jax import lazy
from mlcls_jax.inference.backends.onnx_cache import in_batches, onnx_file, thread_count
from mlcls_jax.inference.bundle import Bundle


class OnnxRuntime:
    """A bundle in ONNX Runtime; can be called from several threads at once.

    Args:
      bundle: the model.
      batch_size: images that are computed together, at most.
      precision: float32, or int8: weights and activations.

    Raises:
      UserError: ONNX Runtime is not installed, or gives other scores than JAX.
    """

    name = "onnxruntime"
    replicas = 1

    def __init__(self, bundle: Bundle, *, batch_size: int, precision: str = "float32") -> None:
        self._run = load(onnx_file(bundle, precision))
        self._batch_size = batch_size

    def __call__(self, images: UInt8[np.ndarray, "n H W 3"]) -> Float[np.ndarray, "n K"]:
        """Return scores in 0…1 of images of the model's size."""
        return in_batches(self._run, images, self._batch_size)

    def warm_up(self) -> None:
        """Do nothing: the model is compiled when it is opened, for any number of images."""


def load(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Load an ONNX file as a function of images uint8 [n, H, W, 3] that gives scores [n, K].

    Raises:
      UserError: ONNX Runtime is not installed.
    """
    with lazy.optional("ONNX files need ONNX Runtime", extra="onnx"):
        import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = thread_count()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (name,) = (entry.name for entry in session.get_inputs())
    return lambda images: session.run(None, {name: images})[0]
