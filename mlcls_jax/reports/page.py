"""Pages of reports: HTML files that load nothing, made from the folder `templates`.

A page's policy forbids every request, and every script except its own.
"""

import base64
import math
from pathlib import Path
from typing import Any, NamedTuple

from markupsafe import Markup
from PIL import Image

from mlcls_jax import readable
from mlcls_jax.data.sources import load
from mlcls_jax.data.types import Source
from mlcls_jax.files import write_text
from mlcls_jax.inference.drawing import to_jpeg
from mlcls_jax.metrics import as_text
from mlcls_jax.templates import environment, source_hash

MAX_NAME = 60  # characters of a label or file name in a list


class Page(NamedTuple):
    """An HTML page that loads nothing but images."""

    text: str
    policy: str  # of its content, which stands in it, too


def write(
    path: Path, template: str, *, script: str = "labels.js", images: str = "data:", **values: Any
) -> None:
    """Write a page; see `render`."""
    write_text(path, render(template, script=script, images=images, **values).text)


def render(
    template: str, *, script: str = "labels.js", images: str = "data:", **values: Any
) -> Page:
    """Return `template`, which extends base.html, as a page that needs no other file but images.

    Args:
      template: name of a file in `templates`.
      script: name of its script there.
      images: where those may come from, as a Content-Security-Policy has it.
      values: what it shows; text is escaped, `Markup` is not.
    """
    page, code = templates.get_template(template), templates.get_template(script).render()
    policy = f"{_POLICY} img-src {images}; script-src {source_hash(code)}"
    return Page(page.render(script=Markup(code), policy=policy, **values), policy)


def jpeg(picture: Image.Image) -> Markup:
    """Return the picture as a data: URI."""
    return data_uri("image/jpeg", to_jpeg(picture))


def thumbnail(source: Source, index: int, side: int) -> Markup:
    """Return an image of a data set, at most `side` pixels wide and high, as a data: URI.

    Raises:
      DataError: it cannot be read.
    """
    picture = Image.fromarray(load(source, index, at_least=(side, side))[0])
    picture.thumbnail((side, side))
    return jpeg(picture)


def data_uri(kind: str, content: bytes) -> Markup:
    """Return content of a media type as a URI, in which nothing needs escaping."""
    return Markup(f"data:{kind};base64,{base64.b64encode(content).decode()}")


def count(number: int, noun: str) -> str:
    """Return "1 image" or "2 images"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def shorten(text: str) -> str:
    """Return at most `MAX_NAME` characters, the last one … where some are left out."""
    return readable.shorten(text, MAX_NAME)


def known(value: float | None, form: str) -> str:
    """Return a number in a format; a dash for one that is not known, None or NaN."""
    return "–" if value is None or math.isnan(value) else format(value, form)


templates = environment("mlcls_jax.reports")
templates.filters |= {"short": shorten, "metric": as_text, "jpeg": jpeg, "known": known}
templates.globals["count"] = count
_POLICY = "default-src 'none'; style-src 'unsafe-inline';"
