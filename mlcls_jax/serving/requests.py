"""From the bytes of a request to a checked question, within limits of size and time."""

import asyncio
import base64
import binascii
import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import HTTPException, Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError, WithJsonSchema
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

MAX_DISCARDED = 256 * 2**20  # bytes read and dropped, so that the sender hears what was wrong

_THRESHOLD = {
    "anyOf": [
        {"type": "number", "minimum": 0, "maximum": 1},
        {"type": "array", "items": {"type": "number"}},
        {"type": "object", "additionalProperties": {"type": "number"}},
        {"type": "null"},
    ]
}


class Choices(BaseModel):
    """What may be asked of an image."""

    model_config = ConfigDict(extra="forbid", strict=True)

    threshold: Annotated[Any, WithJsonSchema(_THRESHOLD)] = Field(
        None,
        description="score above which a label is reported: a number; one a label; or numbers by"
        ' class id or label, with "default" for all others. Null: the model\'s',
    )
    visualize: bool | None = Field(None, description="answer with a picture too")
    explain: bool | None = Field(
        None, description="say for each label where the model looked; needs an ML-Decoder"
    )


class Question(Choices):
    """A request in JSON."""

    image: str = Field(description="base64 of an image file, a data: URI, or a URL if allowed")


@dataclass(frozen=True)
class Asked:
    """A question whose image is a file's content, base64 of one, or a URL."""

    image: bytes | str
    choices: Choices


class Meter:
    """How many bytes of requests are held now, of all those that may be."""

    def __init__(self, limit: float) -> None:
        self._rest = limit

    def take(self, size: int) -> None:
        """Count `size` bytes more, fewer if negative; status 503 where they are too many."""
        if size > self._rest:
            raise busy("too many large requests at one time")
        self._rest -= size


def busy(reason: str, *, after_s: int = 1) -> HTTPException:
    """Status 503."""
    return HTTPException(503, f"{reason}; try again", {"Retry-After": str(after_s)})


def wrong(reason: str) -> HTTPException:
    """Status 422: the request itself is at fault."""
    return HTTPException(422, reason)


class Body:
    """The body of one request, as far as it has arrived; `close` it.

    Args:
      request: the request.
      limit: bytes that it may have.
      timeout_s: time that it may take to arrive.
      meter: counts the bytes of all requests.
    """

    def __init__(self, request: Request, *, limit: int, timeout_s: float, meter: Meter) -> None:
        self._request = request
        self._limit = limit
        self._timeout_s = timeout_s
        self._meter = meter
        self._held = 0

    async def read(self) -> bytes:
        """All of it.

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
        """Count its bytes no more."""
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


async def parse(request: Request, body: bytes) -> Asked:
    """The question that `body` holds, in one of three forms.

    Raises:
      HTTPException: it holds none (422), or has another type of content.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        question = _checked(Question.model_validate_json, body)
        return Asked(question.image, question)
    if kind.startswith("image/") or kind == "application/octet-stream":
        return Asked(body, _choices(dict(request.query_params)))
    if kind == "multipart/form-data":
        return await _parse_form(request, body)
    raise wrong(
        f"Content-Type is {kind!r}: send application/json, multipart/form-data, or an image itself"
        " as image/…"
    )


def decode_base64(text: str) -> bytes:
    """The content of an image file given as base64 or data: URI.

    Raises:
      HTTPException: it is neither.
    """
    if text[:5].lower() == "data:":
        head, comma, text = text.partition(",")
        if not comma or not head.lower().endswith(";base64"):
            raise wrong("image is a data: URI without ;base64,")
    try:
        return base64.b64decode(re.sub(r"\s+", "", text), validate=True)
    except (binascii.Error, ValueError) as error:
        raise wrong(f"image is no valid base64: {error}") from error


async def _parse_form(request: Request, body: bytes) -> Asked:
    async def stream() -> AsyncIterator[bytes]:
        yield body

    parser = MultiPartParser(request.headers, stream(), max_files=1, max_fields=8)
    parser.spool_max_size = len(body) + 1  # in memory, where the body is already
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError) as error:  # KeyError: no boundary
        raise wrong(f"the multipart body cannot be read: {error}") from error
    fields = dict(form.multi_items())
    image = fields.pop("file", None) or fields.pop("image", None)
    choices = _choices({k: v for k, v in fields.items() if isinstance(v, str)})
    if image is None:
        raise wrong("the multipart body has no file: name it file or image")
    return Asked(await image.read() if isinstance(image, UploadFile) else image, choices)


def _choices(texts: dict[str, str]) -> Choices:
    """Of form fields or a query, each of which is JSON."""
    values = {}
    for name, text in texts.items():
        try:
            values[name] = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise wrong(f"{name}={text[:80]!r}: must be JSON, such as 0.5 or true") from error
    return _checked(Choices.model_validate, values)


def _checked(validate: Any, value: Any) -> Any:
    try:
        return validate(value)
    except ValidationError as error:
        faults = (
            f"{'.'.join(map(str, fault['loc'])) or 'body'}: {fault['msg']}"
            for fault in error.errors(include_input=False, include_url=False)
        )
        raise wrong("; ".join(faults)[:1000]) from error
