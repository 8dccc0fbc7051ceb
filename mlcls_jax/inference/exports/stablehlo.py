"""StableHLO by `jax.export`: one file with the weights inside, for CPU, CUDA and TPU.

It takes uint8 images [B, H, W, 3] with any B and gives scores float32 [B, K]. To run it, JAX is
needed and nothing of this project.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import export

from mlcls_jax.inference.bundle import Bundle
from mlcls_jax.inference.exports.format import Format
from mlcls_jax.models.kernels import PORTABLE

PLATFORMS = ("cpu", "cuda", "tpu")


def write(bundle: Bundle, path: Path) -> None:
    """Write the file; takes some seconds."""
    network = replace(bundle.model.network, kernels=PORTABLE)
    variables = jax.tree.map(np.asarray, bundle.model.variables)

    def scores(images: jax.Array) -> jax.Array:
        # TPUs and new GPUs would round factors to fewer bits, and give other scores.
        with jax.default_matmul_precision("float32"):
            return bundle.probabilities(network.apply(variables, images).logits)

    (batch,) = export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((batch, *bundle.image_size, 3), np.uint8)
    exported = export.export(jax.jit(scores), platforms=PLATFORMS)(images)
    path.write_bytes(exported.serialize())


def load(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Load the file as a function of images [n, H, W, 3]; compiled for each n that it meets."""
    call = jax.jit(export.deserialize(bytearray(path.read_bytes())).call)
    return lambda images: np.asarray(call(images))


def describe(path: Path) -> dict[str, Any]:
    """Return what the file takes, gives and needs."""
    exported = export.deserialize(bytearray(path.read_bytes()))
    return {
        "input": str(exported.in_avals[0]),
        "output": str(exported.out_avals[0]),
        "platforms": exported.platforms,
        "calling_convention_version": exported.calling_convention_version,
        "jax": jax.__version__,
        "readable_by": f"jax {jax.__version__}, and releases of the six months after it",
    }


FORMAT = Format("model.stablehlo", write=write, load=load, describe=describe)
