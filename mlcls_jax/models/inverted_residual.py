"""The block of MobileNets and EfficientNets: widen, filter, weigh channels, narrow."""

import re
from collections.abc import Callable, Iterator
from typing import Any

from flax import nnx
from jaxtyping import Array, Float

from mlcls_jax.models.dropout import Draws, drop_path
from mlcls_jax.models.layers import ConvNorm, SqueezeExcite
from mlcls_jax.models.weight_names import Rule


class InvertedResidual(nnx.Module):
    """Widening, depthwise, narrowing convolution; added to what went in where it has that shape.

    `sizes` are those of their kernels: 0 where there is none, and the first that is no 1 x 1 has
    the stride. Narrowing has an activation where it is alone.
    """

    drop_path = 0.0

    def __init__(
        self,
        in_channels: int,
        expanded: int,
        out_channels: int,
        *,
        sizes: tuple[int, int, int],
        stride: int,
        activation: Callable[[Array], Array],
        squeeze: SqueezeExcite | None,
        unit: Callable[..., ConvNorm],
    ) -> None:
        first = next(place for place, size in enumerate(sizes) if size > 1)

        def made(place: int, *widths: int, **options: Any) -> Any:
            step = stride if place == first else 1
            return unit(*widths, sizes[place], stride=step, **options) if sizes[place] else None

        self.expand_conv = made(0, in_channels, expanded, activation=activation)
        self.bottleneck_conv = made(1, expanded, expanded, groups=expanded, activation=activation)
        self.mid_se = squeeze
        last = None if any(sizes[:2]) else activation
        self.linear_conv = made(2, expanded, out_channels, activation=last)
        self.residual = stride == 1 and in_channels == out_channels

    def __call__(
        self, x: Float[Array, "B H W C"], *, train: bool, draws: Draws | None = None
    ) -> Float[Array, "B h w D"]:
        entered = x
        if self.expand_conv is not None:
            x = self.expand_conv(x, train=train)
        if self.bottleneck_conv is not None:
            x = self.bottleneck_conv(x, train=train)
        if self.mid_se is not None:
            x = self.mid_se(x)
        x = self.linear_conv(x, train=train)
        return entered + drop_path(x, self.drop_path, draws) if self.residual else x

    def units(self) -> Iterator[str]:
        """Yield the names of its convolutions, as data meets them."""
        units = ("expand_conv", "bottleneck_conv", "linear_conv")
        yield from (unit for unit in units if getattr(self, unit) is not None)


def timm_rules(backbone: nnx.Module) -> tuple[Rule, ...]:
    """Return where timm keeps the parts of its blocks: norms are numbered, convolutions named."""
    named = {
        ("linear_conv",): ("conv",),
        ("bottleneck_conv", "linear_conv"): ("conv_dw", "conv_pw"),
        ("expand_conv", "linear_conv"): ("conv_exp", "conv_pwl"),
    }

    def unit(found: re.Match[str]) -> str:
        block, name, part = found.groups()
        units = tuple(getattr(backbone, block).units())
        place = units.index(name)
        convs = named.get(units, ("conv_pw", "conv_dw", "conv_pwl"))
        return f"{block}.{convs[place] if part == 'conv' else f'bn{place + 1}'}"

    return (
        (r"^(block\w+)\.(\w+_conv)\.(conv|norm)", unit),
        (r"mid_se\.conv1", "se.conv_reduce"),
        (r"mid_se\.conv2", "se.conv_expand"),
    )
