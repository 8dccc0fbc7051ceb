"""Towers of images and texts: which images of a data set are nearest to words."""

from typing import TYPE_CHECKING

import numpy as np

from mlcls_jax.errors import InputError
from mlcls_jax.studio.dataset import Dataset
from mlcls_jax.studio.embeddings import BATCH, Embeddings, ask
from mlcls_jax.studio.jobs import THREADS, Job
from mlcls_jax.studio.kept import Kept

if TYPE_CHECKING:  # imports JAX, which the first view of a studio does without
    from mlcls_jax.inference.predictor import Predictor
    from mlcls_jax.models.texts import Texts

MAX_LENGTH = 300  # of what is searched for


class Words:
    """The images in the space of the texts."""

    def __init__(self, dataset: Dataset, name: str, weights: str | None) -> None:
        """Take the model `name`, with these weights or the published ones; `compute` opens it."""
        self._dataset, self._name, self._weights = dataset, name, weights
        self.embeddings = Embeddings(len(dataset), lambda found: found @ self._projection)
        self.predictor: Predictor | None = None  # once it is opened
        self._texts: Texts | None = None
        self._projection = np.zeros((0, 0), np.float32)

    def compute(self, job: Job) -> None:
        """Embed all images but those whose embedding is kept.

        Raises:
          UserError: there is no such model, or it has no tower of texts.
        """
        from mlcls_jax.inference.predictor import Predictor
        from mlcls_jax.inference.words import open_words
        from mlcls_jax.models.network import flatten
        from mlcls_jax.models.texts import open_texts
        from mlcls_jax.start import start_jax

        start_jax(cache=True)
        texts = open_texts(self._weights or self._name)
        bundle = open_words(self._name, texts).bundle(("anything",))  # its score is not read
        self._projection = np.asarray(flatten(bundle.model.variables)["head/proj"], np.float32)
        predictor = Predictor(bundle, batch_size=BATCH, threads=THREADS)
        status = texts.path.stat()
        kept = Kept(self._dataset, f"{texts.path.resolve()} {status.st_size} {status.st_mtime_ns}")
        self.embeddings.put(*kept.take("embeddings"))
        self.predictor, self._texts = predictor, texts

        def save() -> None:
            kept.save(embeddings=self.embeddings.values)

        todo = np.flatnonzero(~self.embeddings.is_known).tolist()
        for row, result in ask(predictor, self._dataset, todo, job, save):
            if result.embedding is not None:
                self.embeddings.put([row], self.embeddings.of(result.embedding)[None])

    def nearness(self, text: str) -> np.ndarray:
        """Return how near each row is to a text, [N]; NaN: not known.

        Raises:
          InputError: the model is not open yet, or the text is too long.
        """
        if self._texts is None:
            raise InputError("the model of images and texts is not open yet", "Try again later.")
        if len(text) > MAX_LENGTH:
            raise InputError(f"words: {MAX_LENGTH} letters at most")
        return self.embeddings.nearness(self._texts.embed([text])[0])
