"""ONNX Runtime on the CPU and on GPUs, where it also runs TensorRT."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from mlcls_jax import lazy
from mlcls_jax.inference.backends.onnx_cache import Compiled, onnx_file, thread_count
from mlcls_jax.inference.backends.onnx_on_gpu import CUDA, TENSORRT, open_on_gpu
from mlcls_jax.inference.bundle import Bundle
from mlcls_jax.inference.devices import Place


def open_onnxruntime(
    bundle: Bundle, *, place: Place, batch_size: int, precision: str, provider: str = CUDA
) -> Compiled:
    """Open a bundle on the CPU, or by a provider on GPUs, each with a copy of the weights."""
    if place.kind == "cpu":
        return Compiled("onnxruntime", [load(onnx_file(bundle, precision))], batch_size)
    runs = [
        open_on_gpu(bundle, index, provider, precision=precision, batch_size=batch_size)
        for index in place.indices
    ]
    return Compiled("tensorrt" if provider == TENSORRT else "onnxruntime", runs, batch_size)


open_tensorrt = partial(open_onnxruntime, provider=TENSORRT)


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
