"""Scores of images by a bundle, in batches of one shape, so that nothing is compiled twice."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Float

from mlcls_jax.data.images import read_image, resize
from mlcls_jax.errors import DataError
from mlcls_jax.inference.bundle import Bundle
from mlcls_jax.inference.results import Result
from mlcls_jax.models.classifier import probabilities

log = logging.getLogger(__name__)

TOP_K = 5  # classes reported where there is one label an image, as in the originals


class Predictor:
    """A bundle, ready to be asked."""

    def __init__(self, bundle: Bundle, *, batch_size: int = 1) -> None:
        self.bundle = bundle
        self.batch_size = batch_size
        network = bundle.model.network
        task = network.config.task
        self._top_k = TOP_K if task == "single" else None
        self._forward = jax.jit(lambda v, images: probabilities(network.apply(v, images)[0], task))

    def scores(self, images: Sequence[np.ndarray]) -> Float[np.ndarray, "n K"]:
        """Scores in 0…1 of at most `batch_size` images, uint8 [H, W, 3] of any sizes."""
        height, width = self.bundle.image_size
        batch = np.zeros((self.batch_size, height, width, 3), np.uint8)
        for row, image in zip(batch, images, strict=False):
            row[:] = resize(image, (height, width))
        scores = self._forward(self.bundle.model.variables, batch)
        return np.asarray(scores)[: len(images)]

    def predict(
        self,
        paths: Iterable[Path],
        *,
        threshold: float | None = None,
        skipped: list[str] | None = None,
    ) -> Iterator[Result]:
        """A result for each image file, in order.

        Args:
          paths: image files.
          threshold: above which a label is reported; None: the bundle's. Of a model of one label an
            image, the five best labels are reported, by default whatever their scores.
          skipped: takes the messages of unreadable images; None: the first one raises.

        Raises:
          DataError: a file is missing or is not a readable image.
        """
        threshold = self.bundle.threshold if threshold is None else threshold
        images = _read_images(paths, skipped)
        while batch := list(islice(images, self.batch_size)):
            all_scores = self.scores([image for _, image in batch])
            for (path, image), scores in zip(batch, all_scores, strict=True):
                yield Result.from_scores(
                    scores,
                    labels=self.bundle.labels,
                    threshold=threshold,
                    top_k=self._top_k,
                    input_path=str(path),
                    image=image,
                )


def _read_images(
    paths: Iterable[Path], skipped: list[str] | None
) -> Iterator[tuple[Path, np.ndarray]]:
    for path in paths:
        try:
            yield path, read_image(path)
        except DataError as error:
            if skipped is None:
                raise
            log.warning("left out: %s", error.message)
            skipped.append(error.message)
