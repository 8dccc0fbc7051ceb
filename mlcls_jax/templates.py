"""HTML from Jinja2 templates, in which every value is escaped."""

import base64
import hashlib
import re

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f]")


def environment(package: str) -> Environment:
    """Return the environment of the templates in the folder `templates` of a package.

    Text is made fit for HTML in UTF-8 before it is escaped: surrogates, which names of files may
    hold, and control characters are replaced.
    """
    made = Environment(
        loader=PackageLoader(package),
        autoescape=True,
        finalize=_encodable,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["formatted"] = format  # {{ 1234 | formatted(",") }}
    return made


def source_hash(content: str) -> str:
    """Return what lets this script or style pass a Content-Security-Policy."""
    digest = hashlib.sha256(content.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _encodable(value: object) -> object:
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return _CONTROLS.sub("\ufffd", value.encode("utf-8", "replace").decode())
