"""Small pictures of images, made when they are first looked at, and kept by content."""

import hashlib
import io
import os
import threading
from pathlib import Path

from PIL import Image

from mlcls_jax import files
from mlcls_jax.data.image_files import read_file
from mlcls_jax.data.images import decode_image
from mlcls_jax.inference.drawing import to_jpeg

SIDE = 256  # pixels of the longer side
MAX_BYTES = 500_000_000  # of all that are kept
_KEPT = 0.8  # of that, once there are more
# What is sent as it is, by Pillow's names; other formats are sent as PNG.
_FOR_BROWSERS = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp", "GIF": "image/gif"}


class Thumbnails:
    """A folder of small JPEGs that takes `MAX_BYTES` at most."""

    def __init__(self, folder: Path | None = None, max_bytes: int = MAX_BYTES) -> None:
        """Use `folder`, or that of the user's caches."""
        self._folder = folder or files.cache_folder("thumbnails")
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._bytes: int | None = None  # of all; counted before the first is added
        # By path: size and time of the file, and the digest of its content then.
        self._digests: dict[Path, tuple[tuple[int, int], str]] = {}
        self._at_work = threading.BoundedSemaphore(max(2, os.cpu_count() or 1))

    def tag(self, path: Path) -> str:
        """Return what stays the same while the content does.

        Raises:
          DataError: the file cannot be read.
        """
        return self._digest(path, None)

    def get(self, path: Path) -> bytes:
        """Return the small picture of an image file, as a JPEG.

        Raises:
          DataError: it cannot be read or decoded.
        """
        kept = self._place(self._digest(path, None))
        try:
            content = kept.read_bytes()
            os.utime(kept)  # the least recently seen go first
            return content
        except OSError:
            pass
        with self._at_work:  # decoding takes memory
            content = read_file(path)
            made = _shrink(content, name=str(path))
            kept = self._place(self._digest(path, content))
        self._keep(kept, made)
        return made

    def _digest(self, path: Path, content: bytes | None) -> str:
        try:
            status = os.stat(path)
            stamp = (status.st_size, status.st_mtime_ns)
        except (OSError, ValueError):
            stamp = (-1, -1)
        known = self._digests.get(path)
        if known is None or known[0] != stamp or content is not None:
            content = read_file(path) if content is None else content
            known = (stamp, hashlib.blake2b(content, digest_size=16).hexdigest())
            self._digests[path] = known
        return known[1]

    def _place(self, digest: str) -> Path:
        return self._folder / digest[:2] / f"{digest[2:]}-{SIDE}.jpg"

    def _keep(self, place: Path, content: bytes) -> None:
        try:
            place.parent.mkdir(exist_ok=True)
            with files.beside(place) as temporary:  # not synced: it can be made again
                temporary.write_bytes(content)
                temporary.replace(place)
        except OSError:  # a full disk: then it is made again
            return
        with self._lock:
            if self._bytes is None:
                self._bytes = sum(size for _, size, _ in self._all())
            else:
                self._bytes += len(content)
            if self._bytes > self._max_bytes:
                self._bytes = self._prune()

    def _prune(self) -> int:
        """Delete those that were not looked at for longest; return the bytes of the others."""
        total = 0
        for _, size, path in sorted(self._all(), reverse=True):
            total += size
            if total > _KEPT * self._max_bytes:
                path.unlink(missing_ok=True)
                total -= size
        return total

    def _all(self) -> list[tuple[float, int, Path]]:
        found = []
        for path in self._folder.glob("*/*.jpg"):
            try:
                status = path.stat()
            except OSError:  # another studio has just deleted it
                continue
            found.append((status.st_mtime, status.st_size, path))
        return found


def for_browser(path: Path) -> tuple[bytes, str]:
    """Return the whole picture in a format that browsers show, and its media type.

    Raises:
      DataError: it cannot be read or decoded.
    """
    content = read_file(path)
    pixels = decode_image(content, name=str(path))  # refuses what is no picture, or too large
    with Image.open(io.BytesIO(content)) as header:
        kind = _FOR_BROWSERS.get(header.format or "")
    if kind:
        return content, kind
    made = io.BytesIO()
    Image.fromarray(pixels).save(made, "PNG", compress_level=1)
    return made.getvalue(), "image/png"


def _shrink(content: bytes, *, name: str) -> bytes:
    picture = Image.fromarray(decode_image(content, name=name, at_least=(SIDE, SIDE)))
    picture.thumbnail((SIDE, SIDE), Image.Resampling.BILINEAR, reducing_gap=2)
    return to_jpeg(picture, quality=85)
