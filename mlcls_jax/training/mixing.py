"""Mixup and CutMix on the device: each picture of a batch mixed with another of the same batch."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, TypedDict

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Int32, Key, UInt8

from mlcls_jax import config as schema


class DeviceBatch(TypedDict):
    """A batch (`data.types.Batch`) on the device."""

    image: UInt8[Array, "B H W 3"]
    target: Float[Array, "B K"]
    mask: Bool[Array, " B"]
    index: Int32[Array, " B"]


Mix = Callable[[DeviceBatch, Key[Array, ""]], DeviceBatch]

STREAM = 0x6D6978  # keeps our draws apart from dropout's, which come of the same key


class Mixture(NamedTuple):
    """The random draws for one batch."""

    partner: Int[Array, " B"]  # a permutation
    own: Float[Array, "H W"]  # share of the picture itself at each pixel; the rest is the partner's
    share: Float[Array, ""]  # the mean of `own`: what the targets are mixed by


def make_mix(config: schema.Data) -> Mix | None:
    """Return the mixing of `config`, deterministic in the key; None if there is none."""
    if config.mix_probability == 0 or config.mixup == config.cutmix == 0:
        return None
    return partial(
        mix,
        mixup_alpha=config.mixup,
        cutmix_alpha=config.cutmix,
        probability=config.mix_probability,
    )


def mix(
    batch: DeviceBatch,
    key: Key[Array, ""],
    *,
    mixup_alpha: float,
    cutmix_alpha: float,
    probability: float,
) -> DeviceBatch:
    """Return a mixed batch with `probability`, else the batch as it is; see `draw`.

    Pictures stay uint8, so that mixing changes nothing of what follows: Mixup is rounded, by at
    most half a grey level. Targets of any number of labels are mixed alike; what is not annotated
    (-1) in one of the two is not in the mixture. Padding rows (mask False) neither change nor get
    into other rows: a picture whose partner is padding stays as it is.
    """
    images, targets, mask = batch["image"], batch["target"], batch["mask"]
    size, height, width, _ = images.shape
    mixture = draw(
        jax.random.fold_in(key, STREAM),
        size,
        (height, width),
        mixup_alpha=mixup_alpha,
        cutmix_alpha=cutmix_alpha,
        probability=probability,
    )
    mixed = (mixture.share < 1) & mask & mask[mixture.partner]
    partner = jnp.where(mixed, mixture.partner, jnp.arange(size))
    # One's own value plus a difference: mixed with itself, a row is as it was, to the last bit.
    own, other = (rows.astype(jnp.float32) for rows in (images, images[partner]))
    blended = own + (1 - mixture.own[..., None]) * (other - own)
    others = targets[partner]
    unknown = (targets < 0) | (others < 0)
    return {
        **batch,
        "image": jnp.rint(blended).astype(images.dtype),
        "target": jnp.where(unknown, -1, targets + (1 - mixture.share) * (others - targets)),
    }


def draw(
    key: Key[Array, ""],
    batch_size: int,
    image_size: tuple[int, int],
    *,
    mixup_alpha: float,
    cutmix_alpha: float,
    probability: float,
) -> Mixture:
    """Draw a permutation as partners, and one share λ ~ Beta(alpha, alpha) for the whole batch.

    Mixup (Zhang et al., 2018) blends with λ everywhere. CutMix (Yun et al., 2019) pastes a box
    around a random pixel, λ being what it leaves; as it is cut off at the border, the true share
    is counted. An alpha of 0 is none of that kind; when there are both, each is as likely.
    With 1 - `probability`, λ is 1.
    """
    keys = jax.random.split(key, 5)
    both = mixup_alpha > 0 and cutmix_alpha > 0
    cuts = jax.random.bernoulli(keys[0]) if both else jnp.array(cutmix_alpha > 0)
    alpha = jnp.where(cuts, cutmix_alpha, mixup_alpha)
    kept = jax.random.beta(keys[1], alpha, alpha)
    kept = jnp.where(jax.random.bernoulli(keys[2], probability), kept, 1.0)
    outside = ~_box(keys[3], image_size, 1 - kept)
    return Mixture(
        partner=jax.random.permutation(keys[4], batch_size),
        own=jnp.where(cuts, outside.astype(jnp.float32), kept),
        share=jnp.where(cuts, jnp.mean(outside), kept),
    )


def _box(key: Key[Array, ""], size: tuple[int, int], area: Float[Array, ""]) -> Array:
    """Return bool [H, W]: a box with a share of the area and the picture's aspect, clipped.

    Bounds as PaddleClas' (`CutmixOperator`): an odd side is one pixel less.
    """
    centre = jax.random.randint(key, (2,), 0, jnp.array(size))
    half = (jnp.array(size) * jnp.sqrt(area)).astype(jnp.int32) // 2
    rows, columns = (
        (jnp.arange(side) >= c - h) & (jnp.arange(side) < c + h)
        for side, c, h in zip(size, centre, half, strict=True)
    )
    return rows[:, None] & columns
