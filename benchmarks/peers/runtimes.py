"""Predictions of one batch by PyTorch, and by runtimes on what PyTorch exports."""

import copy
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from benchmarks.peers.pytorch import build

OPSET = 17
TOLERANCE = 1e-3  # of a score
Call = Callable[[], np.ndarray]


class Peer:
    """One of our models in PyTorch, with random weights, and a batch of float images for it.

    Args:
      name: ours, `*_ML`.
      num_classes: labels K.
      images: [B, H, W, 3], whatever the numbers; they stand for normalised ones.
      folder: for the exported file.
      threads: to compute with.
    """

    def __init__(
        self, name: str, num_classes: int, images: np.ndarray, folder: Path, *, threads: int
    ) -> None:
        torch.set_num_threads(threads)
        torch.manual_seed(0)
        self.threads, self.file = threads, folder / f"{name}.onnx"
        self.model = nn.Sequential(build(name, num_classes), nn.Sigmoid()).eval()
        normalised = images.transpose(0, 3, 1, 2).astype(np.float32) / 255 - 0.5
        self.images = torch.from_numpy(np.ascontiguousarray(normalised))

    def eager(self) -> Call:
        """PyTorch as it is, in the order of memory that is the faster on CPUs."""
        return self._call(self._channels_last(), self.images)

    def compiled(self) -> Call:
        """torch.compile, with the weights as constants, which lets it arrange them beforehand."""
        from torch._inductor import config

        config.freezing = True
        torch.compiler.reset()  # what it kept of the model before
        return self._call(torch.compile(self._channels_last()), self.images)

    def onnxruntime(self) -> Call:
        """ONNX Runtime on PyTorch's export."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = self.threads, 3
        session = onnxruntime.InferenceSession(
            self._exported(), options, providers=["CPUExecutionProvider"]
        )
        images = self.images.numpy()
        return self._checked(lambda: session.run(None, {"images": images})[0])

    def openvino(self) -> Call:
        """OpenVINO on PyTorch's export."""
        # Else it reports to its makers without asking.
        sys.modules.setdefault("openvino_telemetry", None)
        import openvino

        settings = {
            "INFERENCE_NUM_THREADS": self.threads,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",
        }
        model = openvino.Core().compile_model(self._exported(), "CPU", settings)
        request, images = model.create_infer_request(), self.images.numpy()
        return self._checked(lambda: request.infer([images])[0])

    def _channels_last(self) -> nn.Module:
        return copy.deepcopy(self.model).to(memory_format=torch.channels_last)

    def _call(self, model: nn.Module, images: torch.Tensor) -> Call:
        images = images.to(memory_format=torch.channels_last)

        def call() -> np.ndarray:
            with torch.inference_mode():
                return model(images).numpy()

        return self._checked(call)

    def _exported(self) -> Path:
        if not self.file.exists():
            torch.onnx.export(
                self.model,
                (self.images,),
                self.file,
                input_names=["images"],
                output_names=["scores"],
                opset_version=OPSET,
                dynamo=False,  # the other way needs one package more and gives the same nodes
            )
        return self.file

    def _checked(self, call: Call) -> Call:
        with torch.inference_mode():
            wanted = self.model(self.images).numpy()
        difference = float(np.abs(call() - wanted).max())
        if difference > TOLERANCE:
            raise RuntimeError(f"its scores are not those of PyTorch: {difference:.1e} apart")
        return call
