"""LiteRT (TFLite), for phones: JAX's StableHLO, converted by TensorFlow.

The file takes one uint8 image [1, H, W, 3] and gives scores float32 [1, K].
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import export
from jax.extend import core

from mlcls_jax import jaxprs, lazy
from mlcls_jax.errors import ExportError
from mlcls_jax.inference.bundle import Bundle
from mlcls_jax.inference.exports.format import Format


def write(bundle: Bundle, path: Path) -> None:
    """Write the file.

    Raises:
      ExportError: TensorFlow is not installed, or cannot convert the model.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before the import: it writes a lot
    with lazy.optional("the format litert needs TensorFlow", extra="litert", kind=ExportError):
        import tensorflow as tf
        from tensorflow.compiler.tf2xla.python import xla
    exported = _export(bundle)
    (images,), (scores,) = exported.in_avals, exported.out_avals

    @tf.function(input_signature=[tf.TensorSpec(images.shape, tf.uint8, name="images")])
    def call(images: Any) -> dict[str, Any]:
        outputs: Any = xla.call_module(
            [images],
            version=exported.calling_convention_version,
            module=exported.mlir_module_serialized,
            Tout=[tf.float32],
            Sout=[scores.shape],
            platforms=["CPU"],
        )
        return {"scores": outputs[0]}

    owner: Any = tf.Module()  # with one, the file names its input and output
    owner.call = call
    concrete = call.get_concrete_function()
    try:
        content = tf.lite.TFLiteConverter.from_concrete_functions([concrete], owner).convert()
    except Exception as error:  # its own kinds are private
        first = str(error).partition("\n")[0]
        raise ExportError(f"TensorFlow cannot convert the model: {first}") from error
    path.write_bytes(content)


def load(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Load the file as a function of images [n, H, W, 3], which LiteRT runs one by one."""
    with lazy.optional("the format litert needs LiteRT", extra="litert", kind=ExportError):
        from ai_edge_litert.interpreter import Interpreter
    interpreter = Interpreter(model_path=str(path))
    run = interpreter.get_signature_runner()
    return lambda images: np.concatenate([run(images=image[None])["scores"] for image in images])


FORMAT = Format("model.tflite", write=write, load=load)


def _export(bundle: Bundle) -> export.Exported:
    """Export the model for one image, in operations that TensorFlow converts."""
    variables = jax.tree.map(np.asarray, bundle.model.variables)
    images = jax.ShapeDtypeStruct((1, *bundle.image_size, 3), np.uint8)
    closed = jax.make_jaxpr(lambda images: bundle.scores(variables, images))(images)
    evaluate = jax.jit(lambda images: jaxprs.evaluate(closed, [images], _apply)[0])
    return export.export(evaluate, platforms=["cpu"])(images)


def _apply(equation: core.JaxprEqn, operands: list[Any]) -> Sequence[Any]:
    """Compute an operation, products with matrices as 1x1 convolutions.

    TensorFlow 2.21 makes `tfl.batch_matmul` of wrong rank of products [B, h, w, C] @ [C, D].
    """
    if equation.primitive.name == "dot_general" and _is_matrix_product(equation):
        return [_convolve(*operands)]
    return jaxprs.bind(equation, operands)


def _is_matrix_product(equation: Any) -> bool:
    left, right = (atom.aval for atom in equation.invars)
    plain = (((left.ndim - 1,), (0,)), ((), ()))  # the last axis with the first one
    return right.ndim == 2 < left.ndim and equation.params["dimension_numbers"] == plain


def _convolve(x: jax.Array, matrix: jax.Array) -> jax.Array:
    pixels = x.reshape(x.shape[0], -1, 1, x.shape[-1])  # [B, tokens, 1, C]
    layout = ("NHWC", "HWIO", "NHWC")
    out = jax.lax.conv_general_dilated(
        pixels, matrix[None, None], (1, 1), "VALID", dimension_numbers=layout
    )
    return out.reshape(*x.shape[:-1], -1)
