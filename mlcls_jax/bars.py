"""Progress bars on the terminal, and messages above them."""

import logging
import sys
from collections.abc import Iterable
from typing import Any, TypeVar, cast

from tqdm import tqdm

T = TypeVar("T")


class AboveBars(logging.Handler):
    """Writes to standard error, above a progress bar instead of through it."""

    def emit(self, record: logging.LogRecord) -> None:
        prefix = "" if record.levelno < logging.WARNING else f"{record.levelname.lower()}: "
        tqdm.write(prefix + self.format(record), file=sys.stderr)


def progress(iterable: Iterable[T] | None = None, **options: Any) -> "tqdm[T]":
    """Return a progress bar, which shows itself on a terminal unless it is asked for quiet."""
    return cast(Any, tqdm)(iterable, **({"disable": is_quiet() or None} | options))


def is_quiet() -> bool:
    """Return whether nothing but warnings is to be told on the terminal."""
    handlers = logging.getLogger("mlcls_jax").handlers
    return any(isinstance(h, AboveBars) and h.level > logging.INFO for h in handlers)
