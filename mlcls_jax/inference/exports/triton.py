"""A model of NVIDIA's Triton Inference Server: a folder to put into a model repository.

`config.pbtxt` describes it, `1/model.onnx` is the first version, and `labels.txt` names the scores
for Triton's classification extension. Requests bring uint8 images [n, H, W, 3] of the model's size
and get scores float32 [n, K].
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from mlcls_jax import files
from mlcls_jax.errors import ExportError
from mlcls_jax.inference.backends.onnxruntime import load as load_onnx
from mlcls_jax.inference.bundle import Bundle
from mlcls_jax.inference.exports.format import Format
from mlcls_jax.inference.exports.onnx import export_onnx

MODEL = Path("1", "model.onnx")
MAX_BATCH = 16  # images; as of our own server

# Fields of Triton's `ModelConfig`, in protobuf's text format. Empty blocks mean its defaults: a
# batch starts as soon as an instance is free, and there is one on each GPU, or else on the CPU.
_CONFIG = """\
# Made by mlcls_jax; docs/user_guide/model_configuration.md of triton-inference-server explains it.
name: "{name}"
backend: "onnxruntime"
max_batch_size: {max_batch}
input [
  {{
    name: "images"  # RGB
    data_type: TYPE_UINT8
    dims: [ {height}, {width}, 3 ]
  }}
]
output [
  {{
    name: "scores"
    data_type: TYPE_FP32
    dims: [ {labels} ]
    label_filename: "labels.txt"
  }}
]
dynamic_batching {{ }}
version_policy: {{ latest {{ num_versions: 1 }} }}
"""


def write(bundle: Bundle, folder: Path) -> None:
    """Write the folder.

    Raises:
      ExportError: as `export_onnx`; or a label has a line break, which the file of labels cannot
        hold.
    """
    if broken := [label for label in bundle.labels if "\n" in label]:
        raise ExportError(
            f"the label {broken[0]!r} has a line break: Triton reads a label per line",
            "Rename the label in the bundle's inference.json.",
        )
    network, (height, width) = bundle.model.network.config, bundle.image_size
    (folder / MODEL).parent.mkdir()
    export_onnx(bundle, folder / MODEL)
    files.write_text(folder / "labels.txt", "".join(f"{label}\n" for label in bundle.labels))
    config = _CONFIG.format(
        name=network.name,
        max_batch=MAX_BATCH,
        height=height,
        width=width,
        labels=network.num_classes,
    )
    files.write_text(folder / "config.pbtxt", config)


def load(folder: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Load the first version as a function of images [n, H, W, 3]."""
    return load_onnx(folder / MODEL)


FORMAT = Format("triton/{model}", write=write, load=load, is_folder=True)
