"""A bundle as an ONNX file: uint8 images in, scores out, for runtimes other than JAX."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jaxtyping import Array

from mlcls_jax import __version__, files, lazy
from mlcls_jax.errors import ExportError
from mlcls_jax.inference.backends.onnxruntime import load
from mlcls_jax.inference.bundle import Bundle
from mlcls_jax.inference.exports.format import Format
from mlcls_jax.inference.exports.onnx.ops import BATCH
from mlcls_jax.inference.exports.onnx.rules import RULES, simplify
from mlcls_jax.inference.exports.onnx.trace import trace
from mlcls_jax.models.network import Network

if TYPE_CHECKING:
    from onnx import ModelProto

OPSET, IR_VERSION = 17, 8  # of 2022: what any runtime in use can read
MAX_BYTES = 2**31 - 1  # of a protobuf


def export_onnx(bundle: Bundle, path: Path) -> Path:
    """Write `bundle.scores` as an ONNX file that computes in float32.

    It takes `images` [batch, H, W, 3], uint8 of the bundle's size, and gives `scores` [batch, K],
    float32. Labels, threshold, temperature and image size are in its metadata, as JSON.

    Raises:
      ExportError: onnx is not installed, the model has an operation without a rule, or it is too
        large for the format.
    """
    config = replace(bundle.model.network.config, dtype="float32", text_embeddings=None)
    network, variables = Network.of(config), bundle.model.variables
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(variables))
    if size > MAX_BYTES:
        raise ExportError(
            f"{path}: the weights take {size / 2**30:.1f} GiB, but an ONNX file holds 2 at most",
            "Export StableHLO, which has no such limit.",
        )
    model = convert(
        lambda images: bundle.probabilities(network.apply(variables, images).logits),
        bundle.image_size,
    )
    for name, fact in facts(bundle).items():
        model.metadata_props.add(key=name, value=fact)
    files.write_bytes(path, model.SerializeToString())
    return path


FORMAT = Format("model.onnx", write=export_onnx, load=load)


def facts(bundle: Bundle) -> dict[str, str]:
    """Return what is put into a file besides the network, each as JSON."""
    values = {
        "labels": bundle.labels,
        "threshold": bundle.threshold,
        "temperature": bundle.temperature,
        "image_size": bundle.image_size,
        **bundle.frame.describe(),
        "mlcls_jax": __version__,
    }
    return {name: json.dumps(value, ensure_ascii=False) for name, value in values.items()}


def convert(scores: Callable[[Array], Array], image_size: tuple[int, int]) -> "ModelProto":
    """Convert a function of uint8 images [batch, H, W, 3] to ONNX, for a batch of any size.

    Arrays that `scores` closes over become weights. Its operations must be the plain ones: other
    forms are many more nodes.

    Raises:
      ExportError: onnx is not installed, or the function has an operation without a rule.
    """
    with lazy.optional("ONNX files need the package onnx", extra="onnx", kind=ExportError):
        from onnx import TensorProto, helper

        from mlcls_jax.inference.exports.onnx.write import write
    (batch,) = jax.export.symbolic_shape("b")
    images = jax.ShapeDtypeStruct((batch, *image_size, 3), jnp.uint8)
    # Full precision: what is computed here must not be rounded as accelerators like to.
    with jax.default_matmul_precision("highest"):
        traced = jax.make_jaxpr(lambda images: scores(images))(images)
        result = simplify(trace(traced, known=RULES))
    nodes, weights = write(result, "images", "scores")
    inputs = helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", *image_size, 3])
    sizes = ["batch" if size == BATCH else size for size in result.shape]
    outputs = helper.make_tensor_value_info("scores", TensorProto.FLOAT, sizes)
    graph = helper.make_graph(nodes, "mlcls_jax", [inputs], [outputs], weights)
    return helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="mlcls_jax",
        producer_version=__version__,
    )
