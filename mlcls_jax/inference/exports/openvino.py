"""OpenVINO's own form (IR): a folder with `model.xml`, the graph, and `model.bin`, the weights.

It takes uint8 images [n, H, W, 3] with any n and gives scores float32 [n, K]. Labels, threshold,
temperature and image size are in its runtime information, under `mlcls_jax`, as JSON.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mlcls_jax.errors import UserError
from mlcls_jax.inference.backends.openvino import compile_model, import_openvino
from mlcls_jax.inference.bundle import Bundle
from mlcls_jax.inference.exports.format import Format
from mlcls_jax.inference.exports.onnx import export_onnx, facts

NAME = "model.xml"  # the other file's name is the same but for its suffix


def write(bundle: Bundle, folder: Path) -> None:
    """Write the two files, with weights in float32.

    Raises:
      ExportError: as `export_onnx`, from whose file OpenVINO reads the model.
      UserError: OpenVINO is not installed, or cannot write.
    """
    openvino = import_openvino()
    with tempfile.TemporaryDirectory() as scratch:
        model = openvino.Core().read_model(export_onnx(bundle, Path(scratch) / "model.onnx"))
        for name, fact in facts(bundle).items():
            model.set_rt_info(fact, ["mlcls_jax", name])
        try:
            openvino.save_model(model, folder / NAME, compress_to_fp16=False)
        except RuntimeError as error:  # of a full disk, too, and says no more
            raise UserError(
                f"OpenVINO cannot write its files: {error}", "Is the disk full?"
            ) from error


def load(folder: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Load the files as a function of images [n, H, W, 3] that computes in float32 on the CPU."""
    return compile_model(folder / NAME, "float32")


FORMAT = Format("openvino", write=write, load=load, is_folder=True)
