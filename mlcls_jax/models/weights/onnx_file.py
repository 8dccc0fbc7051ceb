"""Weights in ONNX files of the same architectures, as Paddle and PyTorch export them."""

from pathlib import Path
from typing import Any

import numpy as np

from mlcls_jax import lazy
from mlcls_jax.errors import WeightsError
from mlcls_jax.files import regular


def read_onnx(path: Path) -> dict[str, np.ndarray]:
    """Return the initialisers by their names.

    Exporters share equal arrays (by Identity), and add the bias of a convolution in a node of its
    own; it is given the name that Paddle has for it.

    Raises:
      WeightsError: the file is damaged, or an export of ours, whose arrays have no names of layers;
        or the library is missing.
    """
    with lazy.optional(f"{path} needs a library", extra="onnx", kind=WeightsError):
        import onnx
        from onnx import numpy_helper
    try:
        model = onnx.load(regular(path))
        graph, producer = model.graph, model.producer_name
        arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        arrays = {name: array for name, array in arrays.items() if array.dtype.kind == "f"}
        arrays |= _aliases(graph, arrays)
    except Exception as error:  # of damaged files, its parser raises several kinds
        raise WeightsError(f"{path}: is no ONNX file, or damaged: {error}") from error
    if producer == "mlcls_jax":
        raise WeightsError(
            f"{path}: is an export of mlcls_jax, which cannot be read back",
            "Take the bundle that was written beside it, the folder `bundle`.",
        )
    return arrays


def _aliases(graph: Any, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return what is an array under another name, and biases that are added after the product."""
    known, kernels, found = dict(arrays), {}, {}
    for node in graph.node:
        inputs, output = list(node.input), node.output[0]
        if node.op_type == "Identity" and inputs[0] in known:
            known[output] = found[output] = known[inputs[0]]
        elif node.op_type == "Reshape" and inputs[0] in known:
            known[output] = known[inputs[0]]
        elif node.op_type in ("Conv", "MatMul", "Gemm") and len(inputs) > 1:
            kernels[output] = inputs[1]
        elif node.op_type == "Add":
            for product, bias in (inputs, inputs[::-1]):
                name = kernels.get(product, "")
                if bias in known and ".w_0" in name:
                    found[name.split(".w_0")[0] + ".b_0"] = known[bias].reshape(-1)
    return found
