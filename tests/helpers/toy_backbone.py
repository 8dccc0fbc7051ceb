"""A backbone for tests: three stages, written by the contract in `family.py` alone."""

from dataclasses import dataclass

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from mlcls_jax.models.dropout import Draws
from mlcls_jax.models.family import Family, Parts
from mlcls_jax.models.layers import ConvNorm, Linear
from mlcls_jax.models.weight_names import NameTable, renamed


@dataclass(frozen=True, kw_only=True)
class ToyConfig:
    """Width of all maps."""

    width: int = 64


class Toy(nnx.Module):
    """images [B, H, W, 3] → features [B, H / 16, W / 16, C]."""

    def __init__(
        self, config: ToyConfig, *, pool: bool = False, dtype: jnp.dtype | None = None
    ) -> None:
        width = self.channels = config.width
        self.entrance = ConvNorm(3, width, 3, stride=2, activation=nnx.relu, dtype=dtype)
        self.early = Stage(width, dtype=dtype)
        self.middle = Stage(width, dtype=dtype)
        self.late = Stage(width, dtype=dtype)
        self.last = Linear(width, width, dtype=dtype)
        self.parts = Parts(
            stem=("entrance",), stages=(("early",), ("middle",), ("late",)), outputs=("last",)
        )

    def __call__(
        self, images: Float[Array, "B H W 3"], *, train: bool = False, draws: Draws | None = None
    ) -> Float[Array, "B h w C"]:
        x = self.entrance(images, train=train)
        for (path,) in self.parts.stages:
            x = getattr(self, path)(x, train=train)
        return self.last(x)


class Stage(nnx.Module):
    """A strided convolution, then two layers on each cell of the map; added to what went in."""

    def __init__(self, width: int, *, dtype: jnp.dtype | None) -> None:
        self.reduce = ConvNorm(width, width, 3, stride=2, activation=nnx.relu, dtype=dtype)
        self.widen = Linear(width, 4 * width, shared="columns", dtype=dtype)
        self.narrow = Linear(4 * width, width, shared="rows", dtype=dtype)

    def __call__(self, x: Float[Array, "B H W C"], *, train: bool) -> Float[Array, "B h w C"]:
        x = self.reduce(x, train=train)
        return x + self.narrow(nnx.relu(self.widen(x)))


RULES = (
    ("entrance", "stem"),
    ("early", "stages.0"),
    ("middle", "stages.1"),
    ("late", "stages.2"),
    ("reduce", "down"),
    (r"\.norm\.", ".bn."),
    ("widen", "mlp.fc1"),
    ("narrow", "mlp.fc2"),
    ("^last", "head.neck"),
)


def names(backbone: Toy, origin: str) -> NameTable:
    """Where each parameter and statistic is found in a file of timm."""
    return renamed(backbone, origin, RULES)


# What `python -c` runs: the command of the package, which knows this backbone as well.
COMMAND = """
from mlcls_jax import main
from mlcls_jax.models import registry
from tests.helpers import toy_backbone

registry.FAMILIES["Toy"] = toy_backbone.FAMILY
main.run()
"""

FAMILY = Family(variants={"Toy": ToyConfig()}, build=Toy, names=names, heads={"timm": "head.fc"})
