"""Swin Transformer (Liu et al., 2021) and V2 (Liu et al., 2022) as in timm and PaddleClas.

Windows grow and shrink with the image, as by timm's `set_input_size`: at every size a map has as
many of them, and the biases of V1, stored for the original windows, are resampled in every pass.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from mlcls_jax.models.chain import attach
from mlcls_jax.models.dropout import Draws, drop_path
from mlcls_jax.models.family import Family, Parts
from mlcls_jax.models.initial import ZEROS, Constant, Normal, param
from mlcls_jax.models.layers import Linear, Patches, gelu
from mlcls_jax.models.norms import LayerNorm
from mlcls_jax.models.positions import resample_biases
from mlcls_jax.models.published import Source, paddle, timm
from mlcls_jax.models.weight_names import NameTable, renamed

INITIAL = Normal(0.02)
HEAD = 32  # channels of an attention head
STEM = 4  # pixels to a patch
Sides = tuple[int, int]  # height and width


@dataclass(frozen=True, kw_only=True)
class SwinConfig:
    """Sizes; `windows` in cells a side for each of the four stages, at images of `size` pixels."""

    width: int  # of the first stage; each of the others has twice that of the one before
    depths: tuple[int, ...]
    windows: tuple[int, ...]
    size: int
    is_v2: bool = False
    drop_path: float = 0.0
    # V2: windows of an earlier training at a smaller size, of which coordinates are parts.
    trained_windows: tuple[int, ...] = (0, 0, 0, 0)

    def windows_at(self, grid: Sides) -> list[Sides]:
        """Return the window of each stage for images of so many patches."""
        stored = self.size // STEM
        rows, columns = ([max(1, w * side // stored) for w in self.windows] for side in grid)
        return list(zip(rows, columns, strict=True))


class Swin(nnx.Module):
    """images [B, H, W, 3] → features [B, H / 32, W / 32, 8 width], normalised at each cell."""

    def __init__(
        self, config: SwinConfig, *, pool: bool = False, dtype: jnp.dtype | None = None
    ) -> None:
        width = config.width
        self.stem = Patches(3, width, STEM, initial=INITIAL, dtype=dtype)
        self.stem_norm = LayerNorm(width)
        groups: list[dict[str, nnx.Module]] = []
        for stage, count in enumerate(config.depths):
            for index in range(count):
                group: dict[str, nnx.Module] = {}
                if stage and not index:
                    group[f"downsample{stage}"] = Merge(width, is_v2=config.is_v2, dtype=dtype)
                    width *= 2
                block = Block(config, stage, is_shifted=index % 2 == 1, dtype=dtype)
                groups.append(group | {f"stage{stage}_{index}": block})
        stages = attach(self, groups, config.drop_path)
        self.norm = LayerNorm(width)
        self.channels, self.config = width, config
        self.parts = Parts(stem=("stem", "stem_norm"), stages=stages, outputs=("norm",))

    def __call__(
        self, images: Float[Array, "B H W 3"], *, train: bool = False, draws: Draws | None = None
    ) -> Float[Array, "B h w C"]:
        x = self.stem_norm(self.stem(images))
        windows = self.config.windows_at((x.shape[1], x.shape[2]))
        for stage, (count, window) in enumerate(zip(self.config.depths, windows, strict=True)):
            if stage > 0:
                x = getattr(self, f"downsample{stage}")(x)
            for index in range(count):
                x = getattr(self, f"stage{stage}_{index}")(x, window=window, draws=draws)
        return self.norm(x)


class Merge(nnx.Module):
    """2 x 2 cells become one of twice the channels; odd maps get a row or column of zeros."""

    def __init__(self, width: int, *, is_v2: bool, dtype: jnp.dtype | None) -> None:
        self.reduce = Linear(4 * width, 2 * width, bias=False, initial=INITIAL, dtype=dtype)
        self.norm = LayerNorm((2 if is_v2 else 4) * width)
        self.is_v2 = is_v2

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w D"]:
        batch, height, width, channels = x.shape
        x = jnp.pad(x, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)))
        rows, columns = -(-height // 2), -(-width // 2)
        x = x.reshape(batch, rows, 2, columns, 2, channels).transpose(0, 1, 3, 4, 2, 5)
        x = x.reshape(batch, rows, columns, 4 * channels)
        return self.norm(self.reduce(x)) if self.is_v2 else self.reduce(self.norm(x))


class Block(nnx.Module):
    """Attention within windows, every other time shifted by half of one, then two linear layers.

    Each is added to what went in; V1 normalises before them, V2 after.
    """

    drop_path = 0.0

    def __init__(
        self, config: SwinConfig, stage: int, *, is_shifted: bool, dtype: jnp.dtype | None
    ) -> None:
        width = config.width * 2**stage
        # V2 starts as the identity.
        norm = partial(LayerNorm, width, **({"initial": ZEROS} if config.is_v2 else {}))
        linear = partial(Linear, initial=INITIAL, dtype=dtype)
        self.norm1 = norm()
        self.attention = Attention(config, stage, dtype=dtype)
        self.norm2 = norm()
        self.fc1 = linear(width, 4 * width, shared="columns")
        self.fc2 = linear(4 * width, width, shared="rows")
        self.is_v2, self.is_shifted = config.is_v2, is_shifted

    def __call__(
        self, x: Float[Array, "B H W C"], *, window: Sides, draws: Draws | None = None
    ) -> Float[Array, "B H W C"]:
        mixed = self.norm1(self.mix(x, window)) if self.is_v2 else self.mix(self.norm1(x), window)
        x = x + drop_path(mixed, self.drop_path, draws)
        y = self.fc2(gelu(self.fc1(x if self.is_v2 else self.norm2(x))))
        return x + drop_path(self.norm2(y) if self.is_v2 else y, self.drop_path, draws)

    def mix(self, x: Float[Array, "B H W C"], window: Sides) -> Float[Array, "B H W C"]:
        """Shift, pad, cut into windows, attend, and back."""
        batch, *sides, channels = x.shape
        # A map that is no larger than a window is one, and there is nothing to shift.
        half = 2 if self.is_shifted else max(window) + 1
        shift = [w // half if s > w else 0 for s, w in zip(sides, window, strict=True)]
        window = min(sides[0], window[0]), min(sides[1], window[1])
        counts = [-(-s // w) for s, w in zip(sides, window, strict=True)]
        pads = [(0, -s % w) for s, w in zip(sides, window, strict=True)]
        if any(shift):
            x = jnp.roll(x, [-n for n in shift], (1, 2))
        if any(high for _, high in pads):
            x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
        x = x.reshape(batch, counts[0], window[0], counts[1], window[1], channels)
        x = x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, counts[0] * counts[1], -1, channels)
        x = self.attention(x, window, strangers(counts, window, shift) if any(shift) else None)
        x = x.reshape(batch, *counts, *window, channels).transpose(0, 1, 3, 2, 4, 5)
        x = x.reshape(batch, counts[0] * window[0], counts[1] * window[1], channels)
        x = x[:, : sides[0], : sides[1]]
        return jnp.roll(x, shift, (1, 2)) if any(shift) else x


class Attention(nnx.Module):
    """Attention of the cells of each window, biased by how they lie to each other.

    V1 has a table of biases, V2 a small network for them, and compares cells by their cosine.
    """

    def __init__(self, config: SwinConfig, stage: int, *, dtype: jnp.dtype | None) -> None:
        width, self.window = config.width * 2**stage, config.windows[stage]
        self.is_v2, self.trained_window = config.is_v2, config.trained_windows[stage]
        count = self.num_heads = width // HEAD
        linear = partial(Linear, initial=INITIAL, dtype=dtype)
        if self.is_v2:
            self.log_scale = param((count,), Constant(float(np.log(10))))
            self.bias1 = Linear(2, 512, initial=INITIAL)
            self.bias2 = Linear(512, count, bias=False, initial=INITIAL)
        else:
            self.table = param(((2 * self.window - 1) ** 2, count), INITIAL)
        self.qkv = linear(width, 3 * width, bias=not self.is_v2, shared="columns")
        if self.is_v2:
            self.q_bias, self.v_bias = param((width,), ZEROS), param((width,), ZEROS)
        self.proj = linear(width, width, shared="rows")

    def __call__(
        self, x: Float[Array, "B W N C"], window: Sides, mask: Float[np.ndarray, "W N N"] | None
    ) -> Float[Array, "B W N C"]:
        batch, count, cells, channels = x.shape
        # As one row of cells: exports make products of it, and convolutions of what is a map.
        x = self.qkv(x.reshape(batch, -1, channels))
        wide = jnp.promote_types(x.dtype, jnp.float32)
        if self.is_v2:
            q_bias, v_bias = self.q_bias[...], self.v_bias[...]
            x = x + jnp.concatenate([q_bias, jnp.zeros_like(q_bias), v_bias]).astype(x.dtype)
        q, k, v = jnp.split(x, 3, axis=-1)
        if not self.is_v2:
            q = q * HEAD**-0.5
        shape = (batch, count, cells, self.num_heads, HEAD)
        q, k, v = (part.reshape(shape) for part in (q, k, v))
        if self.is_v2:
            scale = jnp.exp(jnp.minimum(self.log_scale[...], float(np.log(100))))
            q, k = scale[:, None] * unit(q.astype(wide)), unit(k.astype(wide))
        scores = jnp.einsum("bwqhd,bwnhd->bwhqn", q.astype(x.dtype), k.astype(x.dtype))
        scores = scores.astype(wide) + self.biases(window)[pairs(window)].transpose(2, 0, 1)
        if mask is not None:
            scores = scores + mask[:, None]
        weights = jax.nn.softmax(scores).astype(x.dtype)
        x = jnp.einsum("bwhqn,bwnhd->bwqhd", weights, v)
        return self.proj(x.reshape(batch, -1, channels)).reshape(batch, count, cells, channels)

    def biases(self, window: Sides) -> Float[Array, "P heads"]:
        """Return the bias of each way from one cell of a window to another, row by row."""
        if not self.is_v2:
            return jnp.asarray(resample_biases(self.table[...], self.window, window))
        ways = jnp.asarray(steps(window, self.trained_window))
        table = self.bias2(jax.nn.relu(self.bias1(ways)))
        return 16 * jax.nn.sigmoid(table.reshape(-1, self.num_heads))


def unit(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return vectors of length 1 in the same directions."""
    return x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-12)


def pairs(window: Sides) -> np.ndarray:
    """Return for each two cells of a window [N, N] the row of the table of biases they have."""
    rows, columns = (np.arange(n)[:, None] - np.arange(n) + n - 1 for n in window)
    index = rows[:, None, :, None] * (2 * window[1] - 1) + columns[None, :, None, :]
    return index.reshape(window[0] * window[1], -1)


def steps(window: Sides, trained: int) -> Float[np.ndarray, "P Q 2"]:
    """Return the ways between cells, by the logarithm of their part of the window, as V2 does."""
    found = []
    for side in window:
        ways = 8 * np.arange(1 - side, side) / max((trained or side) - 1, 1)
        found.append(np.sign(ways) * np.log2(np.abs(ways) + 1) / np.log2(8))
    return np.stack(np.meshgrid(*found, indexing="ij"), -1).astype(np.float32)


def strangers(counts: list[int], window: Sides, shift: list[int]) -> Float[np.ndarray, "W N N"]:
    """Return -100 for two cells of a shifted window that come from opposite edges, else 0."""
    regions = []  # of each row, and of each column: what was there, what the shift brought
    for count, size, by in zip(counts, window, shift, strict=True):
        places = np.arange(count * size)
        regions.append((places >= count * size - size) + 1 * (places >= count * size - by))
        if not by:
            regions[-1] = 0 * places
    rows, columns = (r.reshape(-1, size) for r, size in zip(regions, window, strict=True))
    region = 3 * rows[:, None, :, None] + columns[None, :, None, :]  # [rows, columns, h, w]
    region = region.reshape(counts[0] * counts[1], -1)
    return np.where(region[:, :, None] == region[:, None], 0, -100).astype(np.float32)


RULES = (
    (r"^stem\.", "patch_embed.proj."),
    (r"^stem_norm", "patch_embed.norm"),
    (r"^stage(\d)_", r"layers.\1.blocks."),
    (r"\.attention", ".attn"),
    (r"\.(fc\d)", r".mlp.\1"),
    (r"reduce", "reduction"),
    (r"log_scale", "logit_scale"),
    (r"bias1", "cpb_mlp.0"),
    (r"bias2", "cpb_mlp.2"),
    (r"table$", "relative_position_bias_table"),
)
LAYOUTS = {"log_scale$": "number", "table$": "biases"}


def names(backbone: Swin, origin: str) -> NameTable:
    """Map each parameter to its place in a file of `origin`: paddle or timm."""
    # timm has a downsampling at the start of a stage, Paddle at the end of the one before.
    shift = 1 if origin == "paddle" else 0
    down = (r"^downsample(\d)", lambda found: f"layers.{int(found[1]) - shift}.downsample")
    return renamed(backbone, origin, (down, *RULES), layouts=LAYOUTS)


SIZES = {
    "tiny": (96, (2, 2, 6, 2)),
    "small": (96, (2, 2, 18, 2)),
    "base": (128, (2, 2, 18, 2)),
    "large": (192, (2, 2, 18, 2)),
}
# timm's names, and the tags of the best weights there.
TIMM = {
    "swin_tiny_patch4_window7_224": "ms_in1k",
    "swin_small_patch4_window7_224": "ms_in22k_ft_in1k",
    "swin_base_patch4_window7_224": "ms_in22k_ft_in1k",
    "swin_base_patch4_window12_384": "ms_in22k_ft_in1k",
    "swin_large_patch4_window7_224": "ms_in22k_ft_in1k",
    "swin_large_patch4_window12_384": "ms_in22k_ft_in1k",
    "swin_s3_tiny_224": "ms_in1k",
    "swin_s3_small_224": "ms_in1k",
    "swin_s3_base_224": "ms_in1k",
}
# Those of an architecture search (Chen et al., 2021): blocks, and windows.
S3 = {
    "swin_s3_tiny_224": ((2, 2, 6, 2), (7, 7, 14, 7)),
    "swin_s3_small_224": ((2, 2, 18, 2), (14, 14, 14, 7)),
    "swin_s3_base_224": ((2, 2, 30, 2), (7, 7, 14, 7)),
}
V2_TIMM = {
    "swinv2_tiny_window8_256": "ms_in1k",
    "swinv2_tiny_window16_256": "ms_in1k",
    "swinv2_small_window8_256": "ms_in1k",
    "swinv2_small_window16_256": "ms_in1k",
    "swinv2_base_window8_256": "ms_in1k",
    "swinv2_base_window16_256": "ms_in1k",
    "swinv2_base_window12_192": "ms_in22k",
    "swinv2_base_window12to16_192to256": "ms_in22k_ft_in1k",
    "swinv2_base_window12to24_192to384": "ms_in22k_ft_in1k",
    "swinv2_large_window12_192": "ms_in22k",
    "swinv2_large_window12to16_192to256": "ms_in22k_ft_in1k",
    "swinv2_large_window12to24_192to384": "ms_in22k_ft_in1k",
}
NOT_IN_PADDLE = ("_s3_", "window12_192", "base_patch4_window12to16")


def ours(twin: str) -> str:
    """Return the name, PaddleClas' where it has the network, of what timm calls `twin`."""
    if "v2" not in twin:
        return twin.replace("swin", "SwinTransformer")
    name = twin.replace("swinv2", "SwinTransformerV2").replace("_window", "_patch4_window")
    # Paddle's names do not tell the smaller windows trained before; one of two has to.
    return name if NOT_IN_PADDLE[-1] in name else re.sub(r"\d+to", "", name)


def read(twin: str) -> SwinConfig:
    """Return the sizes of timm's network of this name, as the name tells them."""
    if twin in S3:
        depths, windows = S3[twin]
        return SwinConfig(width=96, depths=depths, windows=windows, size=224)
    width, depths = SIZES[twin.split("_")[1]]
    numbers = [int(n) for n in re.findall(r"\d+", twin.partition("window")[2])]
    window = numbers[len(numbers) // 2 - 1]  # 8_256, or 12to16_192to256
    config = SwinConfig(width=width, depths=depths, windows=(window,) * 4, size=numbers[-1])
    trained = numbers[0] if len(numbers) == 4 else 0
    return replace(
        config, is_v2="v2" in twin, trained_windows=(trained, trained, trained, trained // 2)
    )


def sources(name: str) -> tuple[Source, ...]:
    """Return the published weights of a variant."""
    twin = next(twin for twin in (*TIMM, *V2_TIMM) if ours(twin) == name)
    tag = (TIMM | V2_TIMM)[twin]
    trained_on = "ImageNet-22k" if tag == "ms_in22k" else "ImageNet"
    found = (timm(f"{twin}.{tag}", licence="MIT", trained_on=trained_on),)
    if any(part in name for part in NOT_IN_PADDLE):
        return found
    folder = "" if "V2" in name else "legendary_models/"
    return (paddle(f"{name}_pretrained", folder=folder), *found)


def _family(twins: Iterable[str]) -> Family:
    return Family(
        variants={ours(twin): read(twin) for twin in twins},
        build=Swin,
        names=names,
        recipes="clip_vit",
        heads={"paddle": "head", "timm": "head.fc"},
        head_initial=lambda channels: INITIAL,
        sources=sources,
        timm_names={twin: ours(twin) for twin in twins},
    )


FAMILY, V2_FAMILY = _family(TIMM), _family(V2_TIMM)
