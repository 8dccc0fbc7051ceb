"""Batches from a source, in an order that is a pure function of seed and step.

The only file that imports Grain. Nothing of the loader needs saving: a resumed run slices the
stream at its step, and threads and buffers may change in between.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import grain
import numpy as np

from mlcls_jax.config import Data
from mlcls_jax.data.augment import Augmentation, augmentations
from mlcls_jax.data.images import resize
from mlcls_jax.data.sources import load
from mlcls_jax.data.types import Batch, Example, Source
from mlcls_jax.errors import DataError

log = logging.getLogger(__name__)

GREY = 128


@dataclass
class Reader:
    """Reads examples of one size; keeps account of images that could not be read."""

    source: Source
    size: tuple[int, int]  # height, width
    on_error: str  # "raise", or "skip": masked, counted and named in `broken`
    broken: dict[int, str] = field(default_factory=dict)  # index → message

    def __call__(self, index: int) -> Example:
        """Example `index`; past the end of the source: padding."""
        if index >= len(self.source):
            return self._masked(index)
        try:
            image, target = load(self.source, index)
        except DataError as error:
            if self.on_error == "raise":
                raise
            if index not in self.broken:
                self.broken[index] = error.message
                log.warning("left out: %s", error.message)
            return self._masked(index)
        return {
            "image": resize(image, self.size),
            "target": target,
            "mask": np.array(True),
            "index": np.array(index, np.int32),
        }

    def _masked(self, index: int) -> Example:
        return {
            "image": np.full((*self.size, 3), GREY, np.uint8),
            "target": np.zeros(len(self.source.labels), np.float32),
            "mask": np.array(False),
            "index": np.array(index, np.int32),
        }


def train_batches(
    reader: Reader, config: Data, *, batch_size: int, seed: int, start_step: int, end_step: int
) -> Iterator[Batch]:
    """Batches of steps `start_step` … `end_step` - 1, reshuffled every pass over the source.

    Raises:
      ConfigError: data.augment names what there is not.
    """
    functions = augmentations(config.augment)
    # Not None: batches of one of an endless dataset overflow in Grain's length.
    passes = -(-end_step * batch_size // len(reader.source))
    dataset = (
        grain.MapDataset.range(len(reader.source)).seed(seed).shuffle().repeat(passes).map(reader)
    )
    if functions:
        # Before the slice: its generator is made from the seed and the place in the whole stream.
        dataset = dataset.random_map(partial(_augment, functions=functions))
    return _iterate(dataset.batch(batch_size)[start_step:end_step], config)


def eval_batches(reader: Reader, config: Data, *, batch_size: int) -> Iterator[Batch]:
    """Every example once, in order; the last batch is padded with masked examples."""
    padded = -(-len(reader.source) // batch_size) * batch_size
    return _iterate(grain.MapDataset.range(padded).map(reader).batch(batch_size), config)


def _augment(
    example: Example, rng: np.random.Generator, *, functions: Sequence[Augmentation]
) -> Example:
    if not example["mask"]:
        return example
    image = example["image"]
    for function in functions:
        image = function(image, rng)
    return {**example, "image": image}


def _iterate(dataset: grain.MapDataset, config: Data) -> Iterator[Batch]:
    # Grain's own default would buffer 500 batches; fewer than threads would leave some idle.
    ahead = max(config.prefetch, config.threads)
    options = grain.ReadOptions(num_threads=config.threads, prefetch_buffer_size=ahead)
    return iter(dataset.to_iter_dataset(options))
