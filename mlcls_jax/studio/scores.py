"""Scores of all images by a bundle, computed in the background and kept from start to start."""

import logging
import threading
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from mlcls_jax.errors import InputError
from mlcls_jax.studio.dataset import Dataset
from mlcls_jax.studio.embeddings import BATCH, Embeddings, ask
from mlcls_jax.studio.jobs import THREADS, Job
from mlcls_jax.studio.kept import Kept

if TYPE_CHECKING:  # imports JAX, which the first view of a studio does without
    from mlcls_jax.inference.predictor import Predictor

log = logging.getLogger(__name__)

_WIDTH = 128  # numbers of an embedding that are kept: random projections keep the angles


class Scores:
    """What a bundle says of every row, in the order of the data set's labels; NaN: not known."""

    def __init__(self, dataset: Dataset, model_dir: str) -> None:
        self._dataset, self._model_dir = dataset, model_dir
        shape = (len(dataset), len(dataset.labels))
        self.values = np.full(shape, np.nan, np.float32)  # [N, K]
        self.thresholds = np.full(shape[1], 0.5, np.float32)  # [K]
        self.embeddings = Embeddings(shape[0], _projected)  # [N, 128]
        self.name = model_dir.rstrip("/").removesuffix("/best_model")
        self.predictor: Predictor | None = None  # once it is opened
        self._lock = threading.Lock()  # of the predictor, for evidence
        self._own = np.zeros(0, np.int64)  # the model's labels …
        self._column = np.zeros(0, np.int64)  # … and where they stand in the data set

    @property
    def can_explain(self) -> bool:
        """Return whether `seen` can tell: of any head, once the model is open."""
        return self.predictor is not None

    @property
    def knows(self) -> np.ndarray:
        """Return which labels of the data set the model has, once it is open: bool [K]."""
        return np.isin(np.arange(self.values.shape[1]), self._column)

    def compute(self, job: Job) -> None:
        """Score and embed all images; those of which both are known already are not asked again.

        Raises:
          UserError: the bundle cannot be opened, or knows no label of the data set.
        """
        data, predictor = self._dataset, self._open()
        told = f"{predictor.bundle.weights_sha256} {predictor.bundle.temperature}"
        kept = Kept(data, told)
        rows, values = kept.take("values")
        if len(rows):
            self.values[rows] = values
            self.embeddings.put(*kept.take("embeddings"))
        is_known = ~np.isnan(self.values).all(axis=1) & self.embeddings.is_known
        todo = np.flatnonzero(~is_known).tolist()

        def save() -> None:
            kept.save(values=self.values, embeddings=self.embeddings.values)

        for row, result in ask(predictor, data, todo, job, save):
            if result.all_scores is not None and result.embedding is not None:
                self.values[row, self._column] = result.all_scores[self._own]
                self.embeddings.put([row], self.embeddings.of(result.embedding)[None])

    def seen(self, row: int, label: int) -> Any:
        """Return a picture of where the model looked for a label, for an image; None: nowhere.

        Raises:
          DataError: the image cannot be read.
        """
        from mlcls_jax.inference.drawing import draw_evidence

        predictor, places = self.predictor, np.flatnonzero(self._column == label)
        if predictor is None or not len(places):
            return None
        with self._lock:
            path = str(self._dataset.path(row))
            result = next(iter(predictor.predict(path, threshold=0.0, explain=True)))
        ids = list(result["class_ids"])
        own = int(self._own[places[0]])
        if own not in ids or result.image is None:
            return None
        evidence = np.array(result["evidence"][ids.index(own)])
        return draw_evidence(result.image, evidence, result.frame)

    def _open(self) -> "Predictor":
        if self.predictor is not None:
            return self.predictor
        from mlcls_jax.inference.opening import open_model
        from mlcls_jax.inference.predictor import Predictor
        from mlcls_jax.start import start_jax

        start_jax(cache=True)
        bundle = open_model(None, self._model_dir)
        position = {label: k for k, label in enumerate(self._dataset.labels)}
        both = [(i, position[name]) for i, name in enumerate(bundle.labels) if name in position]
        if not both:
            raise InputError(
                f"{self._model_dir}: knows no label of {self._dataset.root}",
                "Labels are matched by name: is it the bundle of another data set?",
            )
        self._own, self._column = np.array(both).T
        if bundle.threshold is not None:
            limits = np.broadcast_to(np.asarray(bundle.threshold, np.float32), len(bundle.labels))
            self.thresholds[self._column] = limits[self._own]
        self.predictor = Predictor(bundle, batch_size=BATCH, threads=THREADS)
        return self.predictor


def _projected(embeddings: np.ndarray) -> np.ndarray:
    """Return [n, 128] numbers with nearly the same angles between them as [n, C]."""
    return embeddings @ _plane(embeddings.shape[1])


@cache  # drawing it takes longer than an image's product with it
def _plane(width: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(width, _WIDTH)).astype(np.float32)
