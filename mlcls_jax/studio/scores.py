"""Scores of all images by a bundle, computed in the background and kept from start to start."""

import hashlib
import logging
import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlcls_jax import files
from mlcls_jax.errors import DataError, InputError
from mlcls_jax.studio.dataset import Dataset
from mlcls_jax.studio.jobs import Job

if TYPE_CHECKING:  # imports JAX, which the first view of a studio does without
    from mlcls_jax.inference.predictor import Predictor

log = logging.getLogger(__name__)

_BATCH = 16
_WIDTH = 128  # numbers of an embedding that are kept: random projections keep the angles
_SAVED_EVERY = 60.0  # seconds
_KEPT = 10  # files of scores


class Scores:
    """What a bundle says of every row, in the order of the data set's labels; NaN: not known."""

    def __init__(self, dataset: Dataset, model_dir: str) -> None:
        self._dataset, self._model_dir = dataset, model_dir
        shape = (len(dataset), len(dataset.labels))
        self.values = np.full(shape, np.nan, np.float32)  # [N, K]
        self.thresholds = np.full(shape[1], 0.5, np.float32)  # [K]
        self.embeddings = np.zeros((shape[0], 0), np.float16)  # [N, 128], of length 1
        self.name = ""  # of the model
        self.can_explain = False
        self._predictor: Predictor | None = None
        self._lock = threading.Lock()  # of the predictor, for evidence
        self._own = np.zeros(0, np.int64)  # the model's labels …
        self._column = np.zeros(0, np.int64)  # … and where they stand in the data set

    def compute(self, job: Job) -> None:
        """Score all images, and then embed them; images that were scored before are not again.

        Raises:
          UserError: the bundle cannot be opened, or knows no label of the data set.
        """
        data, predictor = self._dataset, self._open()
        stamps = _stamps(data)
        place = self._place(predictor)
        self._take_kept(place, stamps)
        job.total = 2 * len(data)
        todo = np.flatnonzero(np.isnan(self.values).all(axis=1)).tolist()
        job.done = len(data) - len(todo)
        saved = time.monotonic()
        paths = [str(data.path(row)) for row in todo]
        if paths:
            rows = iter(todo)
            for result in predictor.predict(paths, on_error="yield"):
                if result.get("page_index"):  # of a file the first picture counts
                    continue
                row = next(rows)
                if result.all_scores is not None:
                    self.values[row, self._column] = result.all_scores[self._own]
                job.done += 1
                if job.is_stopped or time.monotonic() - saved > _SAVED_EVERY:
                    self._save(place, stamps)
                    saved = time.monotonic()
                if job.is_stopped:
                    return
        self._save(place, stamps)
        self._embed(predictor, job)
        self._save(place, stamps)

    def seen(self, row: int, label: int) -> Any:
        """Return a picture of where the model looked for a label, for an image; None: nowhere.

        Raises:
          DataError: the image cannot be read.
        """
        from mlcls_jax.inference.drawing import draw_evidence

        predictor, places = self._predictor, np.flatnonzero(self._column == label)
        if predictor is None or not self.can_explain or not len(places):
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
        if self._predictor is not None:
            return self._predictor
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
        self.name = bundle.model.network.config.name
        self.can_explain = bundle.model.network.has_evidence
        threads = max(1, (os.cpu_count() or 1) - 1)
        self._predictor = Predictor(bundle, batch_size=_BATCH, threads=threads)
        return self._predictor

    def _embed(self, predictor: "Predictor", job: Job) -> None:
        data, width = self._dataset, self.embeddings.shape[1]
        is_known = self.embeddings.any(axis=1) if width else np.zeros(len(data), bool)
        todo = np.flatnonzero(~is_known & ~np.isnan(self.values).all(axis=1)).tolist()
        job.done = 2 * len(data) - len(todo)
        for start in range(0, len(todo), _BATCH):
            if job.is_stopped:
                return
            rows = todo[start : start + _BATCH]
            try:
                found = predictor.embed([str(data.path(row)) for row in rows])
            except DataError:  # gone since it was scored
                continue
            finally:
                job.done += len(rows)
            if len(found) != len(rows):  # several pictures in a file
                found = np.stack([predictor.embed(str(data.path(row)))[0] for row in rows])
            if not self.embeddings.shape[1]:
                self.embeddings = np.zeros((len(data), _WIDTH), np.float16)
            self.embeddings[rows] = _projected(found)

    def _place(self, predictor: "Predictor") -> Path:
        """Return the file in which scores of this bundle for this data set are kept."""
        told = f"{predictor.bundle.weights_sha256} {predictor.bundle.temperature}"
        made_of = f"{told} {self._dataset.root.resolve()} {self._dataset.labels}"
        digest = hashlib.sha256(made_of.encode(errors="surrogateescape")).hexdigest()
        return files.cache_folder("studio") / f"{digest}.npz"

    def _take_kept(self, place: Path, stamps: np.ndarray) -> None:
        try:
            with np.load(place) as kept:
                known = {stamp: i for i, stamp in enumerate(kept["stamps"].tolist())}
                pairs = [(i, known[s]) for i, s in enumerate(stamps.tolist()) if s in known]
                if not pairs:
                    return
                rows, old = np.array(pairs).T
                self.values[rows] = kept["values"][old]
                embeddings = kept["embeddings"][old]
                if embeddings.shape[1]:
                    self.embeddings = np.zeros((len(stamps), embeddings.shape[1]), np.float16)
                    self.embeddings[rows] = embeddings
        except (OSError, ValueError, KeyError):  # none yet, or damaged: then it is computed
            return

    def _save(self, place: Path, stamps: np.ndarray) -> None:
        with files.replacing(place) as temporary, temporary.open("wb") as file:
            np.savez(file, stamps=stamps, values=self.values, embeddings=self.embeddings)
        old = sorted(place.parent.glob("*.npz"), key=os.path.getmtime)[:-_KEPT]
        for path in old:
            path.unlink(missing_ok=True)


def _stamps(data: Dataset) -> np.ndarray:
    """Return what changes with the file of an image: uint64 [N]."""
    stamps = np.zeros(len(data), np.uint64)
    for row, image in enumerate(data.images):
        try:
            status = os.stat(data.path(row))
            told = f"{image} {status.st_size} {status.st_mtime_ns}"
        except (OSError, ValueError):
            told = image
        digest = hashlib.blake2b(told.encode(errors="surrogateescape"), digest_size=8).digest()
        stamps[row] = int.from_bytes(digest, "big")
    return stamps


def _projected(embeddings: np.ndarray) -> np.ndarray:
    """Return [n, 128] numbers with nearly the same angles between them as [n, C], of length 1."""
    plane = np.random.default_rng(0).normal(size=(embeddings.shape[1], _WIDTH))
    small = embeddings.astype(np.float32) @ plane.astype(np.float32)
    return small / np.maximum(np.linalg.norm(small, axis=1, keepdims=True), 1e-6)
