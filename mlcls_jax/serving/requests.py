"""From the body of a request to its checked content, in a time that its size alone decides.

All of this runs on the event loop, where a second of work is a second for everybody. So nothing is
parsed but the image and as much text as a request to this model can need.
"""

import binascii
import json
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from fastapi import Request
from pydantic import ValidationError

from mlcls_jax.errors import nearest
from mlcls_jax.serving.forms import MAX_FIELDS, MAX_IMAGES, read_fields
from mlcls_jax.serving.refusals import shown, unprocessable
from mlcls_jax.serving.schemas import ClassifyOptions, ClassifyRequest, ClassifyRequests

MAX_KIND = 500  # characters of a Content-Type
MAX_URL = 4096  # characters
LONG = 4096  # bytes of a text in JSON that can only be the image


@dataclass(frozen=True)
class ParsedRequest:
    """A request whose images are each a file's content, base64 of one, or a URL."""

    images: tuple[bytes | str, ...]
    options: ClassifyOptions
    is_list: bool = False  # whether the answer is about several, be it one of them


def max_text(labels: Iterable[str]) -> int:
    """Return the bytes that a request may have besides its image: thresholds, and some more."""
    # An escaped character takes up to 12 bytes, a number with its spaces 64.
    return 4 * LONG + sum(12 * len(label) + 64 for label in labels)


def parse(request: Request, body: bytes, limit: int) -> ParsedRequest:
    """Return the request that `body` holds, in one of three forms, by its Content-Type and query.

    There may be `limit` bytes besides the image; see `max_text`.

    Raises:
      HTTPException: it holds none (422), or has another type of content.
    """
    content_type = request.headers.get("content-type", "")
    kind = content_type.partition(";")[0].strip().lower()
    if len(content_type) > MAX_KIND:
        raise unprocessable(
            f"Content-Type has {len(content_type)} characters; {MAX_KIND} are allowed"
        )
    if kind == "application/json":
        return _parse_json(body, limit)
    if kind.startswith("image/") or kind == "application/octet-stream":
        return ParsedRequest((body,), _options(_query(request.scope["query_string"], limit), limit))
    if kind == "multipart/form-data":
        return _parse_form(content_type, body, limit)
    raise unprocessable(
        f"Content-Type is {shown(kind)}: send application/json, multipart/form-data, or an image"
        " itself as image/…"
    )


def decode_base64(text: str) -> bytes:
    """Return the content of an image file given as base64 or data: URI.

    The URL-safe alphabet, white space and missing padding are accepted.

    Raises:
      HTTPException: it is neither.
    """
    if text[:5].lower() == "data:":
        comma = text.find(",", 0, MAX_URL)
        if comma < 0 or not text[:comma].lower().endswith(";base64"):
            raise unprocessable("image is a data: URI without ;base64,")
        text = text[comma + 1 :]
    text = text.rstrip("= \t\r\n\f\v")
    data = text.encode("utf-8", "replace").translate(_TO_PLAIN, _SPACES)
    if data.translate(None, _ALPHABET):
        at = next(re.finditer(r"[^A-Za-z0-9+/_ \t\r\n\f\v-]", text))
        raise unprocessable(
            f"image is not valid base64: its character {at.start() + 1} is {at[0]!r}"
        )
    if len(data) % 4 == 1:
        raise unprocessable(f"image is not valid base64: cut off after {len(data)} characters")
    return binascii.a2b_base64(data + b"=" * (-len(data) % 4))


_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_TO_PLAIN = bytes.maketrans(b"-_", b"+/")
_SPACES = b" \t\r\n\f\v"


def _parse_json(body: bytes, limit: int) -> ParsedRequest:
    text, texts = _split(body, limit)
    try:
        # As float, since a whole number of many digits takes long, and is none that we could use.
        value = json.loads(text.decode(), parse_int=float)
        longs = {_placeholder(n): _unescaped(long.decode()) for n, long in enumerate(texts)}
    except UnicodeDecodeError as error:
        raise unprocessable("body: not UTF-8") from error
    except json.JSONDecodeError as error:
        raise unprocessable(f"body: not JSON: {error.msg}") from error
    except RecursionError as error:
        raise unprocessable("body: too deeply nested") from error
    if not isinstance(value, dict):
        raise unprocessable('body: must be a JSON object, such as {"image": "…"}')
    is_list = "images" in value
    given = value["images"] if is_list else [value.get("image")]
    found = {text for text in given if isinstance(text, str)} if isinstance(given, list) else set()
    for stray in longs.keys() - found:
        size = len(longs[stray])
        raise unprocessable(f"body: a text of {size} characters is not at image or in images")
    request = _checked(ClassifyRequests if is_list else ClassifyRequest, value)
    images: list[str] = request.images if is_list else [request.image]
    _check_count(len(images))
    return ParsedRequest(
        tuple(_image(longs.get(image) or image) for image in images), request, is_list
    )


def _check_count(images: int) -> None:
    if not 0 < images <= MAX_IMAGES:
        raise unprocessable(f"{images} images; a request has 1 to {MAX_IMAGES}")


def _unescaped(text: str) -> str:
    return json.loads(text) if "\\" in text else text[1:-1]  # twenty times as fast


def _placeholder(number: int) -> str:
    return f"the long text {number}"


_TEXT = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)


def _split(body: bytes, limit: int) -> tuple[bytes, list[bytes]]:
    """Return JSON without its long texts, in whose places there are `_placeholder`s; and these.

    So an image costs a look for the next quotation mark, and what is left is small.
    """
    kept, size, texts, place = [], 0, [], 0
    while (start := body.find(b'"', place)) >= 0:
        end = body.find(b'"', start + 1)
        is_long = end - start > LONG and body[end - 1] != ord("\\") and len(texts) < MAX_IMAGES
        if not is_long:  # then the end of a text may also be behind escaped quotation marks
            match = _TEXT.match(body, start, start + limit)
            if match is None:
                break
            end = match.end() - 1
        until = start if is_long else end + 1
        kept.append(body[place:until])
        size += until - place
        if size > limit:
            break
        if is_long:
            kept.append(json.dumps(_placeholder(len(texts))).encode())
            texts.append(body[start : end + 1])
        place = end + 1
    size += len(body) - place
    if size > limit:
        raise unprocessable(
            f"body: more than {limit} bytes besides the image, or a text without an end"
        )
    return b"".join([*kept, body[place:]]), texts


def _parse_form(content_type: str, body: bytes, limit: int) -> ParsedRequest:
    fields = read_fields(content_type, body)
    images = tuple(
        content if is_file else _image(_utf8(name, content))
        for name, content, is_file in fields
        if name in ("file", "image")
    )
    if not images:
        raise unprocessable("the multipart body has no file: name it file or image")
    _check_count(len(images))
    others = {name: content for name, content, _ in fields if name not in ("file", "image")}
    return ParsedRequest(images, _options(others, limit), len(images) > 1)


def _query(query: bytes, limit: int) -> dict[str, bytes]:
    if len(query) > limit:
        raise unprocessable(f"the query has {len(query)} characters; {limit} are allowed")
    try:
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=MAX_FIELDS)
    except ValueError as error:
        raise unprocessable(f"the query has more than {MAX_FIELDS} fields") from error
    return {name.decode(errors="replace"): text for name, text in pairs}


def _options(texts: dict[str, bytes], limit: int) -> ClassifyOptions:
    """Read form fields or a query: each is JSON, as Python writes it, too, or empty: left out."""
    _check_names(texts, ClassifyOptions.model_fields)
    values = {}
    for name, content in texts.items():
        if len(content) > limit:
            raise unprocessable(f"{name}: has {len(content)} bytes; {limit} are allowed")
        if text := _utf8(name, content).strip():
            values[name] = _value(name, text)
    return _checked(ClassifyOptions, values)


_PYTHONS = {"true": True, "false": False, "none": None}
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)")  # .5, +1 and 1. are no JSON


def _value(name: str, text: str) -> Any:
    if text.lower() in _PYTHONS:
        return _PYTHONS[text.lower()]
    if _NUMBER.fullmatch(text):
        return float(text)
    try:
        return json.loads(text, parse_int=float)
    except (ValueError, RecursionError) as error:
        raise unprocessable(f"{name}={shown(text)}: must be JSON, such as 0.5 or true") from error


def _utf8(name: str, content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise unprocessable(f"{name}: not UTF-8") from error


def _image(text: str) -> str:
    if text[:8].lower().startswith(("http://", "https://")) and len(text) > MAX_URL:
        raise unprocessable(f"image is a URL of {len(text)} characters; {MAX_URL} are allowed")
    return text


def _check_names(given: Collection[str], known: Collection[str]) -> None:
    """Refuse unknown fields: a misspelt threshold would otherwise go unnoticed."""
    unknown = [name for name in given if name not in known]
    if not unknown:
        return
    names = [shown(name, quotes=False) for name in unknown[:3]]
    close = nearest(names[0], known)
    more = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""
    hint = f"; did you mean {close}?" if close else ""
    raise unprocessable(
        f"{', '.join(names)}{more}: no such field; there are {', '.join(known)}{hint}"
    )


def _checked(kind: type[ClassifyOptions], value: dict[str, Any]) -> Any:
    _check_names(value, kind.model_fields)
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        faults = error.errors(include_input=False, include_url=False)
        raise unprocessable(
            "; ".join(f"{fault['loc'][0]}: {fault['msg']}" for fault in faults)
        ) from error
