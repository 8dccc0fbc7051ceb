"""From the body of a request to a checked question, in a time that its size alone decides.

All of this runs on the event loop, where a second of work is a second for everybody. So nothing is
parsed but the image and as much text as a question about this model can need.
"""

import binascii
import json
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import parse_qsl

from fastapi import HTTPException, Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError, WithJsonSchema

from mlcls_jax.errors import nearest

MAX_MESSAGE = 1000  # characters of an error
MAX_SHOWN = 80  # characters of it that repeat what was sent
MAX_KIND = 500  # characters of a Content-Type
MAX_FIELDS = 8  # of a form or a query
MAX_HEAD = 4096  # bytes of the headers of a form's field
MAX_URL = 4096  # characters
LONG = 4096  # bytes of a text in JSON that can only be the image

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


def busy(reason: str, *, after_s: int = 1) -> HTTPException:
    """Status 503."""
    return HTTPException(503, f"{reason}; try again", {"Retry-After": str(after_s)})


def wrong(reason: str) -> HTTPException:
    """Status 422: the request itself is at fault."""
    return HTTPException(422, _cut(reason, MAX_MESSAGE))


def max_text(labels: Iterable[str]) -> int:
    """Bytes that a question may have besides its image: a threshold for every label, and some."""
    # An escaped character takes up to 12 bytes, a number with its spaces 64.
    return 4 * LONG + sum(12 * len(label) + 64 for label in labels)


def parse(request: Request, body: bytes, limit: int) -> Asked:
    """The question that `body` holds, in one of three forms.

    Args:
      request: its query and Content-Type are looked at.
      body: all of its body.
      limit: bytes that there may be besides the image; see `max_text`.

    Raises:
      HTTPException: it holds none (422), or has another type of content.
    """
    content_type = request.headers.get("content-type", "")
    kind = content_type.partition(";")[0].strip().lower()
    if len(content_type) > MAX_KIND:
        raise wrong(f"Content-Type has {len(content_type)} characters; {MAX_KIND} are allowed")
    if kind == "application/json":
        return _parse_json(body, limit)
    if kind.startswith("image/") or kind == "application/octet-stream":
        return Asked(body, _choices(_query(request.scope["query_string"], limit), limit))
    if kind == "multipart/form-data":
        return _parse_form(content_type, body, limit)
    raise wrong(
        f"Content-Type is {_shown(kind)}: send application/json, multipart/form-data, or an image"
        " itself as image/…"
    )


def decode_base64(text: str) -> bytes:
    """The content of an image file given as base64 or data: URI.

    The URL-safe alphabet, white space and missing padding are accepted.

    Raises:
      HTTPException: it is neither.
    """
    if text[:5].lower() == "data:":
        comma = text.find(",", 0, MAX_URL)
        if comma < 0 or not text[:comma].lower().endswith(";base64"):
            raise wrong("image is a data: URI without ;base64,")
        text = text[comma + 1 :]
    text = text.rstrip("= \t\r\n\f\v")
    data = text.encode("utf-8", "replace").translate(_TO_PLAIN, _SPACES)
    if data.translate(None, _ALPHABET):
        at = re.search(r"[^A-Za-z0-9+/_ \t\r\n\f\v-]", text)
        raise wrong(f"image is no valid base64: its character {at.start() + 1} is {at[0]!r}")
    if len(data) % 4 == 1:
        raise wrong(f"image is no valid base64: cut off after {len(data)} characters")
    return binascii.a2b_base64(data + b"=" * (-len(data) % 4))


_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_TO_PLAIN = bytes.maketrans(b"-_", b"+/")
_SPACES = b" \t\r\n\f\v"


def _parse_json(body: bytes, limit: int) -> Asked:
    text, image = _split(body, limit)
    try:
        # As float, since a whole number of many digits takes long, and is none that we could use.
        value = json.loads(text.decode(), parse_int=float)
        long = None if image is None else _unescaped(image.decode())
    except UnicodeDecodeError as error:
        raise wrong("body: not UTF-8") from error
    except json.JSONDecodeError as error:
        raise wrong(f"body: not JSON: {error.msg}") from error
    except RecursionError as error:
        raise wrong("body: too deeply nested") from error
    if not isinstance(value, dict):
        raise wrong('body: must be a JSON object, such as {"image": "…"}')
    if long is not None:
        if value.get("image") != _IMAGE:
            raise wrong(f"body: a text of {len(image)} bytes is not at image")
        value["image"] = long
    question = _checked(Question, value)
    return Asked(_image(question.image), question)


def _unescaped(text: str) -> str:
    return json.loads(text) if "\\" in text else text[1:-1]  # twenty times as fast


_IMAGE = "the long text"
_TEXT = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)


def _split(body: bytes, limit: int) -> tuple[bytes, bytes | None]:
    """JSON without its one long text, in whose place there is `_IMAGE`; and that text.

    So an image costs a look for the next quotation mark, and what is left is small.
    """
    kept, size, image, place = [], 0, None, 0
    while (start := body.find(b'"', place)) >= 0:
        end = body.find(b'"', start + 1)
        is_long = end - start > LONG and body[end - 1] != ord("\\") and image is None
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
            image = body[start : end + 1]
            kept.append(json.dumps(_IMAGE).encode())
        place = end + 1
    size += len(body) - place
    if size > limit:
        raise wrong(f"body: more than {limit} bytes besides the image, or a text without an end")
    return b"".join([*kept, body[place:]]), image


def _parse_form(content_type: str, body: bytes, limit: int) -> Asked:
    fields = _fields(content_type, body)
    image = fields.pop("file", None) or fields.pop("image", None)
    if image is None:
        raise wrong("the multipart body has no file: name it file or image")
    choices = _choices({name: content for name, (content, _) in fields.items()}, limit)
    content, is_file = image
    return Asked(content if is_file else _image(_utf8("image", content)), choices)


def _fields(content_type: str, body: bytes) -> dict[str, tuple[bytes, bool]]:
    """Of a form: the content of each field, and whether it is a file's.

    A charset is not obeyed: browsers and libraries send UTF-8, and some codecs take very long.
    """
    boundary = b"--" + _parameters(content_type).get("boundary", "").encode()
    if boundary == b"--":
        raise wrong("the multipart body cannot be read: its Content-Type has no boundary")
    # There is no line before the first boundary, unless there is a preamble, which says nothing.
    start = 0 if body.startswith(b"--") else body.find(b"\r\n--") + 2
    if not body.startswith(boundary, start):
        raise wrong("the multipart body cannot be read: it does not begin with its boundary")
    parts = body[start + len(boundary) :].split(b"\r\n" + boundary, MAX_FIELDS)
    fields = {}
    for part in parts:
        if part.startswith(b"--"):
            return fields
        head, gap, content = part.partition(b"\r\n\r\n")
        if not gap or len(head) > MAX_HEAD:
            raise wrong("the multipart body cannot be read: a field has no headers, or long ones")
        line = next((h for h in head.split(b"\r\n") if h.lower().startswith(_DISPOSITION)), b"")
        parameters = _parameters(line.decode(errors="replace"))
        if "name" not in parameters:
            raise wrong("the multipart body cannot be read: a field has no name")
        is_file = "filename" in parameters or "filename*" in parameters
        fields[parameters["name"]] = (content, is_file)
    if len(parts) > MAX_FIELDS:
        raise wrong(f"the multipart body has more than {MAX_FIELDS} fields")
    raise wrong("the multipart body cannot be read: its end is missing")


_DISPOSITION = b"content-disposition:"
_PARAMETER = re.compile(r';\s*([\w*-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^;"\s]*))')


def _parameters(header: str) -> dict[str, str]:
    """What follows the first semicolon of a header. None is decoded: see `_fields`."""
    return {
        name.lower(): re.sub(r"\\(.)", r"\1", quoted) or plain
        for name, quoted, plain in _PARAMETER.findall(header)
    }


def _query(query: bytes, limit: int) -> dict[str, bytes]:
    if len(query) > limit:
        raise wrong(f"the query has {len(query)} characters; {limit} are allowed")
    try:
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=MAX_FIELDS)
    except ValueError as error:
        raise wrong(f"the query has more than {MAX_FIELDS} fields") from error
    return {name.decode(errors="replace"): text for name, text in pairs}


def _choices(texts: dict[str, bytes], limit: int) -> Choices:
    """Of form fields or a query: each is JSON, as Python writes it, too, or empty: left out."""
    _check_names(texts, Choices.model_fields)
    values = {}
    for name, content in texts.items():
        if len(content) > limit:
            raise wrong(f"{name}: has {len(content)} bytes; {limit} are allowed")
        if text := _utf8(name, content).strip():
            values[name] = _value(name, text)
    return _checked(Choices, values)


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
        raise wrong(f"{name}={_shown(text)}: must be JSON, such as 0.5 or true") from error


def _utf8(name: str, content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise wrong(f"{name}: not UTF-8") from error


def _image(text: str) -> str:
    if text[:8].lower().startswith(("http://", "https://")) and len(text) > MAX_URL:
        raise wrong(f"image is a URL of {len(text)} characters; {MAX_URL} are allowed")
    return text


def _check_names(given: Collection[str], known: Collection[str]) -> None:
    """All fields must be known: a misspelt threshold would otherwise go unnoticed."""
    unknown = [name for name in given if name not in known]
    if not unknown:
        return
    names = [_shown(name, quotes=False) for name in unknown[:3]]
    close = nearest(names[0], known)
    more = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""
    hint = f"; did you mean {close}?" if close else ""
    raise wrong(f"{', '.join(names)}{more}: no such field; there are {', '.join(known)}{hint}")


def _checked(kind: type[Choices], value: dict[str, Any]) -> Any:
    _check_names(value, kind.model_fields)
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        faults = error.errors(include_input=False, include_url=False)
        raise wrong("; ".join(f"{fault['loc'][0]}: {fault['msg']}" for fault in faults)) from error


def _shown(text: str, *, quotes: bool = True) -> str:
    short = _cut(text, MAX_SHOWN)
    return repr(short) if quotes else repr(short)[1:-1]


def _cut(text: str, size: int) -> str:
    return text if len(text) <= size else text[: size - 1] + "…"
