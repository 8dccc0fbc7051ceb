"""Runtimes that compute a bundle's scores: JAX, or another one on an exported model."""

from functools import partial
from typing import NamedTuple, Protocol

import numpy as np
from jaxtyping import Float, UInt8

from mlcls_jax import lazy
from mlcls_jax.errors import InputError
from mlcls_jax.inference.backends.fastest import choose_backend
from mlcls_jax.inference.backends.jitted import Jitted, device_list
from mlcls_jax.inference.bundle import Bundle
from mlcls_jax.inference.precision import PRECISIONS


class Backend(Protocol):
    """Computes scores; may be called from several threads at once."""

    name: str
    replicas: int  # how many batches it computes at the same time

    def __call__(self, images: UInt8[np.ndarray, "n H W 3"]) -> Float[np.ndarray, "n K"]:
        """Return scores in 0…1 of images of the model's size, any number of them above 0."""

    def warm_up(self) -> None:
        """Do now what the first calls would have to wait for."""


class Kind(NamedTuple):
    """Dotted name of a backend's class, which is imported when it is used, and what it can do."""

    dotted: str
    precisions: tuple[str, ...]


BACKENDS = {
    "jax": Kind("mlcls_jax.inference.backends.jitted.Jitted", PRECISIONS),
    "onnxruntime": Kind(
        "mlcls_jax.inference.backends.onnxruntime.OnnxRuntime", ("float32", "int8")
    ),
    "openvino": Kind("mlcls_jax.inference.backends.openvino.OpenVino", PRECISIONS),
}


def open_backend(
    name: str,
    bundle: Bundle,
    *,
    device: str | None = None,
    batch_size: int = 1,
    precision: str = "float32",
) -> Backend:
    """Open the backend of this name, with the model in it.

    Args:
      name: one of `BACKENDS`, or auto: the fastest of them, see `choose_backend`.
      bundle: the model.
      device: see `device_list`; ONNX Runtime and OpenVINO compute on the CPU.
      batch_size: images that are computed together, at most.
      precision: one of `PRECISIONS`.

    Raises:
      InputError: there is no such backend, device or precision, or they do not go together.
      UserError: the backend is not installed, or its scores are not those of JAX.
    """
    if name not in (*BACKENDS, "auto"):
        raise InputError(f"backend={name!r}: must be one of {', '.join(BACKENDS)}, auto")
    if precision not in PRECISIONS:
        raise InputError(f"precision={precision!r}: must be one of {', '.join(PRECISIONS)}")
    options = {"batch_size": batch_size, "precision": precision}
    if name == "auto":
        devices = device_list(device)
        if devices[0].platform != "cpu":  # none of the others comes near
            return Jitted(bundle, devices=devices, **options)
        candidates = {
            other: partial(open_backend, other, bundle, device="cpu", **options)
            for other, kind in BACKENDS.items()
            if precision in kind.precisions
        }
        return choose_backend(candidates, bundle, **options)
    if precision not in BACKENDS[name].precisions:
        able = ", ".join(other for other, kind in BACKENDS.items() if precision in kind.precisions)
        raise InputError(f"the backend {name} does not compute in {precision}", f"Can: {able}.")
    if name == "jax":
        return Jitted(bundle, devices=device_list(device), **options)
    if device not in (None, "cpu"):
        raise InputError(
            f"device={device!r}: the backend {name} computes on the CPU", "The backend jax can."
        )
    return lazy.load(BACKENDS[name].dotted)(bundle, **options)
