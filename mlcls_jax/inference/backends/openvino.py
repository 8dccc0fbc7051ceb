"""OpenVINO on the CPU."""

import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np

from mlcls_jax import lazy
from mlcls_jax.errors import InputError
from mlcls_jax.inference.backends.onnx_cache import Compiled, onnx_file, thread_count
from mlcls_jax.inference.bundle import Bundle
from mlcls_jax.inference.devices import Place


def open_openvino(bundle: Bundle, *, place: Place, batch_size: int, precision: str) -> Compiled:
    """Open a bundle on the CPU."""
    path = onnx_file(bundle, "int8" if precision == "int8" else "float32")
    return Compiled("openvino", [compile_model(path, precision)], batch_size)


def compile_model(path: Path, precision: str) -> Callable[[np.ndarray], np.ndarray]:
    """Compile an ONNX or IR file for the CPU, as a function that several threads may call.

    Raises:
      InputError: the processor has no bfloat16.
      UserError: OpenVINO is not installed.
    """
    core = import_openvino().Core()
    able = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if precision == "bfloat16" and "BF16" not in able:
        raise InputError("OpenVINO: this processor has no bfloat16", "The backend jax can.")
    settings = {
        "INFERENCE_NUM_THREADS": thread_count(),
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bfloat16" else "f32",
    }
    model = core.compile_model(path, "CPU", settings)
    requests = threading.local()  # one per thread

    def run(images: np.ndarray) -> np.ndarray:
        if not hasattr(requests, "own"):
            requests.own = model.create_infer_request()
        return requests.own.infer([images])[0].copy()

    return run


def import_openvino() -> Any:
    """Import OpenVINO; where it is not installed, a UserError says how to."""
    # Else it reports to its makers without asking, from a fork, which may hang JAX's threads.
    cast(dict[str, Any], sys.modules).setdefault("openvino_telemetry", None)
    with lazy.optional("OpenVINO is not installed", extra="openvino"):
        import openvino
    return openvino
