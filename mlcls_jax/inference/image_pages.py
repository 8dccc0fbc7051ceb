"""Documents of several pages: TIFF, read by Pillow, and PDF, read by PDFium (extra `pdf`)."""

import atexit
import io
import threading
import weakref
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any, cast

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from mlcls_jax import lazy
from mlcls_jax.data.images import data_errors, to_pixels
from mlcls_jax.errors import DataError, InputError

_SUBFILE_TYPE, _SMALLER, _MASK = 254, 1, 4  # a tag of TIFF and two of its bits
_PDF_SCALE = 2.0  # pixels per point, as the originals have it: 144 dpi
_PDF_MAX_PIXELS = 4096 * 4096  # a page; posters are rendered at a smaller scale

# PDFium is not thread-safe: everything it does is done under this lock.
_pdf_lock = threading.Lock()


class Tiff:
    """An open TIFF, whose pages are read one at a time."""

    def __init__(self, image: TiffImageFile) -> None:
        self._lock = threading.Lock()
        self._image = image
        self.frames = _page_frames(image)

    def __del__(self) -> None:
        self._image.close()  # with the last of its pages

    def decode(self, page: int, label: str) -> np.ndarray:
        with self._lock, data_errors(label):
            self._image.seek(self.frames[page])
            return to_pixels(self._image, name=label)


def open_tiff(content: bytes | Path, label: str) -> Tiff:
    """Open a TIFF; errors call it by `label`.

    Raises:
      DataError: it is broken.
    """
    stream = io.BytesIO(content) if isinstance(content, bytes) else content
    with data_errors(label):
        return Tiff(cast(TiffImageFile, Image.open(stream, formats=("TIFF",))))


def _page_frames(tiff: TiffImageFile) -> list[int]:
    """List the frames that are pages, not smaller copies of one nor masks, which TIFFs may hold.

    Those that cannot be read count too, so that their turn tells of it.
    """
    frames = []
    for frame in count():
        try:
            tiff.seek(frame)
            kind = tiff.tag_v2.get(_SUBFILE_TYPE, 0)
        except EOFError:
            break
        except Exception:  # noqa: BLE001
            is_reached, kind = tiff.tell() == frame, 0
            tiff.seek(0)  # or Pillow would believe that it is at the broken frame, ready to load
            if not is_reached:
                frames.append(frame)  # where the file breaks off
                break
        if not kind & (_SMALLER | _MASK):
            frames.append(frame)
    return frames or [0]


def count_pdf_pages(content: bytes | Path, label: str) -> int:
    """Return the number of pages of a PDF.

    Raises:
      DataError: it is broken.
      InputError: pypdfium2 is not installed.
    """
    with _pdf(content, label) as document:
        return len(document)


def render_pdf_page(content: bytes | Path, page: int, label: str) -> np.ndarray:
    """Return a page, from 0, as uint8 [H, W, 3].

    Raises:
      DataError: it is broken.
    """
    # Opened anew for each page: that costs less than a page does, and nothing is left to close.
    with _pdf(content, label) as document:
        width, height = document[page].get_size()  # points
        scale = min(_PDF_SCALE, (_PDF_MAX_PIXELS / max(1.0, width * height)) ** 0.5)
        with closing(document[page].render(scale=scale, rev_byteorder=True)) as bitmap:  # RGB
            return bitmap.to_numpy().copy()


@contextmanager
def _pdf(content: bytes | Path, label: str) -> Iterator[Any]:
    """Open the document, for as long as PDFium is ours alone."""
    with _pdf_lock:
        pdfium = _pdfium()
        try:
            with pdfium.PdfDocument(content) as document:
                yield document
        except (pdfium.PdfiumError, OSError) as error:
            raise DataError(f"{label}: this PDF cannot be read: {error}") from error


@cache
def _pdfium() -> Any:
    with lazy.optional("reading PDFs needs pypdfium2", extra="pdf", kind=InputError):
        import pypdfium2
    # As the program ends, a page in the works is waited for, and no other is begun, before PDFium
    # is shut down. The last handler registered is called first; that of `finalize`, which closes
    # what pypdfium2 has open, is registered by its first use.
    weakref.finalize(pypdfium2, int)
    atexit.register(_pdf_lock.acquire, timeout=5)
    return pypdfium2
