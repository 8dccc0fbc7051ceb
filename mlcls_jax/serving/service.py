"""From a checked request to its result: decode, wait for a batch, compute, describe."""

import asyncio
import base64
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from jaxtyping import UInt8
from starlette.exceptions import HTTPException
from starlette.requests import Request

from mlcls_jax.errors import UserError
from mlcls_jax.inference import masking
from mlcls_jax.inference.drawing import to_jpeg
from mlcls_jax.inference.predictor import Predictor
from mlcls_jax.inference.safe_fetch import Policy, fetch
from mlcls_jax.serving.batcher import Batcher, Prepared, Scored
from mlcls_jax.serving.bodies import Body, Meter
from mlcls_jax.serving.decoders import Decoders
from mlcls_jax.serving.monitor import Monitor
from mlcls_jax.serving.options import Options
from mlcls_jax.serving.refusals import unavailable, unprocessable
from mlcls_jax.serving.requests import ParsedRequest, decode_base64
from mlcls_jax.serving.schemas import Category, ClassifyOptions, ClassifyResult, ClassifyResults

MAX_DETAILED = 100  # labels of one image that are drawn, or have evidence: the best ones
MAX_DRAWN_SIDE = 2048  # of pictures in answers: more would hold too much memory while they wait

log = logging.getLogger(__name__)


class Service:
    """A predictor behind a bounded queue; knows whether it takes work."""

    def __init__(self, predictor: Predictor, options: Options) -> None:
        self.predictor = predictor
        self.options = options
        self.monitor = Monitor()
        self.is_warm = False
        self.is_draining = False
        self.open_requests = 0  # that came before draining, of any kind
        self._meter = Meter(options.max_held_mb * 2**20)
        self._at_work = 0  # images between admission and answer
        self._masked = 0  # of these, those to be explained by masking
        self._views = predictor.views(options.tta)
        self._batcher = Batcher(
            predictor,
            self._views,
            max_batch=options.max_batch,
            max_wait_s=options.max_wait_ms / 1000,
            monitor=self.monitor,
        )
        self._decoders = Decoders(options, self.monitor)
        self._threads = ThreadPoolExecutor(options.decoders, "describe")
        # Threads of their own: slow hosts must not keep other requests from being decoded.
        self._fetchers = ThreadPoolExecutor(8, "fetch") if options.allow_urls else None
        self._policy = Policy(
            hosts=options.allow_urls,
            allow_private=False,
            max_bytes=options.max_body_bytes,
            timeout=options.request_timeout_s,
        )

    @property
    def can_explain(self) -> bool:
        """Return whether the model has attention maps, or images are masked instead."""
        return self.predictor.attends or self.options.max_masked > 0

    def check_ready(self) -> None:
        """Raise status 503 where it takes no work: it is draining, or not warm yet."""
        if self.is_draining or not self.is_warm:
            raise unavailable("draining" if self.is_draining else "the model is being loaded")

    def body(self, request: Request) -> Body:
        """Return the body of a request, to be read within the limits."""
        return Body(request, self.options, self._meter)

    def warm_up(self) -> None:
        """Compile all programs; requests are answered from then on."""
        self.predictor.warm_up(explain=True, views=self._views)
        self.is_warm = True

    def close(self) -> None:
        """Give up what waits; threads end after what they are doing."""
        self._batcher.close()
        self._decoders.close()
        for pool in (self._threads, self._fetchers):
            if pool is not None:
                pool.shutdown(wait=False, cancel_futures=True)

    async def answer(
        self, request: ParsedRequest, gone: Callable[[], Awaitable[None]]
    ) -> ClassifyResult | ClassifyResults:
        """Return what is found in the image of a request, or in each of several.

        `gone` returns when nobody waits for the answer any more.

        Raises:
          HTTPException: the request is at fault (422), the queue is full (503), it took too long
            (504), or nobody waits (499).
        """
        count = len(request.images)
        masked = count if request.options.explain and not self.predictor.attends else 0
        if count > self.options.queue_size:
            raise unprocessable(f"{count} images: more than this server's queue holds")
        if masked > self.options.max_masked:
            limit = f"images masked at the same time: at most {self.options.max_masked} here"
            raise unprocessable(f"explain: this model does not attend; {limit}")
        if self._at_work + count > self.options.queue_size:
            raise unavailable("the queue is full")
        if masked and self._masked + masked > self.options.max_masked:
            raise unavailable("explain: other images are being masked")
        self._at_work += count
        self._masked += masked
        work, leaving = asyncio.ensure_future(self._all(request)), asyncio.ensure_future(gone())
        try:
            timeout = self.options.request_timeout_s
            await asyncio.wait((work, leaving), timeout=timeout, return_when="FIRST_COMPLETED")
            if work.done():
                return work.result()
            if leaving.done():
                raise HTTPException(499, "the client went away")
            raise HTTPException(504, f"no answer within {timeout:g} seconds")
        finally:
            # Cancelling takes the image out of every queue, and ends a slow decoding.
            work.cancel()
            leaving.cancel()
            self._at_work -= count
            self._masked -= masked

    async def _all(self, request: ParsedRequest) -> ClassifyResult | ClassifyResults:
        if not request.is_list:
            return await self._work(request.images[0], request.options)
        count = len(request.images)

        async def one(number: int, image: bytes | str) -> ClassifyResult:
            try:
                return await self._work(image, request.options)
            except HTTPException as error:
                told = f"image {number} of {count}: {error.detail}"
                raise HTTPException(error.status_code, told, error.headers) from error

        try:
            async with asyncio.TaskGroup() as group:  # the first fault ends the others
                tasks = [group.create_task(one(*it)) for it in enumerate(request.images, 1)]
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return ClassifyResults(images=[task.result() for task in tasks])

    async def _work(self, given: bytes | str, options: ClassifyOptions) -> ClassifyResult:
        try:
            threshold = self.predictor.threshold(options.threshold)
            data = await self._fetched(given)
            if isinstance(data, str):
                data = await _in(self._threads, decode_base64, data)
            frames = self._views.frames
            images = await self._decoders.decode(
                data,
                frames=frames,
                drawn_side=MAX_DRAWN_SIDE if options.visualize else None,
            )
        except UserError as error:
            raise unprocessable(error.message) from error
        prepared, attends = tuple(images[: len(frames)]), self.predictor.attends
        explain = bool(options.explain)
        scored = await self._scored(prepared, explain=explain and attends)
        if explain and not attends:
            scored = scored[0], await self._masked_maps(prepared, scored[0])
        picture = images[-1] if options.visualize else None
        return await _in(self._threads, self._describe, scored, picture, threshold)

    async def _scored(self, prepared: Prepared, *, explain: bool = False) -> Scored:
        return await asyncio.wrap_future(self._batcher.submit(prepared, explain=explain))

    async def _masked_maps(self, prepared: Prepared, scores: np.ndarray) -> np.ndarray:
        """Return maps by masking every view of an image; its copies queue like other images."""
        found: list[np.ndarray] = []
        step = self.options.max_batch  # so that images of others come in between
        for start in range(0, masking.WINDOWS, step):

            def hide(some: slice = slice(start, start + step)) -> list[Prepared]:
                return list(zip(*(masking.copies(image, some) for image in prepared), strict=True))

            copies = await _in(self._threads, hide)
            found += [own for own, _ in await asyncio.gather(*map(self._scored, copies))]
        return masking.shares(scores, np.stack(found))

    async def _fetched(self, image: bytes | str) -> bytes | str:
        if isinstance(image, bytes) or not image[:8].lower().startswith(("http://", "https://")):
            return image
        if self._fetchers is None:
            raise unprocessable(
                "image is a URL, and this server fetches none: send the image as base64, or start"
                " the server with --allow_urls HOST"
            )
        return await _in(self._fetchers, fetch, image, self._policy)

    def _describe(
        self,
        scored: Scored,
        picture: UInt8[np.ndarray, "h w 3"] | None,
        threshold: float | np.ndarray | None,
    ) -> ClassifyResult:
        scores, maps = scored
        result = self.predictor.result(scores, image=picture, threshold=threshold, maps=maps)
        rows = zip(result["class_ids"], result["label_names"], result["scores"], strict=True)
        categories = [Category(id=id, name=name, score=score) for id, name, score in rows]
        evidence = result.pop("evidence", ())
        for category, seen in zip(categories, evidence[:MAX_DETAILED], strict=False):
            category["evidence"] = seen
        if picture is None:
            return ClassifyResult(categories=categories, image=None)
        for name in ("class_ids", "label_names", "scores"):
            del result[name][MAX_DETAILED:]
        drawn = base64.b64encode(to_jpeg(result.img["res"], quality=90)).decode()
        return ClassifyResult(categories=categories, image=drawn)


async def _in(pool: ThreadPoolExecutor, function: Callable[..., Any], *arguments: Any) -> Any:
    return await asyncio.get_running_loop().run_in_executor(pool, function, *arguments)
