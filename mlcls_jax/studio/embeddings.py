"""What a model answers for the images of a data set, and which of them are alike."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from mlcls_jax.studio.dataset import Dataset
from mlcls_jax.studio.jobs import Job

if TYPE_CHECKING:  # imports JAX, which the first view of a studio does without
    from mlcls_jax.inference.predictor import Predictor
    from mlcls_jax.inference.results import Result

BATCH = 16
_SAVED_EVERY_S = 60.0


def ask(
    predictor: "Predictor",
    data: Dataset,
    rows: Sequence[int],
    job: Job,
    save: Callable[[], None],
) -> Iterator[tuple[int, "Result"]]:
    """Yield each row with its result, which has an embedding or an error, until the job is stopped.

    The job's progress is kept, and `save` called now and then, and at the end.
    """
    job.total = len(data)
    job.done = job.total - len(rows)
    left, saved = iter(rows), time.monotonic()
    paths = [str(data.path(row)) for row in rows]
    if not paths:
        return
    answers = cast(Any, predictor.predict(paths, embeddings=True, on_error="yield"))
    with closing(answers) as results:
        for result in results:
            if job.is_stopped:
                break
            if result.get("page_index"):  # of a file the first picture counts
                continue
            yield next(left), result
            job.done += 1
            if time.monotonic() - saved > _SAVED_EVERY_S:
                save()
                saved = time.monotonic()
    save()


class Embeddings:
    """Vectors of length 1, one a row: the nearer, the larger their product."""

    def __init__(self, rows: int, make: Callable[[np.ndarray], np.ndarray]) -> None:
        """`make` makes vectors of any length [n, D] of a model's embeddings [n, C]."""
        self.values = np.zeros((rows, 0), np.float16)  # [N, D]; 0: not known
        self._make = make

    @property
    def is_known(self) -> np.ndarray:
        """Return which rows have one: bool [N]."""
        return np.asarray(self.values.any(axis=1))

    def put(self, rows: Sequence[int] | np.ndarray, vectors: np.ndarray) -> None:
        """Take over vectors [n, D] of some rows."""
        if not self.values.shape[1]:
            self.values = np.zeros((len(self.values), vectors.shape[1]), np.float16)
        self.values[rows] = vectors

    def of(self, embedding: np.ndarray) -> np.ndarray:
        """Return the vector [D] of a model's embedding [C]."""
        return unit(self._make(embedding[None].astype(np.float32)))[0]

    def nearness(self, vector: np.ndarray) -> np.ndarray:
        """Return how near each row is to a vector, [N]: 1 at most, NaN: not known."""
        if not self.values.shape[1]:
            return np.full(len(self.values), np.nan, np.float32)
        found = np.concatenate([  # in parts: float32 takes twice the memory
            self.values[start : start + 4096].astype(np.float32) @ vector.astype(np.float32)
            for start in range(0, len(self.values), 4096)
        ])  # fmt: skip
        return np.where(self.is_known, found, np.nan)


def unit(vectors: np.ndarray) -> np.ndarray:
    """Return vectors [n, D] of length 1."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6)
