"""Backbones that are a row of modules."""

import functools
import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from mlcls_jax.models.dropout import Draws, dropout
from mlcls_jax.models.family import Parts
from mlcls_jax.models.initial import Constant, FrozenParam, param
from mlcls_jax.models.layers import Conv
from mlcls_jax.models.weight_names import Foreign, NameTable


class Chain(nnx.Module):
    """images [B, H, W, 3] → features [B, h, w, C], the same whether a head pools them or not.

    Modules are given by the paths under which they are kept; see `attach` for the blocks. They are
    called with `train`, blocks whose config has `drop_path` with `draws` as well.
    """

    def __init__(
        self,
        config: Any,
        *,
        channels: int,
        stem: Mapping[str, Any],
        blocks: Iterable[Mapping[str, Any]],
        outputs: Mapping[str, Any] = MappingProxyType({}),
        before: Callable[[Array], Array] | None = None,
        max_pool: Callable[[Array], Array] | None = None,
    ) -> None:
        for path, module in stem.items():
            setattr(self, path, module)
        stages = attach(self, blocks, getattr(config, "drop_path", 0.0))
        for path, module in outputs.items():
            setattr(self, path, module)
        self.config, self.channels, self.before, self.max_pool = config, channels, before, max_pool
        self.outputs = tuple(outputs)
        self.parts = Parts(stem=tuple(stem), stages=stages, outputs=self.outputs)

    def __call__(
        self, images: Float[Array, "B H W 3"], *, train: bool = False, draws: Draws | None = None
    ) -> Float[Array, "B h w C"]:
        x = images if self.before is None else self.before(images)
        for path in self.parts.stem:
            x = getattr(self, path)(x, train=train)
        if self.max_pool is not None:
            x = self.max_pool(x)
        options = {"draws": draws} if hasattr(self.config, "drop_path") else {}
        for path in itertools.chain(*self.parts.stages):
            x = module_at(self, path)(x, train=train, **options)
        for path in self.outputs:
            x = getattr(self, path)(x, train=train)
        return x


class LastConvChain(Chain):
    """A chain whose last convolution widens the map: features [B, h, w, config.out_channels].

    With `pool`, as before the plain classifier, it sees the mean over the map.

    Paddle's dropout (downscale_in_infer) drops without rescaling in training and scales down in
    evaluation. This is dropout as usual on features that are scaled by the same number,
    `feature_scale`, which other origins lack.
    """

    def __init__(
        self,
        config: Any,
        *,
        last_conv: Conv,
        activation: Callable[[Array], Array],
        pool: bool,
        lab: nnx.Module | None = None,  # after the activation
        is_scaled: bool = True,
        **modules: Any,
    ) -> None:
        super().__init__(config, channels=config.out_channels, **modules)
        self.last_conv, self.activation, self.lab, self.pool = last_conv, activation, lab, pool
        scale = Constant(_kept_share(config.dropout))
        self.feature_scale = param((), scale, FrozenParam) if is_scaled else None
        own = {"last_conv": last_conv, "lab": lab, "feature_scale": self.feature_scale}
        found = (name for name, module in own.items() if module is not None)
        self.parts = replace(self.parts, outputs=(*self.outputs, *found))

    def __call__(
        self, images: Float[Array, "B H W 3"], *, train: bool = False, draws: Draws | None = None
    ) -> Float[Array, "B h w C"]:
        x = super().__call__(images, train=train, draws=draws)
        if self.pool:
            x = x.mean((1, 2), keepdims=True)
        x = self.activation(self.last_conv(x))
        x = x if self.lab is None else self.lab(x)
        x = dropout(x, self.config.dropout, draws)
        if self.feature_scale is None:
            return x
        return x * jax.lax.stop_gradient(self.feature_scale[...]).astype(x.dtype)

    def scale_name(self, origin: str) -> NameTable:
        """Return the table of `feature_scale`: Paddle has it built in, timm does not scale."""
        if self.feature_scale is None:
            return {}
        scale = _kept_share(self.config.dropout) if origin == "paddle" else 1.0
        return {"feature_scale": Foreign(None, "scale", scale)}


def _kept_share(rate: float) -> float:
    return float(np.float32(1.0 - rate))


class Folder(nnx.Module):
    """Modules whose paths begin alike."""


def attach(
    owner: nnx.Module, blocks: Iterable[Mapping[str, Any]], drop_path: float
) -> tuple[tuple[str, ...], ...]:
    """Keep blocks in a module and return their paths, one tuple per block, as `Parts.stages`.

    A block may have others before it, a downsampling for instance; a path such as `stage0/block1`
    lies in a module `stage0`. What blocks drop in training rises from 0 at the first to
    `drop_path` at the last.
    """
    blocks = list(blocks)
    for path, module in itertools.chain(*(group.items() for group in blocks)):
        *owners, name = path.split("/")
        holder = owner
        for step in owners:
            if not hasattr(holder, step):
                setattr(holder, step, Folder())
            holder = getattr(holder, step)
        setattr(holder, name, module)
    for place, group in enumerate(blocks if drop_path else ()):
        *_, block = group.values()
        block.drop_path = drop_path * place / max(len(blocks) - 1, 1)
    return tuple(map(tuple, blocks))


def module_at(owner: nnx.Module, path: str) -> Any:
    """Return the module at a path such as `stage0/block1`."""
    return functools.reduce(getattr, path.split("/"), owner)
