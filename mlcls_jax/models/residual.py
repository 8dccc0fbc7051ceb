"""The block of ResNets and their relatives: convolutions in a row, added to a shortcut."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from mlcls_jax.models.dropout import Draws, drop_path
from mlcls_jax.models.layers import ConvNorm, SqueezeExcite
from mlcls_jax.models.weight_names import Rule

# Where files count a block's convolutions from 1 and call its other parts otherwise.
TIMM_RULES: tuple[Rule, ...] = (
    (r"\.conv(\d)\.(?=conv|norm)", lambda found: f".conv{int(found[1]) + 1}."),
    (r"\.squeeze\.conv", ".se.fc"),
    (r"\.short\.", ".downsample."),
    (r"\.norm\.", ".bn."),
)


class Residual(nnx.Module):
    """Two or three convolutions, added to a shortcut; then ReLU.

    A bottleneck is 1 x 1 to `width`, 3 x 3 with the stride, 1 x 1; otherwise there are two 3 x 3,
    of which the first has the stride. Channels are weighed after the second, or `weighs_last`. With
    `smooth` for a stride the convolution goes over every cell, and that makes one of 2 x 2 cells of
    its result. The shortcut is a 1 x 1 convolution where the shape changes, which has the stride or
    is `pooled`: means of 2 x 2 cells go into it.
    """

    drop_path = 0.0

    def __init__(
        self,
        in_channels: int,
        width: int,
        out_channels: int,
        *,
        stride: int,
        is_bottleneck: bool = True,
        groups: int = 1,
        squeeze: SqueezeExcite | None = None,
        weighs_last: bool = False,
        smooth: Callable[[Array], Array] | None = None,
        pooled: bool = False,
        activation: Callable[[Array], Array] = nnx.relu,
        dtype: jnp.dtype | None,
    ) -> None:
        unit = partial(ConvNorm, activation=activation, dtype=dtype)
        last = partial(ConvNorm, dtype=dtype)
        self.smooth, self.pooled = smooth if stride > 1 else None, pooled and stride > 1
        step = 1 if self.smooth else stride
        if is_bottleneck:
            self.conv0 = unit(in_channels, width, 1)
            self.conv1 = unit(width, width, 3, stride=step, groups=groups)
            self.conv2 = last(width, out_channels, 1)
        else:
            self.conv0 = unit(in_channels, width, 3, stride=step)
            self.conv1 = last(width, out_channels, 3)
        self.convs = ("conv0", "conv1", "conv2") if is_bottleneck else ("conv0", "conv1")
        self.squeeze, self.weighed = squeeze, len(self.convs) - 1 if weighs_last else 1
        changes = stride > 1 or in_channels != out_channels
        step = 1 if self.pooled else stride
        self.short = last(in_channels, out_channels, 1, stride=step) if changes else None

    def __call__(
        self, x: Float[Array, "B H W C"], *, train: bool, draws: Draws | None = None
    ) -> Float[Array, "B h w D"]:
        branch = x
        for place, name in enumerate(self.convs):
            branch = getattr(self, name)(branch, train=train)
            if self.smooth is not None and place == len(self.convs) - 2:
                branch = self.smooth(branch)
            if self.squeeze is not None and place == self.weighed:
                branch = self.squeeze(branch)
        if self.short is not None:
            x = self.short(mean_pool(x) if self.pooled else x, train=train)
        return nnx.relu(drop_path(branch, self.drop_path, draws) + x)


def mean_pool(x: Float[Array, "B H W C"]) -> Float[Array, "B h w C"]:
    """Return the means of squares of 2 x 2 cells; at an odd side's end, of the cells there are."""
    for axis, side in ((1, x.shape[1]), (2, x.shape[2])):
        if side % 2:
            last = jax.lax.slice_in_dim(x, side - 1, side, axis=axis)
            x = jnp.concatenate([x, last], axis)
    batch, height, width, channels = x.shape
    return x.reshape(batch, height // 2, 2, width // 2, 2, channels).mean((2, 4))


def blur(x: Float[Array, "B H W C"]) -> Float[Array, "B h w C"]:
    """Return every other cell of the smoothed map: weights 1, 2, 1 each way, mirrored borders."""
    return _halved(_halved(x, 1), 2)


def _halved(x: Array, axis: int) -> Array:
    # By pairs of cells, not by slices with a stride, for which exports to ONNX have no rule.
    side, cut = x.shape[axis], partial(jax.lax.slice_in_dim, axis=axis)
    count = (side + 1) // 2
    first, last = (cut(x, i, i + 1) for i in (min(1, side - 1), max(side - 2, 0)))
    x = jnp.concatenate([first, x, last, *[last] * (side % 2)], axis)
    pairs = x.reshape(*x.shape[:axis], count + 1, 2, *x.shape[axis + 1 :])
    even, odd = (jax.lax.index_in_dim(pairs, i, axis + 1, keepdims=False) for i in (0, 1))
    return (cut(even, 0, count) + 2 * cut(odd, 0, count) + cut(even, 1, count + 1)) / 4
