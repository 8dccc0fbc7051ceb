"""Runtimes that compute a bundle's scores: JAX, or another one on an exported model."""

import logging
from functools import partial
from typing import NamedTuple, Protocol

import numpy as np
from jaxtyping import Float, UInt8

from mlcls_jax import lazy
from mlcls_jax.errors import InputError
from mlcls_jax.inference.backends.fastest import choose_backend
from mlcls_jax.inference.backends.jitted import Jitted
from mlcls_jax.inference.bundle import Bundle
from mlcls_jax.inference.devices import KINDS, device_list, parse_device
from mlcls_jax.inference.precision import FLOAT32_COST, PRECISIONS, settle

log = logging.getLogger(__name__)


class Backend(Protocol):
    """Computes scores; may be called from several threads at once."""

    name: str
    replicas: int  # how many batches it computes at the same time

    def __call__(self, images: UInt8[np.ndarray, "n H W 3"]) -> Float[np.ndarray, "n K"]:
        """Return scores in 0…1 of images of the model's size, any number of them above 0."""
        ...

    def warm_up(self) -> None:
        """Do now what the first calls would have to wait for."""


class Kind(NamedTuple):
    """Dotted name of what opens a backend, imported when it is used, and what it can do."""

    dotted: str
    precisions: dict[str, tuple[str, ...]]  # by the platforms it computes on, the usual one first


BACKENDS = {
    "jax": Kind("mlcls_jax.inference.backends.jitted.Jitted", dict.fromkeys(KINDS, PRECISIONS)),
    "onnxruntime": Kind(
        "mlcls_jax.inference.backends.onnxruntime.open_onnxruntime",
        {"cpu": ("float32", "int8"), "gpu": ("float32",)},
    ),
    "tensorrt": Kind(
        "mlcls_jax.inference.backends.onnxruntime.open_tensorrt", {"gpu": ("float32", "bfloat16")}
    ),
    "openvino": Kind("mlcls_jax.inference.backends.openvino.open_openvino", {"cpu": PRECISIONS}),
}


def open_backend(
    name: str,
    bundle: Bundle,
    *,
    device: str | None = None,
    batch_size: int = 1,
    precision: str = "float32",
) -> Backend:
    """Open one of `BACKENDS`, or of auto the fastest, see `choose_backend`, with the model in it.

    Without a device, JAX's default one is taken, and of other backends the usual one. `batch_size`
    images are computed together, at most.

    Raises:
      InputError: there is no such backend, device or precision, or they do not go together.
      UserError: the backend is not installed, or its scores are not those of JAX.
    """
    platform = platform_of(name, device)
    precision = settle_precision(precision, name, device)
    able = {
        other: kind
        for other, kind in BACKENDS.items()
        if precision in kind.precisions.get(platform, ())
    }
    options = {"batch_size": batch_size, "precision": precision}
    if name == "auto" and [*able] != ["jax"]:
        place = device or platform
        candidates = {
            other: partial(open_backend, other, bundle, device=place, **options) for other in able
        }
        processor = device_list(device)[0].device_kind
        return choose_backend(candidates, bundle, device=processor, **options)
    name = "jax" if name == "auto" else name
    if name not in able:
        raise InputError(
            f"the backend {name} does not compute in {precision} on the {platform.upper()}",
            f"Can: {', '.join(able)}.",
        )
    if platform != "cpu":
        cost = f": {FLOAT32_COST[platform]}; see precision" if precision == "float32" else ""
        log.info("%s computes in %s on the %s%s.", name, precision, platform.upper(), cost)
    if name == "jax":
        return Jitted(bundle, devices=device_list(device), **options)
    place = parse_device(device or platform)
    return lazy.load(BACKENDS[name].dotted)(bundle, place=place, **options)


def platform_of(name: str, device: str | None) -> str:
    """Return where a backend computes if it is given `device`: cpu, gpu or tpu.

    Raises:
      InputError: there is no such backend or device, or they do not go together.
    """
    if name not in (*BACKENDS, "auto"):
        raise InputError(f"backend={name!r}: must be one of {', '.join(BACKENDS)}, auto")
    if name in ("auto", "jax"):
        return device_list(device)[0].platform
    able = BACKENDS[name].precisions
    platform = next(iter(able)) if device is None else parse_device(device).kind
    if platform not in able:
        others = (other for other, kind in BACKENDS.items() if platform in kind.precisions)
        raise InputError(
            f"device={device!r}: the backend {name} computes on the {' or '.join(able).upper()}",
            f"Can: {', '.join(others)}.",
        )
    return platform


def settle_precision(precision: str, name: str, device: str | None) -> str:
    """Return the precision that a backend computes in, where `auto` means the best for its device.

    Raises:
      InputError: there is no such precision; or as `platform_of`.
    """
    if precision not in (*PRECISIONS, "auto"):
        raise InputError(f"precision={precision!r}: must be one of {', '.join(PRECISIONS)}, auto")
    platform = platform_of(name, device)
    able = BACKENDS["jax" if name == "auto" else name].precisions
    return settle(precision, platform, able[platform])
