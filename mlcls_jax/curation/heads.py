"""Linear heads on embeddings, many at once: each is logistic regression on some of the images.

All heads and all labels are fitted by the same two products: of the embeddings with the weights
[D, heads · K], and back. The curvature of logistic loss is at most a quarter of that of squares
(Böhning, 1992), which is diagonal in principal components: steps scaled by it need no search, and
with Nesterov's momentum about a hundred of them are enough.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

COMPONENTS = 384  # principal ones that are kept, at most
STEPS = 100
DECAYS = (0.03, 0.1, 0.3, 1.0, 3.0)  # to choose from; the mean square of a point is 1

_BIAS_DECAY = 1e-3  # a label without a positive would drive it to minus infinity


class Space(NamedTuple):
    """The principal components of some embeddings."""

    mean: np.ndarray  # [C]
    axes: np.ndarray  # [C, D]

    def __call__(self, vectors: np.ndarray) -> np.ndarray:
        """Return points float32 [N, D] of embeddings [N, C]."""
        return ((vectors - self.mean) @ self.axes).astype(np.float32)


def principal(vectors: np.ndarray, components: int = COMPONENTS) -> Space:
    """Return the principal components of embeddings [N, C], all of whose features count alike.

    They are scaled so that the mean square of the points of these embeddings is 1.
    """
    vectors = vectors.astype(np.float32)
    mean, spread = vectors.mean(0), vectors.std(0)
    scale = 1 / np.maximum(spread, max(1e-3 * spread.max(), 1e-12))
    scaled = (vectors - mean) * scale
    values, axes = np.linalg.eigh(scaled.T @ scaled / len(vectors))
    best = np.argsort(-values)[: min(components, len(vectors))]
    length = np.sqrt(max(values[best].sum(), 1e-12))
    return Space(mean, scale[:, None] * axes[:, best] / length)


def fit(
    points: np.ndarray, targets: np.ndarray, used: np.ndarray, decay: float, steps: int = STEPS
) -> np.ndarray:
    """Return the weights of one linear head per row of `used`, float32 [heads, D + 1, K].

    Args:
      points: [N, D].
      targets: [N, K]; 1 present, 0 absent, below 0 not annotated.
      used: bool [heads, N], the images that each head learns from.
      decay: of squared weights, against the summed loss; not of the bias, which is the last row.
      steps: of the descent.
    """
    known = (targets >= 0).astype(np.float32)
    present = (targets > 0).astype(np.float32)
    rows = used.astype(np.float32)
    share = (rows @ present + 0.5) / (rows @ known + 1)  # [heads, K]
    bias = np.log(share / (1 - share))
    # The components of these points, which may be a part of those that the space is of. Neither a
    # rotation nor a shift changes what is the best head.
    mean = points.mean(0)
    centred = points - mean
    _, axes = np.linalg.eigh(centred.T @ centred)
    turned = _descend(centred @ axes, present, known, rows, bias, np.float32(decay), steps)
    weights = np.array(turned)
    weights[:, :-1] = axes @ weights[:, :-1]
    weights[:, -1] -= mean @ weights[:, :-1]
    return weights


def logits(points: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return what heads say of points [N, D]: float32 [heads, N, K]."""
    return points @ weights[:, :-1] + weights[:, -1:]


def unit(vectors: np.ndarray) -> np.ndarray:
    """Return vectors [N, D] of length 1."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def sigmoid(values: np.ndarray) -> np.ndarray:
    """Return scores of logits."""
    return 1 / (1 + np.exp(-np.clip(values, -60, 60)))


@partial(jax.jit, static_argnames="steps")
def _descend(
    points: Array,  # [N, D]
    present: Array,  # [N, K]
    known: Array,  # [N, K]
    rows: Array,  # [heads, N]
    bias: Array,  # [heads, K]
    decay: Array,
    steps: int,
) -> Array:
    (count, size), (heads, classes) = points.shape, bias.shape
    padded = jnp.concatenate([points, jnp.ones((count, 1), points.dtype)], 1)  # [N, D + 1]
    decays = jnp.append(jnp.full(size, decay), _BIAS_DECAY)
    # Of all images: no head, which sees a part of them, has more curvature.
    rate = (1 / ((padded**2).sum(0) / 4 + decays))[:, None, None]
    counted = rows.T[:, :, None] * known[:, None]  # [N, heads, K]

    def gradient(weights: Array) -> Array:  # [D + 1, heads, K]
        said = (padded @ weights.reshape(size + 1, -1)).reshape(counted.shape)
        error = (jax.nn.sigmoid(said) - present[:, None]) * counted
        back = (padded.T @ error.reshape(count, -1)).reshape(weights.shape)
        return back + decays[:, None, None] * weights

    def step(i: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
        before, ahead = state
        weights = ahead - rate * gradient(ahead)
        return weights, weights + i / (i + 3) * (weights - before)

    first = jnp.zeros((size + 1, heads, classes)).at[-1].set(bias)
    weights, _ = jax.lax.fori_loop(0, steps, step, (first, first))
    return weights.transpose(1, 0, 2)
