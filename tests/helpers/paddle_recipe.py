"""The drawn weights and inputs with which the goldens in tests/data/paddle were computed.

Each tensor depends on its Paddle key, its shape and the seed alone; see `weight`.
"""

import json
import re
import zlib
from pathlib import Path

import numpy as np

DATA = Path(__file__).parents[1] / "data" / "paddle"
SEED = 7

# Scale of a norm's weight by full key; keeps the activations of untrained deep nets in range.
GAINS = {
    r"blocks\.\d+\.conv2\.bn\.weight": 0.18,
    r"blocks\.\d+\.short\.bn\.weight": 0.7,
    r"stages\.\d+\.blocks\.\d+\.layers\.\d+\.conv1\.bn\.weight": 0.65,
    r"stages\.\d+\.blocks\.\d+\.aggregation_excitation_conv\.bn\.weight": 0.5,
    r"blocks\.\d+\.linear_conv\.bn\.weight": 0.3,
    r"(conv1|blocks\d+\.\d+\.(dw_conv|pw_conv))\.bn\.weight": 1.1,
}


def golden(name: str) -> dict[str, np.ndarray]:
    """The arrays of one golden file."""
    with np.load(DATA / f"{name}.npz") as arrays:
        return dict(arrays)


def weights(params: np.ndarray | str) -> dict[str, np.ndarray]:
    """The drawn tensors for a golden's `params`, a JSON list of [key, shape]."""
    return {key: weight(key, tuple(shape)) for key, shape in json.loads(str(params))}


def weight(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """One drawn tensor, float32 in Paddle's layout."""
    rng = np.random.Generator(np.random.PCG64(zlib.crc32(key.encode()) ^ SEED))
    last = key.rpartition(".")[2]
    if last == "_variance":
        value = rng.uniform(0.5, 1.5, shape)
    elif last == "scale":
        value = rng.uniform(0.8, 1.2, shape)
    elif last == "weight" and len(shape) == 1:
        gains = (gain for pattern, gain in GAINS.items() if re.fullmatch(pattern, key))
        value = rng.uniform(0.8, 1.2, shape) * next(gains, 1.0)
    else:
        value = rng.standard_normal(shape) * _standard_deviation(key, last, shape)
    return value.astype(np.float32)


def _standard_deviation(key: str, last: str, shape: tuple[int, ...]) -> float:
    if key in ("pos_embed", "cls_token"):
        return 0.2
    if key == "proj" or key.endswith("query_pos_embed.weight"):
        return 0.02
    if last in ("_mean", "bias"):
        return 0.1
    fan_in = shape[0] if len(shape) == 2 else np.prod(shape[1:])
    return float(np.sqrt(2.0 / fan_in))


def images(batch: int, height: int, width: int) -> np.ndarray:
    """The drawn, already normalised input, float32 NHWC."""
    rng = np.random.Generator(np.random.PCG64(SEED))
    nchw = rng.standard_normal((batch, 3, height, width)).astype(np.float32)
    return nchw.transpose(0, 2, 3, 1)


def image_for(height: int, width: int, *, index: int, seed: int) -> np.ndarray:
    """Return the picture that goldens of images were computed from, by their integer recipe."""
    generator = np.random.Generator(np.random.PCG64(seed * 1000 + 17 * index + 3))
    waves = generator.integers(0, 512, (3, 3, 3))
    noise = generator.integers(-24, 25, (height, width, 3))
    y, x = np.arange(height)[:, None], np.arange(width)[None, :]
    channels = []
    for channel in waves:
        total = np.zeros((height, width), np.int64)
        for fy, fx, phase in channel:
            t = (fy * 8 * y // height + fx * 8 * x // width + phase) % 512
            total += np.where(t < 256, t, 511 - t)
        channels.append(total // 3)
    return np.clip(np.stack(channels, -1) + noise, 0, 255).astype(np.uint8)
