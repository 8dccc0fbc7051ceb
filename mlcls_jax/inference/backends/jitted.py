"""JAX: compiled for a few batch sizes, on one device or several."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Literal

import jax
import numpy as np
from jaxtyping import Array, Float, UInt8

from mlcls_jax.inference.bundle import Bundle
from mlcls_jax.inference.precision import Packed, in_dtype, pack, unpack
from mlcls_jax.parallel import Device

Also = Literal["maps", "embeddings"] | None  # what is computed besides scores
PRECISION = "float32"  # TPUs and new GPUs would round the factors of products to fewer bits


class Jitted:
    """A bundle compiled by JAX; can be called from several threads at once.

    Each of the devices, which are of one kind, holds a copy of the weights; batches take turns.
    """

    name = "jax"

    def __init__(
        self,
        bundle: Bundle,
        *,
        devices: Sequence[Device],
        batch_size: int,
        precision: str = "float32",
    ) -> None:
        bundle = in_dtype(bundle, "bfloat16" if precision == "bfloat16" else "float32")
        self._bundle = bundle.on(devices[:1])  # each of them computes alone
        self._network = self._bundle.model.network
        self._sizes = batch_sizes(batch_size)
        packed = pack(bundle.model.variables, precision)
        self._replicas = [(device, jax.device_put(packed, device)) for device in devices]
        self.replicas = len(self._replicas)
        self._turn = itertools.count()  # next() is atomic
        self._traced = jax.jit(self._trace, static_argnames="also")

    def __call__(self, images: UInt8[np.ndarray, "n H W 3"]) -> Float[np.ndarray, "n K"]:
        """Return scores in 0…1 of images of the model's size."""
        return self._run(images)[0]

    def explain(
        self, images: UInt8[np.ndarray, "n H W 3"]
    ) -> tuple[Float[np.ndarray, "n K"], Float[np.ndarray, "n Q h w"]]:
        """Return scores, and where each query of the head looks: label k belongs to query k // g.

        The head must attend.
        """
        scores, maps = self._run(images, "maps")
        return scores, maps

    def embed(
        self, images: UInt8[np.ndarray, "n H W 3"]
    ) -> tuple[Float[np.ndarray, "n K"], Float[np.ndarray, "n C"]]:
        """Return scores, and the means of the feature maps that the head sees."""
        scores, vectors = self._run(images, "embeddings")
        return scores, vectors

    def warm_up(self, *, explain: bool = False, image_size: tuple[int, int] | None = None) -> None:
        """Compile what calls need, or what `explain` does, on every device.

        `image_size` is another than the bundle's, for views at other scales.
        """
        function = self.explain if explain else self
        for size in self._sizes:
            images = np.zeros((size, *(image_size or self._bundle.image_size), 3), np.uint8)
            for _ in self._replicas:
                function(images)

    def _run(self, images: np.ndarray, also: Also = None) -> list[np.ndarray]:
        parts = []
        for start, count, size in cover(len(images), self._sizes):
            batch = images[start : start + count]
            if count < size:
                padding = np.zeros((size - count, *batch.shape[1:]), np.uint8)
                batch = np.concatenate([batch, padding])
            device, weights = self._replicas[next(self._turn) % len(self._replicas)]
            parts.append((count, self._traced(weights, jax.device_put(batch, device), also)))
        # Only now, when all are on their way, wait; and let NumPy cut, since JAX would compile it.
        rows = ([np.asarray(output)[:count] for output in outputs] for count, outputs in parts)
        return [np.concatenate(pieces) for pieces in zip(*rows, strict=True)]

    def _trace(self, weights: Packed, images: Array, also: Also) -> tuple[Array, ...]:
        with jax.default_matmul_precision(PRECISION):
            variables = unpack(weights, self._network.abstract)
            outputs = self._network.apply(variables, images)
            scores = self._bundle.probabilities(outputs.logits)
            if also is None:
                return (scores,)
            if also == "maps":
                maps = self._network.evidence(variables, outputs.features)
                return scores, maps.astype(np.float32)
            return scores, outputs.features.mean((1, 2), dtype=np.float32)


def batch_sizes(largest: int) -> tuple[int, ...]:
    """Return 1, 4, 16, … below `largest`, and `largest`: few programs, and little padding."""
    powers = itertools.takewhile(lambda size: size < largest, (4**i for i in itertools.count()))
    return (*powers, largest)


def cover(count: int, sizes: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """Divide `count` images into batches of `sizes`: start, number of images, batch size.

    A batch that is not full holds more images than padding. `sizes` rise from 1.
    """
    start = 0
    while rest := count - start:
        size = next((size for size in sizes if rest <= size < 2 * rest), None)
        size = size or max(size for size in sizes if size <= rest)
        yield start, min(rest, size), size
        start += min(rest, size)
