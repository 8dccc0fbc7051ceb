"""Files on web servers and in stores that the user has named, and so trusts.

What strangers ask for is fetched by `inference/safe_fetch.py`.
"""

import contextlib
import http.client
import logging
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from mlcls_jax import files
from mlcls_jax.errors import UserError

log = logging.getLogger(__name__)

ATTEMPTS = 3
PATIENCE = 60.0  # seconds without an answer, or with one too slow
_SLOWEST = 1024  # bytes a second; a time-out alone begins anew with every byte that drips in
_PART = 1 << 20  # bytes read at once, at most
_BROKEN_OFF = (ConnectionError, TimeoutError, http.client.HTTPException)


def download(
    copy: Callable[[Path], object], path: Path, *, check: Callable[[Path], object]
) -> None:
    """Fetch a file, which gets its name once it is whole and checked.

    A transfer that breaks off is begun again, up to `ATTEMPTS` times in all.

    Args:
      copy: writes the content to the path that it is given; may raise whatever its source does.
      path: the file's final name.
      check: raises an exception unless the content is the right one.
    """
    with files.replacing(path) as temporary:
        for left in reversed(range(ATTEMPTS)):
            try:
                copy(temporary)
                break
            except _BROKEN_OFF as error:
                if not left:
                    raise
                log.warning("%s: the transfer broke off and is begun again: %s", path.name, error)
        check(temporary)


def copy_from_web(url: str, target: Path, *, title: str) -> None:
    """Write what a web server gives to a file, under a progress bar.

    Raises:
      OSError: it cannot be reached, has no such file, is too slow, or the transfer broke off.
      ValueError: this is no URL.
    """
    with urllib.request.urlopen(url, timeout=PATIENCE) as response, target.open("wb") as file:
        size = int(response.headers.get("Content-Length") or 0)
        shown = {"unit": "B", "unit_scale": True, "unit_divisor": 1024}
        with tqdm(total=size or None, desc=title, **shown) as bar:
            since, came = time.monotonic(), 0
            while part := response.read1(_PART):
                bar.update(file.write(part))
                came += len(part)
                if time.monotonic() - since > PATIENCE:
                    if came < _SLOWEST * PATIENCE:
                        raise ConnectionError(f"only {came} bytes came in {PATIENCE:g} s")
                    since, came = time.monotonic(), 0
    if size and target.stat().st_size != size:
        raise ConnectionError(f"{target.stat().st_size} bytes came instead of {size}")


def open_store(url: str) -> tuple[Any, str]:
    """Return fsspec's file system of a URL, and the path in it."""
    import fsspec  # here, because few need it

    return fsspec.core.url_to_fs(url)


@contextlib.contextmanager
def store_errors(url: str, kind: type[UserError], hint: str | None = None) -> Iterator[None]:
    """Turn whatever a store raises, each its own kinds of errors, into one of ours about `url`.

    Errors of files on the disk pass unchanged.
    """
    if "://" not in url:
        yield
        return
    try:
        yield
    except UserError:
        raise
    except ImportError as error:
        hint = "pip install s3fs for s3://, gcsfs for gs://, aiohttp for https://"
        raise kind(f"{url}: cannot be read: {error}", hint) from error
    except Exception as error:
        cause = repr(error) if isinstance(error, OSError) else str(error) or repr(error)
        raise kind(f"{url}: cannot be read: {cause}", hint) from error
