"""The contract of a backbone: what its module offers, and what each network of it states.

Whatever treats parts of a network differently (recomputation, layer decay, sharding, planning,
weight files) asks what is stated here. Names of attributes mean nothing to it.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, runtime_checkable

from jaxtyping import Array, Float

from mlcls_jax.config import Model
from mlcls_jax.models.dropout import Draws
from mlcls_jax.models.initial import Initial
from mlcls_jax.models.pixels import IMAGENET, Pixels
from mlcls_jax.models.published import Source
from mlcls_jax.models.weight_names import NameTable


@dataclass(frozen=True, kw_only=True)
class Parts:
    """A backbone in the order in which images pass it, by paths of modules or parameters.

    Together the parts hold every parameter of the backbone.
    """

    stem: tuple[str, ...]
    # One entry per block, of one or more modules: a downsampling goes with the block after it.
    stages: tuple[tuple[str, ...], ...]
    outputs: tuple[str, ...] = ()  # after the last block; they count with the head

    def depths(self, paths: Iterable[str]) -> dict[str, int]:
        """Return how many blocks below the head each parameter lies.

        Outputs are at 0, the last block at 1, the one before it at 2, and so on; the stem is below
        the first block.

        Raises:
          ValueError: a parameter is in no part, or in several.
        """
        levels = (self.outputs, *reversed(self.stages), self.stem)
        found = {}
        for path in paths:
            holders = [
                depth
                for depth, level in enumerate(levels)
                for part in level
                if path == part or path.startswith(f"{part}/")
            ]
            if len(holders) != 1:
                raise ValueError(
                    f"{path}: is in {len(holders)} of the parts of the backbone, not 1"
                )
            (found[path],) = holders
        return found


@runtime_checkable
class Backbone(Protocol):
    """A Flax module: images [B, H, W, 3] → feature map [B, h, w, C]."""

    channels: int  # C
    parts: Parts

    def __call__(
        self, images: Float[Array, "B H W 3"], *, train: bool = False, draws: Draws | None = None
    ) -> Float[Array, "B h w C"]: ...


@runtime_checkable
class Head(Protocol):
    """A Flax module: feature map [B, h, w, C] → logits [B, K]."""

    has_evidence: ClassVar[bool]  # there is `evidence(features)`: where each query looks
    # Path of the kernel that multiplies the feature map; None: a factor on that would not show.
    entry: ClassVar[str | None]
    label_bias: ClassVar[str]  # path of the vector with one number per label

    def __call__(
        self, features: Float[Array, "B h w C"], *, draws: Draws | None = None
    ) -> Float[Array, "B K"]: ...

    def names(self, origin: str) -> NameTable:
        """Return where each parameter is found in a file of `origin`."""
        ...


def _keep(model: Model, origin: str, *, has_decoder: bool) -> Model:
    """Return the options as they are: weights mean the same in files of every origin."""
    return model


@dataclass(frozen=True, kw_only=True)
class Family:
    """Contract of a backbone: what its module in `backbones` states, registered by one line."""

    # Names that users type, without the suffix of the head → sizes, a frozen dataclass.
    variants: dict[str, Any]
    # (sizes, *, pool, dtype) → the untrained module; `pool`: the plain classifier follows, which
    # sees the mean of the map alone.
    build: Callable[..., Backbone]
    # (module, origin) → where each parameter and statistic is found in a file of that origin. Those
    # of Paddle come in the order in which its constructor makes them: its inference folders number
    # the layers of each kind, and name none.
    names: Callable[[Any, str], NameTable]
    heads: dict[str, str]  # origin of weight files → name of the plain classifier in them
    decoder: str = "fc"  # name of the ML-Decoder in weight files
    recipes: str = "resnet"  # file of `recipes` that suits it, where it has none of its own
    head_initial: Callable[[int], Initial | None] = lambda channels: None  # None: Linear's own
    # (sizes) → pixels to a cell of the feature map: images' sides should be multiples of it.
    stride: Callable[[Any], int] = lambda sizes: 32
    # Name as the user wrote it, ours or timm's → statistics of the pixels that it is given.
    pixels: Callable[[str], Pixels] = lambda name: IMAGENET
    # (options, origin, *, has_decoder) → the options under which weights of that origin mean what
    # they meant there, where left open.
    adapt: Callable[..., Model] = _keep
    # Variants that PaddleX publishes with an ML-Decoder, trained on COCO.
    official: tuple[str, ...] = ()
    # timm's name of the same network, by which it can be asked for as well → name of the variant
    timm_names: dict[str, str] = field(default_factory=dict)
    # Name of a variant → that of the network into which a file of both towers, of images and texts,
    # is read.
    words: Callable[[str], str] = lambda name: name
    # Name of a variant → pretrained backbones of it, the best start first.
    sources: Callable[[str], tuple[Source, ...]] = lambda name: ()
