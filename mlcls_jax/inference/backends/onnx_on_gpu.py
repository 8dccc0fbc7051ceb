"""ONNX files on NVIDIA's GPUs: by ONNX Runtime's CUDA kernels, or by TensorRT.

ONNX Runtime goes on by the CPU where a GPU cannot be used, and says so in a log at most. Here that
is an error, and the scores are compared with the CPU's before the first use.
"""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mlcls_jax import lazy
from mlcls_jax.errors import UserError
from mlcls_jax.inference.backends.onnx_cache import onnx_file
from mlcls_jax.inference.bundle import Bundle
from mlcls_jax.inference.exports.verify import check_scores, sample_images

CUDA, TENSORRT = "CUDAExecutionProvider", "TensorrtExecutionProvider"
_INSTALL = {
    CUDA: 'pip uninstall -y onnxruntime && pip install "onnxruntime-gpu[cuda,cudnn]"',
    TENSORRT: "pip uninstall -y onnxruntime && "
    'pip install "onnxruntime-gpu[cuda,cudnn]" "tensorrt-cu13<11"',
}


def check_provider(wanted: str) -> None:
    """Raise an error unless the installed ONNX Runtime was built with this provider.

    Raises:
      UserError: it was not; or ONNX Runtime is not installed.
    """
    with lazy.optional("ONNX files need ONNX Runtime", hint=f"Install it: {_INSTALL[wanted]}"):
        import onnxruntime
    built = onnxruntime.get_available_providers()
    if wanted not in built:
        raise UserError(
            f"the installed ONNX Runtime {onnxruntime.__version__} has no {wanted},"
            f" only {', '.join(built)}",
            f"Both packages fill the same folder, so: {_INSTALL[wanted]}",
        )


def open_on_gpu(
    bundle: Bundle, index: int, provider: str, *, precision: str, batch_size: int
) -> Callable[[np.ndarray], np.ndarray]:
    """Open a bundle's ONNX file, as a function of images [n, H, W, 3] that gives scores [n, K].

    The provider is CUDA, or TENSORRT, which keeps what it compiles in a folder beside the file, and
    also computes in bfloat16.

    Raises:
      UserError: ONNX Runtime is not installed or lacks the provider, the provider does not start,
        or its scores in float32 are not those of the CPU.
    """
    check_provider(provider)
    import onnxruntime

    if provider == TENSORRT:
        if precision == "float32":
            # It would round the factors of products to ten bits, and there is no option for it.
            os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")
        with contextlib.suppress(ImportError):
            # It loads its libraries, which are on no path.
            import tensorrt  # noqa: F401  # pyright: ignore[reportMissingImports]
    onnxruntime.preload_dlls()  # CUDA's, of the packages that JAX uses, too
    path = onnx_file(bundle, "float32")
    providers: list[Any] = [(CUDA, {"device_id": index, "use_tf32": 0}), "CPUExecutionProvider"]
    if provider == TENSORRT:
        options = tensorrt_options(path, precision, batch_size, bundle.image_size)
        providers.insert(0, (TENSORRT, {"device_id": index} | options))
    session_options = onnxruntime.SessionOptions()
    session_options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(
            path, session_options, providers=providers, enable_fallback=0
        )
        started, reason = session.get_providers(), "libraries or the driver are missing"
    except (RuntimeError, ValueError) as error:  # those of ONNX Runtime are subclasses
        started, reason = [], str(error).strip().splitlines()[-1]
    if provider not in started:
        raise UserError(
            f"ONNX Runtime: {provider} does not start on GPU {index}: {reason}",
            f"`nvidia-smi` must list the GPU, and the libraries must fit: {_INSTALL[provider]}",
        )

    def run(images: np.ndarray) -> np.ndarray:
        return np.asarray(session.run(None, {"images": images})[0])

    if precision == "float32":
        images = sample_images(bundle.image_size)[:batch_size]
        on_cpu = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        wanted = np.asarray(on_cpu.run(None, {"images": images})[0])
        check_scores(wanted, run(images), what=f"{provider} on GPU {index}")
    return run


def tensorrt_options(
    path: Path, precision: str, batch_size: int, image_size: tuple[int, int]
) -> dict[str, Any]:
    """Return the provider's options, and make the folder for its compiled programs."""
    folder = path.parent / "tensorrt" / f"{path.stem}-{precision}-{batch_size}"
    folder.mkdir(parents=True, exist_ok=True)
    height, width = image_size
    largest = f"images:{batch_size}x{height}x{width}x3"
    return {
        "trt_engine_cache_enable": True,
        "trt_engine_cache_path": str(folder),
        "trt_timing_cache_enable": True,
        "trt_timing_cache_path": str(folder),
        "trt_bf16_enable": precision == "bfloat16",
        # Any number of images up to the batch size, by one program that is best at full batches.
        "trt_profile_min_shapes": f"images:1x{height}x{width}x3",
        "trt_profile_opt_shapes": largest,
        "trt_profile_max_shapes": largest,
    }
