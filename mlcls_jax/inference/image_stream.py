"""From what people hand in (arrays, files, URLs, folders, lists) to a stream of pictures.

`expand` finds the inputs one by one; `read` decodes them in threads, ahead of the consumer, and
gives them in order.
"""

import atexit
import glob
import inspect
import io
import os
import re
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import closing, contextmanager
from functools import cache, partial
from itertools import count
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from mlcls_jax import lazy
from mlcls_jax.data.images import (
    SUFFIX_HINT,
    data_errors,
    decode_image,
    read_file,
    to_pixels,
    walk_images,
)
from mlcls_jax.errors import DataError, InputError, UserError
from mlcls_jax.inference.safe_fetch import Policy, fetch, redacted
from mlcls_jax.paths import expand as written_out

_KINDS = (
    "A picture is a uint8 array [H, W, 3], a PIL image, the bytes of an image file, a path or a"
    " URL, or a file that is open for reading; a folder, a list or an iterator holds several."
)
_FOREIGN_ARRAYS = (
    "Give np.asarray(…) of one picture, uint8 [H, W, 3], list(…) of several; of a PyTorch tensor"
    " [3, H, W] it is x.permute(1, 2, 0).cpu().numpy()."
)
_ARRAYS = "It takes uint8 [H, W, 3] in RGB, or [H, W], [H, W, 1] (grey), [H, W, 4] (with alpha)."
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # how the files begin; + is BigTIFF
_SUBFILE_TYPE, _SMALLER, _MASK = 254, 1, 4  # a tag of TIFF and two of its bits
_PDF_SCALE = 2.0  # pixels a point, as the originals have it: 144 dpi
_PDF_MAX_PIXELS = 4096 * 4096  # a page; posters are rendered at a smaller scale

_ANY = Policy()
# PDFium is not thread-safe: everything it does is done under this lock.
_pdf_lock = threading.Lock()


class Picture(NamedTuple):
    """One picture, or the error in its place."""

    name: str | None  # the path or URL as it was given; None of arrays, PIL images and bytes
    page: int | None  # from 0, in PDFs and in TIFFs of several pages
    image: np.ndarray | None  # uint8 [H, W, 3], RGB, upright
    prepared: Any  # what `prepare` made of it
    error: UserError | None  # names path, URL or place in the list, and the page


class Item(NamedTuple):
    """One input, not yet read: an image, or a document of several pages."""

    name: str | None
    label: str  # what messages call it
    content: np.ndarray | Image.Image | bytes | Path | str | UserError  # str: a URL


def read(
    source: Any,
    *,
    prepare: Callable[[np.ndarray], Any] | None = None,
    threads: int = 8,
    ahead: int = 32,
    policy: Policy = _ANY,
    max_pixels: int | None = None,
    bgr: bool = False,
    keep_image: bool = True,
) -> Iterator[Picture]:
    """The pictures of `source`, in order, decoded in threads while the consumer is at work.

    A picture that cannot be read becomes one with `error`, and the rest goes on. Closing the
    iterator ends the threads, each after the picture in its hands.

    Args:
      source: see `expand`. A TIFF of several pages and a PDF (extra `pdf`) give a picture a page;
        of animations the first frame counts.
      prepare: called with the image in the decoding thread; a UserError of it becomes `error`.
      threads: how many decode at once; pages of one document take turns, and PIL images are decoded
        in the consumer's thread.
      ahead: how many inputs, and pages of the document at hand, are taken up before they are asked
        for.
      policy: what URLs may be fetched.
      max_pixels: larger pictures are refused before they are decoded, and pages of PDFs rendered
        smaller; Pillow's own limit holds besides.
      keep_image: give `image`, too; without it only what `prepare` made of it stays in memory.
      bgr: arrays of three or four channels have blue first, as OpenCV gives them.

    Raises:
      InputError: `source` is of no known kind; or, while iterating, one of its elements is, or a
        folder holds no image.
    """
    if threads < 1 or ahead < 1:
        raise ValueError(f"threads={threads}, ahead={ahead}: both must be 1 or more")
    options = _Options(prepare, policy, max_pixels, bgr, keep_image)
    jobs = (partial(_open, _taken_up(item, options), options) for item in expand(source))
    return _run(jobs, threads, ahead)


def expand(source: Any) -> Iterator[Item]:
    """What is to be read, one by one: folders are walked and iterators asked only as far as needed.

    `source` is a uint8 array [H, W, 3] (or grey, or with alpha), a PIL image, the bytes of an image
    file, a file open in binary mode (read at once, from its beginning if it can go back there), a
    path, a pattern such as `in/*.png`, a URL, a folder (walked as by `list_images`), a dict {"img":
    one of these}, or an iterable of these. Arrays are copied, so that a camera may use its buffer
    again.

    Raises InputError at once when `source` is of no known kind, later when an element is, or when
    there is no image in a folder.
    """
    source = _unwrap(source, "the input")
    if _is_single(source):
        return _expand_one(source, "the input")
    if not isinstance(source, Iterable) or hasattr(source, "__array__") or isinstance(source, dict):
        raise _unknown(source, "the input")
    return _expand_many(source)


def _expand_many(sources: Iterable[Any]) -> Iterator[Item]:
    for index, source in enumerate(sources):
        label = f"input {index}"
        source = _unwrap(source, label)
        if not _is_single(source):
            raise _unknown(source, label)
        yield from _expand_one(source, label)


def _expand_one(source: Any, label: str) -> Iterator[Item]:
    if isinstance(source, np.ndarray):
        yield Item(None, label, source.copy())
    elif isinstance(source, Image.Image):
        yield Item(None, label, source)
    elif isinstance(source, bytes | bytearray | memoryview):
        yield Item(None, label, bytes(source))
    elif _is_stream(source):
        yield _from_stream(source, label)
    else:
        yield from _expand_text(source)


def _expand_text(source: str | os.PathLike) -> Iterator[Item]:
    if not isinstance(source, str):
        paths = [os.path.expanduser(os.fsdecode(source))]
    else:
        try:
            paths = local_paths(source)
        except InputError as error:
            paths = []
            yield Item(source, source, error)
    if paths is None:
        yield Item(source, redacted(source), source)
        return
    for path in paths:
        if os.path.isdir(path):  # unlike Path.is_dir, it bears any string
            yield from _expand_folder(Path(path))
        else:
            yield Item(path, path, Path(path))


def local_paths(source: str) -> list[str] | None:
    """The files and folders that a text names: a path, a file:// URL, or a pattern; None: a URL.

    `~` is the home folder. A pattern gives what matches it, sorted, unless a file has that very
    name. Whether a path leads to anything is not asked.

    Raises InputError when nothing matches a pattern, and for files of another host.
    """
    path = written_out(source)
    if path[:7].lower() == "file://":
        host = path[7:].partition("/")[0]
        raise InputError(f"{source}: a file of another host, {host}, cannot be read", _KINDS)
    if _URL.match(path):
        return None
    if path != source and not source.startswith("~"):  # in a URL nothing is a pattern
        return [path]
    if glob.escape(path) == path or "\0" in path or os.path.lexists(path):
        return [path]
    if found := sorted(glob.iglob(path, recursive=True)):
        return found
    raise InputError(f"{source}: nothing is called so, or matches it", "Check the path.")


def _is_stream(source: Any) -> bool:
    return callable(getattr(source, "read", None))


def _from_stream(stream: Any, label: str) -> Item:
    name = getattr(stream, "name", None)
    name = name if isinstance(name, str) else None  # or the number of a descriptor
    return Item(name, name or label, _content(stream, name or label))


def _content(stream: Any, label: str) -> bytes | UserError:
    """What a file object holds; from its beginning where it can go back there, as Pillow reads."""
    if isinstance(stream, io.TextIOBase):
        return InputError(f"{label}: was opened as text", 'Open it with mode "rb".')
    if inspect.iscoroutinefunction(stream.read):
        hint = "Give what `await ….read()` returns, or the file behind it."
        return InputError(f"{label}: {type(stream).__name__}.read() has to be awaited", hint)
    try:
        if hasattr(stream, "seekable") and stream.seekable():
            stream.seek(0)
        content = stream.read()
    except Exception as error:  # noqa: BLE001 (of any kind: it is somebody else's code)
        return DataError(f"{label}: cannot be read: {error}")
    if isinstance(content, bytes | bytearray | memoryview):
        return bytes(content)
    kind = type(content).__name__
    told = f"{label}: {type(stream).__name__}.read() gives {kind}, not bytes"
    return InputError(told, "It must give the bytes of an image file.")


def _expand_folder(folder: Path) -> Iterator[Item]:
    is_empty = True
    for found in walk_images(folder):
        is_empty = False
        name = str(folder if isinstance(found, DataError) else found)
        yield Item(name, name, found)
    if is_empty:
        raise InputError(f"{folder}: no image in this folder", SUFFIX_HINT)


def _is_single(source: Any) -> bool:
    kinds = np.ndarray | Image.Image | bytes | bytearray | memoryview | str | os.PathLike
    return isinstance(source, kinds) or _is_stream(source)


def _unwrap(source: Any, label: str) -> Any:
    """What a dict of a pipeline holds; everything else as it is."""
    if not isinstance(source, dict):
        return source
    for key in source:
        if key != "img":
            raise InputError(
                f'{label}: unknown key {key!r}; a dict has the key "img" alone', _KINDS
            )
    if not source:
        raise InputError(f'{label}: a dict without the key "img"', _KINDS)
    return source["img"]


def _unknown(source: Any, label: str) -> InputError:
    kind = f"{type(source).__module__}.{type(source).__qualname__}".removeprefix("builtins.")
    is_array = hasattr(source, "__array__")
    hint = _FOREIGN_ARRAYS if is_array else _KINDS
    return InputError(f"{label}: {kind} is not a picture", hint)


# Threads


Job = Callable[[], "Picture | Iterator[Job]"]


def _run(jobs: Iterator[Job], threads: int, ahead: int) -> Iterator[Picture]:
    with _workers(threads) as submit:
        yield from _in_order(jobs, submit, ahead)


def _in_order(
    jobs: Iterator[Job], submit: Callable[[Job], Future], ahead: int
) -> Iterator[Picture]:
    """The pictures of `jobs`; where one gives more jobs (pages), theirs in its place."""
    waiting: deque[Future] = deque()
    while True:
        # One comes in for each that goes out, and more only when we would have to wait: so a slow
        # source, such as a camera, is not asked for many before the first is given.
        while len(waiting) < ahead and (future := _submit_next(jobs, submit)):
            waiting.append(future)
            if waiting[0].done():
                break
        if not waiting:
            return
        found = waiting.popleft().result()
        if isinstance(found, Picture):
            yield found
        else:
            yield from _in_order(found, submit, ahead)
        del found  # the consumer may be done with it before the next is ready


def _submit_next(jobs: Iterator[Job], submit: Callable[[Job], Future]) -> Future | None:
    try:
        job = next(jobs, None)
    except Exception as error:  # noqa: BLE001
        future: Future = Future()
        future.set_exception(error)  # is raised when its turn comes, after what was before it
        return future
    return job and submit(job)


@contextmanager
def _workers(threads: int) -> Iterator[Callable[[Job], Future]]:
    """A function that has jobs done in up to `threads` threads.

    On leaving, waiting jobs are dropped, and each thread ends after the job in its hands. Unlike
    those of `concurrent.futures`, the threads do not hold up the end of the program.
    """
    tasks: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
    stopped = threading.Event()
    started: list[threading.Thread] = []

    def work() -> None:
        while (task := tasks.get()) is not None and not stopped.is_set():
            task()
            del task  # it holds the picture, also while we wait for the next

    def submit(job: Job) -> Future:
        future: Future = Future()
        tasks.put(partial(_do, job, future))
        if len(started) < threads:
            started.append(threading.Thread(target=work, name="mlcls-read", daemon=True))
            started[-1].start()
        return future

    try:
        yield submit
    finally:
        stopped.set()
        for _ in started:
            tasks.put(None)


def _do(job: Job, future: Future) -> None:
    try:
        future.set_result(job())
    except BaseException as error:  # noqa: BLE001
        future.set_exception(error)  # raised in the consumer's thread


# Decoding, in those threads


class _Options(NamedTuple):
    prepare: Callable[[np.ndarray], Any] | None
    policy: Policy
    max_pixels: int | None
    bgr: bool
    keep_image: bool


def _taken_up(item: Item, options: _Options) -> Item:
    """The item; a PIL image decoded at once, because it may come again, with another frame."""
    if not isinstance(item.content, Image.Image):
        return item
    try:
        pixels = to_pixels(item.content, name=item.label, max_pixels=options.max_pixels)
        return item._replace(content=Image.fromarray(pixels))
    except DataError as error:
        return item._replace(content=error)


def _open(item: Item, options: _Options) -> Picture | Iterator[Job]:
    """The picture of an item, or a job for each of its pages."""
    content = item.content
    try:
        if isinstance(content, UserError):
            raise content
        if isinstance(content, np.ndarray):
            decode = partial(_from_array, content, item.label, bgr=options.bgr)
        elif isinstance(content, Image.Image):
            decode = partial(to_pixels, content, name=item.label, max_pixels=options.max_pixels)
        else:
            if isinstance(content, str):
                content = fetch(content, options.policy)
            head = _head(content)
            if head.startswith(_TIFF):
                with data_errors(item.label):
                    stream = io.BytesIO(content) if isinstance(content, bytes) else content
                    tiff = _Tiff(Image.open(stream, formats=("TIFF",)))
                if len(tiff.frames) > 1:
                    return _page_jobs(item, len(tiff.frames), tiff.decode, options)
                decode = partial(tiff.decode, 0, item.label, options.max_pixels)
            elif head.startswith(b"%PDF-"):
                pages = _count_pdf_pages(content, item.label)
                return _page_jobs(item, pages, partial(_render_pdf_page, content), options)
            else:
                data = read_file(content) if isinstance(content, Path) else content
                decode = partial(decode_image, data, name=item.label, max_pixels=options.max_pixels)
    except UserError as error:
        return _failed(item.name, None, error)
    return _picture(item.name, None, decode, options)


def _page_jobs(
    item: Item,
    pages: int,
    decode: Callable[[int, str, int | None], np.ndarray],
    options: _Options,
) -> Iterator[Job]:
    for page in range(pages):
        label = f"{item.label}, page {page + 1} of {pages}"
        decode_page = partial(decode, page, label, options.max_pixels)
        yield partial(_picture, item.name, page, decode_page, options)


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
    """uint8 [H, W, 3] in RGB of an array of another kind."""
    channels = 1 if array.ndim == 2 else array.shape[-1] if array.ndim == 3 else 0
    if array.dtype != np.uint8 or channels not in (1, 3, 4) or array.size == 0:
        raise InputError(f"{label}: an array {array.dtype} {list(array.shape)}", _ARRAYS)
    if channels == 1:
        return np.repeat(array.reshape(*array.shape[:2], 1), 3, axis=2)
    if bgr:
        array = np.ascontiguousarray(array[..., [2, 1, 0, 3][:channels]])
    return array if channels == 3 else to_pixels(Image.fromarray(array), name=label)


def _head(content: bytes | Path) -> bytes:
    """The first bytes, which say the kind of file; none where it cannot be read."""
    if isinstance(content, bytes):
        return content[:8]
    try:
        with content.open("rb") as file:
            return file.read(8)
    except (OSError, ValueError):
        return b""  # `read_file` says why


class _Tiff:
    """An open TIFF, whose pages are read one at a time."""

    def __init__(self, image: Image.Image) -> None:
        self._lock = threading.Lock()
        self._image = image
        self.frames = _page_frames(image)

    def __del__(self) -> None:
        self._image.close()  # with the last of its pages

    def decode(self, page: int, label: str, max_pixels: int | None) -> np.ndarray:
        with self._lock, data_errors(label):
            self._image.seek(self.frames[page])
            return to_pixels(self._image, name=label, max_pixels=max_pixels)


def _page_frames(tiff: Image.Image) -> list[int]:
    """The frames that are pages: not smaller copies of a page, nor masks, which TIFFs may hold.

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


def _count_pdf_pages(content: bytes | Path, label: str) -> int:
    with _pdf(content, label) as document:
        return len(document)


def _render_pdf_page(
    content: bytes | Path, page: int, label: str, max_pixels: int | None
) -> np.ndarray:
    # Opened anew for each page: that costs less than a page does, and nothing is left to close.
    with _pdf(content, label) as document:
        width, height = document[page].get_size()  # points
        limit = _PDF_MAX_PIXELS if max_pixels is None else min(max_pixels, _PDF_MAX_PIXELS)
        scale = min(_PDF_SCALE, (limit / max(1.0, width * height)) ** 0.5)
        with closing(document[page].render(scale=scale, rev_byteorder=True)) as bitmap:  # RGB
            return bitmap.to_numpy().copy()


@contextmanager
def _pdf(content: bytes | Path, label: str) -> Iterator[Any]:
    """The document, for as long as PDFium is ours alone."""
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
