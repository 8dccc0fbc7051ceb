"""A backbone that is a row of modules."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from flax import nnx
from jaxtyping import Array, Float

from mlcls_jax.models.dropout import Draws
from mlcls_jax.models.family import Parts


class Chain(nnx.Module):
    """images [B, H, W, 3] → features [B, h, w, C], the same whether a head pools them or not.

    Modules are given by the paths under which they are kept. What blocks drop in training rises
    from 0 at the first to the config's `drop_path` at the last.
    """

    def __init__(
        self,
        config: Any,
        *,
        channels: int,
        stem: Mapping[str, Any],
        blocks: Mapping[str, Any],
        outputs: Mapping[str, Any] = MappingProxyType({}),
        before: Callable[[Array], Array] | None = None,
        max_pool: nnx.Module | None = None,
    ) -> None:
        for path, module in {**stem, **blocks, **outputs}.items():
            setattr(self, path, module)
        for place, block in enumerate(blocks.values()):
            block.drop_path = config.drop_path * place / max(len(blocks) - 1, 1)
        self.config, self.channels, self.before, self.max_pool = config, channels, before, max_pool
        self.parts = Parts(
            stem=tuple(stem), stages=tuple((path,) for path in blocks), outputs=tuple(outputs)
        )

    def __call__(
        self, images: Float[Array, "B H W 3"], *, train: bool = False, draws: Draws | None = None
    ) -> Float[Array, "B h w C"]:
        x = images if self.before is None else self.before(images)
        for path in self.parts.stem:
            x = getattr(self, path)(x, train=train)
        if self.max_pool is not None:
            x = self.max_pool(x)
        for (path,) in self.parts.stages:
            x = getattr(self, path)(x, train=train, draws=draws)
        for path in self.parts.outputs:
            x = getattr(self, path)(x, train=train)
        return x
