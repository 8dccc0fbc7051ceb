"""Logits and scores of a model over a whole data set, every image exactly once."""

from collections.abc import Callable, Iterable, Mapping
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array

from mlcls_jax import parallel
from mlcls_jax.data.types import Batch
from mlcls_jax.errors import DataError, NonFiniteError
from mlcls_jax.lookahead import delayed
from mlcls_jax.models.classifier import probabilities
from mlcls_jax.models.network import Network, Variables

Forward = Callable[[Variables, Array], Array]


def make_forward(
    network: Network,
    mesh: Mesh,
    *,
    of: Literal["logits", "features", "logits and embeddings"] = "logits",
    is_mirrored: bool = False,
) -> Forward:
    """Return a jitted function (variables, images) → logits float32 [B, K].

    Or → features [B, h, w, C], the map that the head sees, in its own type; or → logits and
    embeddings, the means of these maps, side by side, float32 [B, K + C]. With `is_mirrored` the
    logits are the means of those of the images and of their mirror images.
    """
    network = network.on(mesh.devices.flat, tensor=mesh.shape["tensor"])

    def forward(variables: Variables, images: Array) -> Array:
        outputs = network.apply(variables, images)
        if of == "features":
            return outputs.features
        logits = outputs.logits.astype(np.float32)
        if is_mirrored:
            other = network.apply(variables, images[:, :, ::-1]).logits.astype(np.float32)
            logits = (logits + other) / 2
        if of == "logits":
            return logits
        vectors = outputs.features.mean((1, 2), dtype=np.float32)
        return jnp.concatenate([logits, vectors], 1)

    return jax.jit(forward, out_shardings=parallel.replicated(mesh))


def to_scores(logits: np.ndarray, task: str, *, temperature: float = 1.0) -> np.ndarray:
    """Return scores float32 [N, K] of logits [N, K], at this temperature."""
    return np.asarray(_to_scores(logits, task, temperature=temperature))


_to_scores = jax.jit(probabilities, static_argnames=("task", "temperature"))


def mean_loss(
    loss: Callable[[np.ndarray, np.ndarray], Array],
    logits: np.ndarray,
    targets: np.ndarray,
    *,
    batch_size: int,
) -> float:
    """Return the mean of `loss` over batches of logits [N, K] and targets, as training logs it.

    Losses may be sums over a batch, so all have `batch_size` rows: the first rows fill up the last.
    """
    count = -(-len(logits) // batch_size)
    rows = np.resize(np.arange(len(logits)), (count, batch_size))
    return float(jax.vmap(loss)(logits[rows], targets[rows]).mean())


def score(
    forward: Forward, models: Mapping[str, Variables], batches: Iterable[Batch], mesh: Mesh
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return logits float32 [N, K] of each model, and targets [N, K], in the order of the data.

    The data is read once, whatever the number of models; padding and unreadable images are left
    out. With several processes each reads its rows of the batches, and each gets all logits.

    Raises:
      DataError: not a single image could be read.
      NonFiniteError: a model gives logits that are not numbers.
    """
    logits: dict[str, list[np.ndarray]] = {name: [] for name in models}
    targets = []
    begun = (
        (batch["mask"], batch["target"], {n: forward(v, batch["image"]) for n, v in models.items()})
        for batch in parallel.put_ahead(batches, mesh)
    )
    for mask, target, outputs in delayed(begun, 1):  # the devices have the next batch by then
        known = parallel.fetch(mask)
        targets.append(parallel.fetch(target)[known])
        for name, output in outputs.items():
            logits[name].append(parallel.fetch(output)[known])
    if not any(map(len, targets)):
        raise DataError("there is nothing to evaluate: none of the images could be read")
    whole = {name: np.concatenate(parts) for name, parts in logits.items()}
    for name, values in whole.items():
        if not np.isfinite(values).all():
            raise NonFiniteError(
                f"the {name} weights give scores that are not numbers",
                "The training has diverged: lower optimizer.learning_rate.",
            )
    return whole, np.concatenate(targets)
