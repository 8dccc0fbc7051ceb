"""ONNX Runtime on the CPU and on GPUs, where it also runs TensorRT."""

import itertools
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from mlcls_jax import lazy
from mlcls_jax.inference.backends.onnx_cache import in_batches, onnx_file, thread_count
from mlcls_jax.inference.backends.onnx_on_gpu import CUDA, TENSORRT, open_on_gpu
from mlcls_jax.inference.bundle import Bundle
from mlcls_jax.inference.devices import Place


class OnnxRuntime:
    """A bundle in ONNX Runtime; can be called from several threads at once.

    Args:
      bundle: the model.
      place: the CPU, or GPUs: each holds a copy of the weights, and batches take turns.
      batch_size: images that are computed together, at most.
      precision: float32; on the CPU also int8, weights and activations; by TensorRT bfloat16.
      tensorrt: compile for the GPU by TensorRT.

    Raises:
      UserError: ONNX Runtime is not installed, cannot use the GPU, or gives other scores than JAX.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        place: Place,
        batch_size: int,
        precision: str = "float32",
        tensorrt: bool = False,
    ) -> None:
        self.name = "tensorrt" if tensorrt else "onnxruntime"
        if place.kind == "cpu":
            self._runs = [load(onnx_file(bundle, precision))]
        else:
            provider = TENSORRT if tensorrt else CUDA
            self._runs = [
                open_on_gpu(bundle, index, provider, precision=precision, batch_size=batch_size)
                for index in place.indices
            ]
        self.replicas = len(self._runs)
        self._turn = itertools.count()  # next() is atomic
        self._batch_size = batch_size

    def __call__(self, images: UInt8[np.ndarray, "n H W 3"]) -> Float[np.ndarray, "n K"]:
        """Return scores in 0…1 of images of the model's size."""
        run = self._runs[next(self._turn) % len(self._runs)]
        return in_batches(run, images, self._batch_size)

    def warm_up(self) -> None:
        """Do nothing: the model is compiled when it is opened, for any number of images."""


open_tensorrt = partial(OnnxRuntime, tensorrt=True)


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
    return lambda images: np.asarray(session.run(None, {name: images})[0])
