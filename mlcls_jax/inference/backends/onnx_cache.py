"""Shared by the CPU runtimes: the cached ONNX file of a bundle, batches and threads."""

import hashlib
import itertools
import logging
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import numpy as np
from jaxtyping import Float, UInt8

from mlcls_jax import __version__, files, lazy
from mlcls_jax.inference.bundle import Bundle
from mlcls_jax.inference.exports import find_format, reference_scores, write_checked
from mlcls_jax.inference.exports.verify import sample_images
from mlcls_jax.models.network import flatten

log = logging.getLogger(__name__)


def onnx_file(bundle: Bundle, precision: str) -> Path:
    """Return the bundle's ONNX file in the user's cache folder; write and check it if need be.

    It is of float32 or, with weights and activations quantised for ONNX Runtime, of int8.

    Raises:
      UserError: onnx or ONNX Runtime is not installed, or its scores are not those of JAX.
    """
    folder = files.cache_folder("exports")
    name = f"{bundle.model.network.config.name}-{fingerprint(bundle)}"
    path, quantized = (folder / f"{name}-{kind}.onnx" for kind in ("float32", "int8"))
    if not path.exists():
        log.info("Making %s, once.", path)
        folder.mkdir(parents=True, exist_ok=True)
        images = sample_images(bundle.image_size)
        write_checked(find_format("onnx"), bundle, path, images, reference_scores(bundle, images))
    if precision == "float32":
        return path
    if not quantized.exists():
        log.info("Making %s, once.", quantized)
        quantize(path, quantized, sample_images(bundle.image_size))
    return quantized


def fingerprint(bundle: Bundle) -> str:
    """Return a digest of all that scores depend on: weights, architecture, calibration, release."""
    digest = hashlib.sha256()
    described = (
        __version__,
        bundle.temperature,
        sorted(asdict(bundle.model.network.config).items()),
    )
    digest.update(repr(described).encode())
    for path, array in sorted(flatten(bundle.model.variables).items()):
        digest.update(path.encode())
        digest.update(cast(Any, np.ascontiguousarray(array)))  # a buffer of any type
    return digest.hexdigest()[:16]


def quantize(path: Path, target: Path, images: UInt8[np.ndarray, "n H W 3"]) -> None:
    """Write an ONNX file in 8-bit integers: weights per channel, activations by `images`."""
    with lazy.optional("int8 needs onnx and ONNX Runtime", extra="onnx"):
        from onnxruntime.quantization import (
            CalibrationDataReader,
            QuantFormat,
            QuantType,
            quantize_static,
        )
        from onnxruntime.quantization.shape_inference import quant_pre_process

    class Images(CalibrationDataReader):
        def __init__(self) -> None:
            self._rest = iter(images)

        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(self._rest, None)
            return None if image is None else {"images": image[None]}

    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        prepared, made = Path(scratch) / "prepared.onnx", Path(scratch) / "made.onnx"
        quant_pre_process(path, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            made,
            Images(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            weight_type=QuantType.QInt8,
            activation_type=QuantType.QUInt8,
            op_types_to_quantize=["Conv", "MatMul", "Gemm"],
            nodes_to_exclude=_depthwise(prepared),
        )
        files.place(made, target)


def _depthwise(path: Path) -> list[str]:
    """List convolutions that keep float32: they gain nothing, and lose most of the accuracy."""
    import onnx

    return [
        node.name
        for node in onnx.load(path).graph.node
        if node.op_type == "Conv" and any(a.name == "group" and a.i > 1 for a in node.attribute)
    ]


class Compiled:
    """A model in a runtime other than JAX, as a backend that several threads may call at once.

    `runs` has a function per device, of images [n, H, W, 3] → scores [n, K]; batches take turns.
    """

    def __init__(
        self, name: str, runs: Sequence[Callable[[np.ndarray], np.ndarray]], batch_size: int
    ) -> None:
        self.name, self.replicas = name, len(runs)
        self._runs, self._batch_size = runs, batch_size
        self._turn = itertools.count()  # next() is atomic

    def __call__(self, images: UInt8[np.ndarray, "n H W 3"]) -> Float[np.ndarray, "n K"]:
        """Return scores in 0…1 of images of the model's size."""
        run = self._runs[next(self._turn) % self.replicas]
        starts = range(0, len(images), self._batch_size)
        return np.concatenate([run(images[start : start + self._batch_size]) for start in starts])

    def warm_up(self) -> None:
        """Do nothing: the model is compiled when it is opened, for any number of images."""


def thread_count() -> int:
    """Return the number of threads to compute with: OMP_NUM_THREADS, or this process's cores."""
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    if wanted.isdecimal() and int(wanted) > 0:
        return int(wanted)
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
