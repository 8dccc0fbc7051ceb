"""A stream of pictures: what people hand in, decoded in order, in threads ahead of the consumer."""

from collections.abc import Callable, Generator, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from mlcls_jax.data.image_files import read_file
from mlcls_jax.data.images import decode_image, to_pixels
from mlcls_jax.errors import DataError, InputError, UserError
from mlcls_jax.files import regular
from mlcls_jax.inference.image_inputs import Item, expand
from mlcls_jax.inference.image_pages import count_pdf_pages, open_tiff, render_pdf_page
from mlcls_jax.inference.ordered_jobs import Job, run_in_order
from mlcls_jax.inference.safe_fetch import Policy, fetch

_ARRAYS = "It takes uint8 [H, W, 3] in RGB, or [H, W], [H, W, 1] (grey), [H, W, 4] (with alpha)."
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # how the files begin; + is BigTIFF


class Picture(NamedTuple):
    """One picture, or the error in its place."""

    name: str | None  # the path or URL as it was given; None of arrays, PIL images and bytes
    page: int | None  # from 0, in PDFs and in TIFFs of several pages
    image: np.ndarray | None  # uint8 [H, W, 3], RGB, upright
    prepared: Any  # what `prepare` made of it
    error: UserError | None  # names path, URL or place in the list, and the page


def read(
    source: Any,
    *,
    prepare: Callable[[np.ndarray], Any] | None = None,
    threads: int = 8,
    ahead: int = 32,
    bgr: bool = False,
    keep_image: bool = True,
) -> Generator[Picture, None, None]:
    """Yield the pictures of `source` in order, decoded in threads while the consumer is at work.

    A picture that cannot be read becomes one with `error`, and the rest goes on. Closing the
    iterator ends the threads, each after the picture in its hands.

    Args:
      source: see `expand`. A TIFF of several pages and a PDF (extra `pdf`) give a picture per page;
        of animations the first frame counts.
      prepare: called with the image in the decoding thread; a UserError of it becomes `error`.
      threads: how many decode at once; pages of one document take turns, and PIL images are decoded
        in the consumer's thread.
      ahead: how many inputs, and pages of the document at hand, are taken up before they are asked
        for.
      keep_image: give `image`, too; without it only what `prepare` made of it stays in memory.
      bgr: arrays of three or four channels have blue first, as OpenCV gives them.

    Raises:
      InputError: `source` is of no known kind; or, while iterating, one of its elements is, or a
        folder holds no image.
    """
    if threads < 1 or ahead < 1:
        raise ValueError(f"threads={threads}, ahead={ahead}: both must be 1 or more")
    options = _Options(prepare, bgr, keep_image)
    jobs = (partial(_open, _taken_up(item), options) for item in expand(source))
    return run_in_order(jobs, threads, ahead)


class _Options(NamedTuple):
    prepare: Callable[[np.ndarray], Any] | None
    bgr: bool
    keep_image: bool


def _taken_up(item: Item) -> Item:
    """Return the item; a PIL image decoded at once, as it may come again with another frame."""
    if not isinstance(item.content, Image.Image):
        return item
    try:
        pixels = to_pixels(item.content, name=item.label)
        return item._replace(content=Image.fromarray(pixels))
    except DataError as error:
        return item._replace(content=error)


def _open(item: Item, options: _Options) -> Picture | Iterator[Job]:
    """Return the picture of an item, or a job for each of its pages."""
    content = item.content
    try:
        if isinstance(content, UserError):
            raise content
        if isinstance(content, np.ndarray):
            decode = partial(_from_array, content, item.label, bgr=options.bgr)
        elif isinstance(content, Image.Image):
            decode = partial(to_pixels, content, name=item.label)
        else:
            if isinstance(content, str):
                content = fetch(content, Policy())
            head = _head(content)
            if head.startswith(_TIFF):
                tiff = open_tiff(content, item.label)
                if len(tiff.frames) > 1:
                    return _page_jobs(item, len(tiff.frames), tiff.decode, options)
                decode = partial(tiff.decode, 0, item.label)
            elif head.startswith(b"%PDF-"):
                pages = count_pdf_pages(content, item.label)
                return _page_jobs(item, pages, partial(render_pdf_page, content), options)
            else:
                data = read_file(content) if isinstance(content, Path) else content
                decode = partial(decode_image, data, name=item.label)
    except UserError as error:
        return _failed(item.name, None, error)
    return _picture(item.name, None, decode, options)


def _page_jobs(
    item: Item, pages: int, decode: Callable[[int, str], np.ndarray], options: _Options
) -> Iterator[Job]:
    for page in range(pages):
        label = f"{item.label}, page {page + 1} of {pages}"
        yield partial(_picture, item.name, page, partial(decode, page, label), options)


def _picture(
    name: str | None, page: int | None, decode: Callable[[], np.ndarray], options: _Options
) -> Picture:
    try:
        image = decode()
        prepared = options.prepare(image) if options.prepare else None
    except UserError as error:
        return _failed(name, page, error)
    return Picture(name, page, image if options.keep_image else None, prepared, None)


def _failed(name: str | None, page: int | None, error: UserError) -> Picture:
    # Through their frames these hold what was read, and errors may be kept for long.
    error.__traceback__ = error.__cause__ = error.__context__ = None
    return Picture(name, page, None, None, error)


def _from_array(array: np.ndarray, label: str, *, bgr: bool) -> np.ndarray:
    """Return an array of any kind allowed as uint8 [H, W, 3] in RGB."""
    channels = 1 if array.ndim == 2 else array.shape[-1] if array.ndim == 3 else 0
    if array.dtype != np.uint8 or channels not in (1, 3, 4) or array.size == 0:
        raise InputError(f"{label}: an array {array.dtype} {list(array.shape)}", _ARRAYS)
    if channels == 1:
        return np.repeat(array.reshape(*array.shape[:2], 1), 3, axis=2)
    if bgr:
        array = np.ascontiguousarray(array[..., [2, 1, 0, 3][:channels]])
    return array if channels == 3 else to_pixels(Image.fromarray(array), name=label)


def _head(content: bytes | Path) -> bytes:
    """Return the first bytes, which say the kind of file; none where it cannot be read."""
    if isinstance(content, bytes):
        return content[:8]
    try:
        with regular(content).open("rb") as file:
            return file.read(8)
    except (OSError, ValueError):
        return b""  # `read_file` says why
