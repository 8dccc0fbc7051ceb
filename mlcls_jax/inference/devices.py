"""Names of devices, as PaddleX writes them: `cpu`, `gpu`, `gpu:0,1`, `tpu`."""

import re
from typing import NamedTuple, NoReturn

import jax

from mlcls_jax.errors import InputError
from mlcls_jax.parallel import Device

KINDS = ("cpu", "gpu", "tpu")
# What PaddleX computes on besides, and JAX does not.
_FOREIGN = {
    "npu": "Huawei's NPUs (Ascend)",
    "xpu": "Kunlunxin's XPUs, or Intel's",
    "mlu": "Cambricon's MLUs",
    "dcu": "Hygon's DCUs",
    "gcu": "Enflame's GCUs",
}


class Place(NamedTuple):
    """One device or several of a kind."""

    kind: str  # one of KINDS
    indices: tuple[int, ...]  # rising


def parse_device(text: str) -> Place:
    """Read `gpu:0,1`; `gpu` means the first one.

    Raises:
      InputError: the text is of another form, or JAX has no such kind.
    """
    name = text.partition(":")[0]
    if name in _FOREIGN:
        raise InputError(
            f"device={text!r}: JAX does not compute on {_FOREIGN[name]}",
            f"It computes on cpu, gpu and tpu; here there are: {_present()}. For others, export the"
            " model (`mlcls export --format onnx`) and run the file by their maker's runtime.",
        )
    match = re.fullmatch(rf"({'|'.join(KINDS)})(?::(\d+(?:,\d+)*))?", text)
    if not match:
        _refuse(text)
    return Place(match[1], tuple(sorted({int(index) for index in (match[2] or "0").split(",")})))


def device_list(text: str | None) -> list[Device]:
    """Return JAX's devices of this name; None: its default device.

    Raises:
      InputError: as `parse_device`, or there is no such device; lists those that are.
    """
    if text is None:
        return [jax.local_devices()[0]]
    place = parse_device(text)
    found = _devices_of(place.kind)
    if place.indices[-1] >= len(found):
        _refuse(text)
    return [found[index] for index in place.indices]


def _refuse(text: str) -> NoReturn:
    install = ""
    if text.startswith(("gpu", "cuda")) and not _devices_of("gpu"):
        install = ' For a GPU, JAX needs `pip install "jax[cuda13]"`, and a driver that fits.'
    raise InputError(
        f"device={text!r}: there is no such device",
        f"There are: {_present()}. One is named gpu or gpu:0, several gpu:0,1.{install}",
    )


def _present() -> str:
    return ", ".join(f"{kind}:{i}" for kind in KINDS for i in range(len(_devices_of(kind))))


def _devices_of(kind: str) -> list[Device]:
    try:
        return jax.local_devices(backend=kind)
    except RuntimeError:  # JAX has no such platform here
        return []
