"""The fields of a multipart form."""

import re

from starlette.exceptions import HTTPException

from mlcls_jax.serving.refusals import unprocessable

MAX_IMAGES = 64  # of a request
MAX_FIELDS = 8  # besides them
MAX_HEAD = 4096  # bytes of the headers of a field


def read_fields(content_type: str, body: bytes) -> list[tuple[str, bytes, bool]]:
    """Return name and content of each field, and whether it is a file's.

    A charset is not obeyed: browsers and libraries send UTF-8, and some codecs take very long.

    Raises:
      HTTPException: it is no form, or one with too many fields (422).
    """
    boundary = b"--" + _parameters(content_type).get("boundary", "").encode()
    if boundary == b"--":
        raise _unreadable("its Content-Type has no boundary")
    # There is no line before the first boundary, unless there is a preamble, which says nothing.
    start = 0 if body.startswith(b"--") else body.find(b"\r\n--") + 2
    if not body.startswith(boundary, start):
        raise _unreadable("it does not begin with its boundary")
    most = MAX_IMAGES + MAX_FIELDS
    parts = body[start + len(boundary) :].split(b"\r\n" + boundary, most)
    fields = []
    for part in parts:
        if part.startswith(b"--"):
            return fields
        head, gap, content = part.partition(b"\r\n\r\n")
        if not gap or len(head) > MAX_HEAD:
            raise _unreadable("a field has no headers, or long ones")
        line = next((h for h in head.split(b"\r\n") if h.lower().startswith(_DISPOSITION)), b"")
        parameters = _parameters(line.decode(errors="replace"))
        if "name" not in parameters:
            raise _unreadable("a field has no name")
        is_file = "filename" in parameters or "filename*" in parameters
        fields.append((parameters["name"], content, is_file))
    if len(parts) > most:
        raise unprocessable(f"the multipart body has more than {most} fields")
    raise _unreadable("its end is missing")


def _unreadable(reason: str) -> HTTPException:
    return unprocessable(f"the multipart body cannot be read: {reason}")


_DISPOSITION = b"content-disposition:"
_PARAMETER = re.compile(r';\s*([\w*-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^;"\s]*))')


def _parameters(header: str) -> dict[str, str]:
    """Return what follows the first semicolon of a header. None is decoded: see `read_fields`."""
    return {
        name.lower(): re.sub(r"\\(.)", r"\1", quoted) or plain
        for name, quoted, plain in _PARAMETER.findall(header)
    }
