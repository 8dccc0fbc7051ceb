"""A bundle that answers: inputs of any kind in, results out, in order, as a stream."""

from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import cached_property
from itertools import islice
from typing import Any, Literal, cast

import numpy as np
from jaxtyping import Float, UInt8

from mlcls_jax.config import DEFAULT_THRESHOLD
from mlcls_jax.errors import InputError
from mlcls_jax.inference import masking
from mlcls_jax.inference.backends import open_backend
from mlcls_jax.inference.backends.jitted import Also, Jitted
from mlcls_jax.inference.bundle import Bundle
from mlcls_jax.inference.given_thresholds import Threshold, limits
from mlcls_jax.inference.image_stream import Picture, read
from mlcls_jax.inference.results import Result
from mlcls_jax.inference.views import Views
from mlcls_jax.lookahead import map_ahead

TOP_K = 5  # classes reported where there is one label per image, as in the originals
_KEPT = 3  # sets of words whose programs are kept

OnError = Literal["raise", "yield"]


class Predictor:
    """A bundle, ready to be asked; may be asked from several threads at once."""

    def __init__(
        self,
        bundle: Bundle,
        *,
        device: str | None = None,
        backend: str = "jax",
        batch_size: int = 1,
        precision: str = "float32",
        threads: int = 8,
        threshold: Threshold | None = None,
    ) -> None:
        """Open the backend; see `create_model`. `threads` decode and resize images.

        Raises:
          InputError: no such device, backend or precision; or a threshold that does not fit.
        """
        self.bundle = bundle
        self._class_ids = {label: index for index, label in enumerate(bundle.labels)}
        self.batch_size = batch_size
        self.threads = threads
        task = bundle.model.network.config.task
        self._top_k = TOP_K if task == "single" else None
        own = bundle.threshold
        self._threshold = np.array(own) if isinstance(own, tuple) else own
        if threshold is not None:
            self._threshold = self.threshold(threshold)
        self._options = {"device": device, "batch_size": batch_size, "precision": precision}
        self._backend_name = backend
        self._of_words: dict[tuple[Any, ...], Predictor] = {}
        self.backend = open_backend(backend, bundle, **self._options)

    def __repr__(self) -> str:
        return f"Predictor({self.bundle.model.network.config.name}, {len(self._class_ids)} labels)"

    def prepare(self, image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "H W 3"]:
        """Return the image in the model's size, as in evaluation."""
        return self.bundle.frame(image)

    def run(self, images: UInt8[np.ndarray, "n H W 3"]) -> Float[np.ndarray, "n K"]:
        """Return the scores of prepared images."""
        return self.backend(images)

    @property
    def attends(self) -> bool:
        """Return whether the head says where it looks; others are explained by `masking`."""
        return self.bundle.model.network.has_evidence

    @cached_property
    def _jitted(self) -> Jitted:
        """JAX, whatever the backend: it alone gives more than scores."""
        if isinstance(self.backend, Jitted):
            return self.backend
        return cast(Jitted, open_backend("jax", self.bundle, **self._options))

    def scores(self, images: Sequence[np.ndarray]) -> Float[np.ndarray, "n K"]:
        """Return scores in 0…1 of images, uint8 [h, w, 3] of any sizes."""
        return self.run(np.stack([self.prepare(image) for image in images]))

    def warm_up(self, *, explain: bool = False, views: Views | None = None) -> None:
        """Compile for every batch size now rather than at the first images.

        With `explain`, those of maps, too, if the head attends. With
        `views`, those for all their sizes.
        """
        self.backend.warm_up()
        if views is not None and isinstance(self.backend, Jitted):
            for frame in views.frames[1:]:
                self.backend.warm_up(image_size=frame.size)
        if explain and self.attends:
            self._jitted.warm_up(explain=True)

    def predict(
        self,
        input: Any,
        batch_size: int | None = None,
        threshold: Threshold | None = None,
        *,
        tta: Sequence[str] = (),
        explain: bool = False,
        embeddings: bool = False,
        on_error: OnError = "raise",
        bgr: bool = False,
        labels: Sequence[str] | None = None,
        templates: Sequence[str] | None = None,
    ) -> Iterator[Result]:
        """Yield a result for each image, in the order of the input, as they are computed.

        Args:
          input: an array uint8 [h, w, 3] (RGB), a path, a URL, a folder (with its subfolders,
            sorted), a TIFF or PDF (a result per page), or a list or generator of these.
          batch_size: images computed together, at most the predictor's; None: just that.
          threshold: above which a label is reported: a number; one per label, in their order; or
            numbers by class id or label, with "default" for all others (else the bundle's). None:
            the predictor's. Of a model of one label per image, the five best labels are reported,
            by default whatever their scores.
          tta: test-time augmentation, `("flip", "scale:1.15")`: the picture is also seen mirrored,
            and at other sizes of the network's images (by JAX alone); logits are averaged. Each
            size is compiled once.
          explain: add to each reported label where the head looked in the plain view. Where it does
            not attend, parts of the image are masked, which takes as long as 65 images.
          embeddings: give each result its `embedding`, that of `embed`, of the plain view; not
            together with `explain`.
          on_error: "raise" stops at the first image that cannot be read, after the results of those
            before it; "yield" gives a result with `error` for it and goes on.
          bgr: arrays are BGR, as OpenCV reads them.
          labels: score these words instead, `["a dog", "snow"]`, by a model with a text tower. It
            is compiled once for each number of labels.
          templates: prompts with {} for such a label, whose embeddings are averaged; None: `a photo
            of {}.`

        Raises:
          InputError: the input or an option is of no known kind, or a folder holds no image.
          DataError: an image cannot be read.
        """
        if on_error not in ("raise", "yield"):
            raise InputError(f"on_error is {on_error!r}; it must be raise or yield")
        if explain and embeddings:
            raise InputError("explain and embeddings: only one of them at a time")
        if labels is not None or not self.bundle.labels:
            named = self.of_words(tuple(labels or ()), tuple(templates) if templates else None)
            options: dict[str, Any] = {"tta": tta, "explain": explain, "on_error": on_error}
            options["embeddings"] = embeddings
            return named.predict(input, batch_size, threshold, **options, bgr=bgr)
        told = self.threshold(threshold)
        size = self.batch_size if batch_size is None else batch_size
        if size < 1:
            raise InputError(f"batch_size is {size}; it must be at least 1")
        ahead = max(2 * size, 2 * self.threads)
        views = self.views(tta)
        pictures = read(input, prepare=views.prepare, threads=self.threads, ahead=ahead, bgr=bgr)
        also: Also = "maps" if explain else "embeddings" if embeddings else None
        return self._stream(pictures, size, told, views, also, on_error)

    def embed(
        self, input: Any, batch_size: int | None = None, *, bgr: bool = False
    ) -> Float[np.ndarray, "N C"]:
        """Return an embedding of each image, to search, group or map images by what they show.

        It is the mean over the feature map that the head sees; by JAX, whatever the backend. Images
        are alike if the cosine between their embeddings is high.

        Args:
          input: as in `predict`.
          batch_size: images computed together, at most; None: the predictor's.
          bgr: arrays are BGR.

        Raises:
          InputError: the input is of no known kind, or holds no image.
          DataError: an image cannot be read.
        """
        size = self.batch_size if batch_size is None else batch_size
        ahead = max(2 * size, 2 * self.threads)
        prepare = self.views().prepare
        pictures = read(input, prepare=prepare, threads=self.threads, ahead=ahead, bgr=bgr)
        parts = []
        with closing(pictures):
            while batch := list(islice(pictures, size)):
                for picture in batch:
                    if picture.error is not None:
                        raise picture.error
                prepared = np.stack([picture.prepared[0] for picture in batch])
                parts.append(self._jitted.embed(prepared)[1])
        if not parts:
            raise InputError("there is no image to embed")
        return np.concatenate(parts)

    def of_words(
        self, labels: tuple[str, ...], templates: tuple[str, ...] | None = None
    ) -> "Predictor":
        """Return the predictor of `Bundle.of_words`; the last few are kept."""
        key = (labels, templates)
        if key not in self._of_words:
            bundle = self.bundle.of_words(labels, templates)
            options: dict[str, Any] = {**self._options, "threads": self.threads}
            other = Predictor(bundle, backend=self._backend_name, **options)
            if isinstance(self._threshold, float):
                other._threshold = self._threshold
            kept = [*self._of_words.items()][-_KEPT:]
            self._of_words = dict([*kept, (key, other)])  # at once: there may be other threads
        return self._of_words[key]

    def views(self, tta: Sequence[str] = ()) -> Views:
        """Return the views of every picture, for `compute`; see `predict`.

        Raises:
          InputError: there is no such view, or the backend cannot compute it.
        """
        views = Views.of(self.bundle, tta)
        if len(views.frames) > 1 and not isinstance(self.backend, Jitted):
            raise InputError(
                f"tta={', '.join(tta)}: {self.backend.name} computes images of one size alone",
                "Take backend=jax, or flip without scales.",
            )
        return views

    def compute(
        self, views: Views, prepared: Sequence[tuple[np.ndarray, ...]], *, also: Also = None
    ) -> tuple[Float[np.ndarray, "n K"], np.ndarray | None]:
        """Return the scores of pictures that `views.prepare` has prepared, averaged over the views.

        And of the plain view "maps" [n, Q, h, w] of where each query looked, or "embeddings"
        [n, C]; these by JAX, whatever the backend. Where the head does not attend, each label has a
        map by `masking`, and for each image `masking.WINDOWS` more are computed.
        """
        others: list[np.ndarray] = []

        def run(images: np.ndarray) -> np.ndarray:
            if also is None or others:  # the first view is the plain one
                return self.run(images)
            if also == "embeddings":
                scores, other = self._jitted.embed(images)
            elif self.attends:
                scores, other = self._jitted.explain(images)
            else:
                scores = self.run(images)
                other = np.stack(
                    [
                        masking.shares(own, self.run(masking.copies(image)))
                        for image, own in zip(images, scores, strict=True)
                    ]
                )
            others.append(other)
            return scores

        scores = views.scores(run, prepared)
        return scores, others[0] if others else None

    def _stream(
        self,
        pictures: Generator[Picture, None, None],
        size: int,
        threshold: float | np.ndarray | None,
        views: Views,
        also: Also,
        on_error: OnError,
    ) -> Iterator[Result]:
        def compute(batch: list[Picture]) -> tuple[list[Picture], Any, Any]:
            images = [picture.prepared for picture in batch if picture.error is None]
            if not images:
                return batch, None, None
            return batch, *self.compute(views, images, also=also)

        # A second batch is on its way while the first one is waited for, and one more per device.
        in_flight = 1 + self.backend.replicas
        batches = iter(lambda: list(islice(pictures, size)), [])
        with (
            ThreadPoolExecutor(in_flight) as pool,
            closing(pictures),
            closing(map_ahead(pool, compute, batches, in_flight)) as computed,
        ):
            for batch, scores, others in computed:
                yield from self._results(batch, scores, others, also, threshold, on_error)
                del batch, scores, others  # they may be large: not while we wait for the next

    def _results(
        self,
        batch: list[Picture],
        scores: Any,  # [n, K] of those without an error
        others: np.ndarray | None,
        also: Also,
        threshold: float | np.ndarray | None,
        on_error: OnError,
    ) -> Iterator[Result]:
        row = 0
        for picture in batch:
            if picture.error is not None:
                if on_error == "raise":
                    raise picture.error
                yield Result.of_error(picture.error, picture.name, picture.page)
                continue
            other = None if others is None else others[row]
            result = self.result(
                scores[row],
                image=picture.image,
                threshold=threshold,
                input_path=picture.name,
                page_index=picture.page,
                maps=other if also == "maps" else None,
            )
            result.embedding = other if also == "embeddings" else None
            yield result
            row += 1

    def result(
        self,
        scores: Float[np.ndarray, " K"],
        *,
        image: UInt8[np.ndarray, "h w 3"] | None,
        threshold: float | np.ndarray | None,
        input_path: str | None = None,
        page_index: int | None = None,
        maps: Float[np.ndarray, "Q h w"] | None = None,
    ) -> Result:
        """Return the result of one image; `threshold` as `self.threshold` gives it."""
        return Result.from_scores(
            scores,
            labels=self.bundle.labels,
            threshold=threshold,
            top_k=self._top_k,
            input_path=input_path,
            page_index=page_index,
            image=image,
            maps=maps,
            frame=self.bundle.frame,
        )

    def threshold(self, value: Threshold | None) -> float | np.ndarray | None:
        """Turn what `predict` takes as a threshold into one number or float32 [K]; see `limits`."""
        if value is None:
            return self._threshold
        own = DEFAULT_THRESHOLD if self._threshold is None else self._threshold
        return limits(value, self._class_ids, own)
