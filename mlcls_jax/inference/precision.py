"""Number formats in which a model is stored and computed.

float32: the reference, whatever the model was trained with. bfloat16: weights and arithmetic, while
scores stay float32. int8: weights of a quarter of the size, unpacked inside the compiled program,
so that the arithmetic is that of float32; symmetric, with one scale an output channel (as the
weights of Jacob et al., 2018).
"""

from collections.abc import Collection
from dataclasses import replace
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int8

from mlcls_jax.inference.bundle import Bundle
from mlcls_jax.models.network import Model, Network, Variables, flatten, unflatten

PRECISIONS = ("float32", "bfloat16", "int8")

# What float32 costs where bfloat16 has hardware of its own.
FLOAT32_COST = {
    "gpu": "tensor cores do not multiply it: an H100 does 67 TFLOP/s in float32, 989 in bfloat16",
    "tpu": "a TPU takes six passes of bfloat16 for each product",
}

# Arrays by path, one for each of the model's, or, of int8, a pair of whole numbers and scales.
Packed = dict[str, Any]


def settle(precision: str, platform: str, able: Collection[str]) -> str:
    """Return the precision that `auto` means on cpu, gpu or tpu; any other one as it is.

    It is bfloat16 on accelerators, if that is among the `able` ones, and float32 elsewhere.
    """
    if precision != "auto":
        return precision
    return "bfloat16" if platform != "cpu" and "bfloat16" in able else "float32"


def in_dtype(bundle: Bundle, dtype: str) -> Bundle:
    """Return the same bundle with its arithmetic in `dtype`: float32 or bfloat16."""
    network = bundle.model.network
    if network.config.dtype == dtype:
        return bundle
    network = Network.of(replace(network.config, dtype=dtype))
    return replace(bundle, model=Model(network, bundle.model.variables))


def pack(variables: Variables, precision: str) -> Packed:
    """Return the numbers as they are kept in memory; see `unpack`.

    Biases, norms and statistics stay float32: they are few, and errors in them show.
    """
    halved = partial(np.asarray, dtype=jnp.bfloat16)
    kinds = {"float32": np.asarray, "bfloat16": halved, "int8": quantize}
    return {
        path: kinds[precision](np.asarray(array)) if array.ndim > 1 else np.asarray(array)
        for path, array in flatten(variables).items()
    }


def unpack(packed: Packed, like: Variables) -> Variables:
    """Return the numbers as the network takes them; to be traced by JAX."""
    arrays = {
        path: entry[0].astype(jnp.float32) * entry[1] if isinstance(entry, tuple) else entry
        for path, entry in packed.items()
    }
    return unflatten(arrays, like)


def quantize(
    kernel: Float[np.ndarray, "... D"],
) -> tuple[Int8[np.ndarray, "... D"], Float[np.ndarray, "... D"]]:
    """Return whole numbers in -127…127 and the scale that each output channel multiplies them by.

    Outputs are along the last axis; of group kernels [groups, in, out], along the first one too.
    """
    axes = (1,) if kernel.ndim == 3 else tuple(range(kernel.ndim - 1))
    scale = np.abs(kernel).max(axes, keepdims=True) / 127
    scale = np.where(scale > 0, scale, 1).astype(np.float32)
    return np.rint(kernel / scale).astype(np.int8), scale
