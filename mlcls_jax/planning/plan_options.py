"""The options of `mlcls plan`."""

from dataclasses import dataclass
from typing import Literal

from mlcls_jax.config import REQUIRED, option
from mlcls_jax.planning.chips import CHIPS, IMAGES, MFU, TPU_IMAGES, TPU_MFU


@dataclass(frozen=True, kw_only=True)
class PlanOptions:
    """The arguments; those that are None are the configuration's if there is one."""

    model: str | None = option(None, "as in `mlcls models`")
    chips: int = option(REQUIRED, "how many", min=1)
    kind: str = option(REQUIRED, f"of chip: {', '.join(CHIPS)}")
    batch: int | None = option(
        None, f"images per step; None: {TPU_IMAGES} per TPU chip, {IMAGES} per GPU", min=1
    )
    size: int | None = option(None, "side of the images; None: 448", min=1)
    classes: int | None = option(None, "number of labels; None: 80", min=1)
    dtype: Literal["bfloat16", "float32"] | None = option(None, "compute type; None: bfloat16")
    mfu: float | None = option(
        None,
        f"share of the peak that is reached; None: {MFU}, or {TPU_MFU} with convolutions on TPUs",
        min=0.001,
        max=1,
    )
    compile: bool = option(
        True,
        "ask the chip's own compiler, where libtpu or JAX's CUDA plugin is installed, which takes"
        " minutes; else check against a program for CPUs",
    )
    find_batch: bool = option(
        False, "compile several times, to find the largest batch that fits by bisection"
    )
    must_fit: bool = option(False, "fail if the batch does not fit")
    json: bool = option(False, "print the numbers as JSON")
    program: str | None = option(None, "file for the compiled program (HLO)", path="local")
