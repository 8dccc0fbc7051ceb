"""OpenVINO on the CPU."""

import sys
import threading

import numpy as np
from jaxtyping import Float, UInt8

from mlcls_jax import lazy
from mlcls_jax.errors import InputError
from mlcls_jax.inference.backends.onnx_cache import in_batches, onnx_file, thread_count
from mlcls_jax.inference.bundle import Bundle


class OpenVino:
    """A bundle in OpenVINO; can be called from several threads at once.

    Args:
      bundle: the model.
      batch_size: images that are computed together, at most.
      precision: float32; bfloat16, where the processor has it; int8: weights and activations.

    Raises:
      InputError: the processor has no bfloat16.
      UserError: OpenVINO is not installed, or ONNX, from which it reads.
    """

    name = "openvino"
    replicas = 1

    def __init__(self, bundle: Bundle, *, batch_size: int, precision: str = "float32") -> None:
        # Else it reports to its makers without asking, from a fork, which may hang JAX's threads.
        sys.modules.setdefault("openvino_telemetry", None)
        with lazy.optional("the backend openvino needs OpenVINO", extra="openvino"):
            import openvino
        core = openvino.Core()
        able = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if precision == "bfloat16" and "BF16" not in able:
            raise InputError("OpenVINO: this processor has no bfloat16", "The backend jax can.")
        path = onnx_file(bundle, "int8" if precision == "int8" else "float32")
        settings = {
            "INFERENCE_NUM_THREADS": thread_count(),
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bfloat16" else "f32",
        }
        self._model = core.compile_model(path, "CPU", settings)
        self._requests = threading.local()  # one per thread
        self._batch_size = batch_size

    def __call__(self, images: UInt8[np.ndarray, "n H W 3"]) -> Float[np.ndarray, "n K"]:
        """Return scores in 0…1 of images of the model's size."""
        return in_batches(self._run, images, self._batch_size)

    def warm_up(self) -> None:
        """Do nothing: the model is compiled when it is opened, for any number of images."""

    def _run(self, images: np.ndarray) -> np.ndarray:
        if not hasattr(self._requests, "own"):
            self._requests.own = self._model.create_infer_request()
        return self._requests.own.infer([images])[0].copy()
