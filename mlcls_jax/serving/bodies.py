"""The body of a request, read within limits of size and time."""

import asyncio
from collections.abc import AsyncIterator

from starlette.exceptions import HTTPException
from starlette.requests import Request

from mlcls_jax.serving.options import Options
from mlcls_jax.serving.refusals import unavailable

MAX_DISCARDED = 256 * 2**20  # bytes read and dropped, so that the sender hears what was wrong


class Meter:
    """A count of the bytes of requests that are held now, with a limit."""

    def __init__(self, limit: float) -> None:
        self._rest = limit

    def take(self, size: int) -> None:
        """Count `size` bytes more, fewer if negative; status 503 where they are too many."""
        if size > self._rest:
            raise unavailable("too many large requests at the same time")
        self._rest -= size


class Body:
    """The body of one request, as far as it has arrived; `close` it.

    `options` say how many bytes it may have, and how long it may take to arrive.
    """

    def __init__(self, request: Request, options: Options, meter: Meter) -> None:
        self._request = request
        self._limit, self._timeout_s = options.max_body_bytes, options.body_timeout_s
        self._meter = meter
        self._held = 0

    async def read(self) -> bytes:
        """Return all of it.

        Raises:
          HTTPException: it is too large (413), too slow (408), or one too many (503).
          ClientDisconnect: the client went away.
        """
        stream, refusal = self._request.stream(), None
        headers = self._request.headers
        is_told = int(headers.get("content-length", 0)) > self._limit
        # Who waits for "100 Continue" sends nothing before the answer.
        if is_told and headers.get("expect", "").lower() == "100-continue":
            raise self._too_large()
        try:
            async with asyncio.timeout(self._timeout_s):
                try:
                    if is_told:
                        raise self._too_large()
                    return await self._read(stream)
                except HTTPException as error:
                    refusal = error
                    await _discard(stream)
                    raise
        except TimeoutError as error:
            late = f"the body did not arrive within {self._timeout_s:g} seconds"
            raise refusal or HTTPException(408, late) from error

    def close(self) -> None:
        """Stop counting its bytes."""
        self._meter.take(-self._held)
        self._held = 0

    def _too_large(self) -> HTTPException:
        return HTTPException(413, f"the body is larger than {self._limit} bytes")

    async def _read(self, stream: AsyncIterator[bytes]) -> bytes:
        chunks = []
        try:
            async for chunk in stream:
                self._meter.take(len(chunk))
                self._held += len(chunk)
                chunks.append(chunk)
                if self._held > self._limit:
                    raise self._too_large()
            return b"".join(chunks)
        finally:
            chunks.clear()  # the rest is read while the exception holds this frame


async def _discard(stream: AsyncIterator[bytes]) -> None:
    """Read on: closing a connection that still sends would make the answer unreadable."""
    size = 0
    async for chunk in stream:
        size += len(chunk)
        if size > MAX_DISCARDED:
            return
