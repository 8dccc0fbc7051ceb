"""Pictures from elsewhere, to find images like them; read within the bounds of a server."""

import asyncio
import hashlib
from collections import OrderedDict
from functools import partial

import numpy as np
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request

from mlcls_jax.errors import InputError
from mlcls_jax.serving.bodies import Body, Meter
from mlcls_jax.serving.decoders import Decoders
from mlcls_jax.serving.monitor import Monitor
from mlcls_jax.serving.options import Options
from mlcls_jax.studio.scores import Scores
from mlcls_jax.studio.text_search import Words

MAX_BYTES = 20 * 2**20  # of a picture
_KEPT = 32  # vectors of the last pictures


class Pictures:
    """Vectors of pictures by digests of their contents; decoded in processes of their own."""

    def __init__(self, model: Scores | Words) -> None:
        """Take the model whose embeddings of the data set they are compared with."""
        self.model = model
        self._options = Options(decoders=1, max_body_mb=MAX_BYTES / 2**20)
        self._meter = Meter(2 * MAX_BYTES)
        self._decoders: Decoders | None = None  # started by the first picture
        self._vectors: OrderedDict[str, np.ndarray] = OrderedDict()

    async def add(self, request: Request) -> str:
        """Embed the picture in the body of a request; return its name for `nearness`.

        Raises:
          HTTPException: it is too large or too slow, or the model is not open yet.
          DataError: it is no picture, too large, or damaged.
        """
        predictor = self.model.predictor
        if predictor is None:
            raise HTTPException(409, "the model is not open yet: try again later")
        body = Body(request, self._options, self._meter)
        try:
            content = await body.read()
            if self._decoders is None:
                self._decoders = Decoders(self._options, Monitor())
            limit_s = self._options.request_timeout_s
            async with asyncio.timeout(limit_s):
                frame = predictor.bundle.frame
                found = await self._decoders.decode(content, frames=[frame], drawn_side=None)
        except TimeoutError:
            raise HTTPException(422, f"decoding takes more than {limit_s:g} seconds") from None
        finally:
            body.close()
        compute = partial(predictor.compute, predictor.views(), [tuple(found)], also="embeddings")
        _, embedding = await run_in_threadpool(compute)
        assert embedding is not None
        name = hashlib.sha256(content).hexdigest()[:16]
        self._vectors[name] = self.model.embeddings.of(embedding[0])
        while len(self._vectors) > _KEPT:
            self._vectors.popitem(last=False)
        return name

    def nearness(self, name: str) -> np.ndarray:
        """Return how near each row is to a picture, [N]; NaN: not known.

        Raises:
          InputError: it was not given, or has been forgotten.
        """
        if name not in self._vectors:
            raise InputError("this picture is not known any more", "Choose its file again.")
        return self.model.embeddings.nearness(self._vectors[name])

    def close(self) -> None:
        """End the processes."""
        if self._decoders is not None:
            self._decoders.close()
