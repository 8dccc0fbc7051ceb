"""Backbone and head as one module: images in, logits out."""

from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, UInt8

from mlcls_jax.models.dropout import Draws
from mlcls_jax.models.family import Backbone, Head
from mlcls_jax.models.initial import Initial
from mlcls_jax.models.layers import Linear
from mlcls_jax.models.pixels import IMAGENET, Pixels
from mlcls_jax.models.weight_names import NameTable, renamed


class Classifier(nnx.Module):
    """images [B, H, W, 3], uint8 or already normalised float → logits [B, K]."""

    def __init__(self, backbone: Backbone, head: Head, *, pixels: Pixels = IMAGENET) -> None:
        self.backbone = backbone
        self.head = head
        self.pixels = pixels

    def __call__(
        self,
        images: UInt8[Array, "B H W 3"] | Float[Array, "B H W 3"],
        *,
        train: bool = False,
        draws: Draws | None = None,
    ) -> Float[Array, "B K"]:
        return self.head(self.feature_map(images, train=train, draws=draws), draws=draws)

    def feature_map(
        self,
        images: UInt8[Array, "B H W 3"] | Float[Array, "B H W 3"],
        *,
        train: bool = False,
        draws: Draws | None = None,
    ) -> Float[Array, "B h w C"]:
        """Return the feature map that the head sees."""
        if images.dtype == jnp.uint8:
            images = normalize(images, self.pixels)
        return self.backbone(images, train=train, draws=draws)


def normalize(
    images: UInt8[Array, "B H W 3"], pixels: Pixels = IMAGENET
) -> Float[Array, "B H W 3"]:
    """uint8 RGB to float32, with the mean and standard deviation of `pixels`."""
    scaled = images.astype(jnp.float32) * (1.0 / 255.0)
    return (scaled - jnp.array(pixels.mean, jnp.float32)) / jnp.array(pixels.std, jnp.float32)


class PoolingHead(nnx.Module):
    """Mean over the map, then one linear layer: features [B, h, w, C] → logits [B, K]."""

    has_evidence: ClassVar[bool] = False
    entry: ClassVar[str | None] = "fc/kernel"
    label_bias: ClassVar[str] = "fc/bias"

    def __init__(
        self, in_channels: int, num_classes: int, *, initial: Initial | None = None
    ) -> None:
        self.fc = Linear(in_channels, num_classes, initial=initial)

    def __call__(
        self, features: Float[Array, "B h w C"], *, draws: Draws | None = None
    ) -> Float[Array, "B K"]:
        dtype = jnp.promote_types(features.dtype, jnp.float32)
        return self.fc(jnp.mean(features, (1, 2), dtype=dtype))

    def names(self, origin: str) -> NameTable:
        """Return where each parameter is found in a file of `origin`."""
        return renamed(self, origin, [(r"^fc\.", "")])


def probabilities(
    logits: Float[Array, "B K"], task: str, *, temperature: float = 1.0
) -> Float[Array, "B K"]:
    """Scores in 0…1, float32 as the originals' metrics expect.

    With `task` "single" those of a row add up to 1; "multilabel" labels are independent. The
    logits are divided by `temperature`, which calibration chooses (Guo et al., 2017).
    """
    logits = logits if temperature == 1.0 else logits / temperature
    scores = jax.nn.softmax(logits) if task == "single" else jax.nn.sigmoid(logits)
    return scores.astype(jnp.float32)
