"""Process setup before a mode runs: logging, JAX's compilation cache, memory."""

import contextlib
import gc
import io
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from mlcls_jax import files
from mlcls_jax.bars import AboveBars
from mlcls_jax.errors import UserError


def collect_rarely() -> None:
    """Let Python look for unused cycles a tenth as often or less; for programs of our own only.

    Each search goes through all objects of JAX and its kin. Left alone, that is a fifth of the time
    of importing them and of tracing a training step, and finds next to nothing.
    """
    gc.set_threshold(50_000, 20, 20)


def start_streams() -> None:
    """Let what the encoding of standard output or error lacks be written as escapes.

    In a C locale that is all but ASCII; and names of files that are not UTF-8, everywhere.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


@contextlib.contextmanager
def logging_to(log_file: Path) -> Iterator[None]:
    """Send our messages in the block to the terminal (INFO) and to `log_file` (all)."""
    start_console()
    file = logging.FileHandler(log_file, encoding="utf-8", errors="backslashreplace")
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger("mlcls_jax")
    logger.addHandler(file)
    try:
        yield
    except Exception as error:  # the terminal gets it later
        logger.debug("%s", error, exc_info=not isinstance(error, UserError))
        raise
    finally:
        logger.removeHandler(file)
        file.close()


def start_console(level: int | None = None) -> None:
    """Our messages to the terminal, of this level on; libraries only warn.

    None: as it was, which is INFO at first.
    """
    logger = logging.getLogger("mlcls_jax")
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    if not any(isinstance(handler, AboveBars) for handler in logger.handlers):
        logger.addHandler(AboveBars(logging.INFO))
    for handler in logger.handlers:
        if isinstance(handler, AboveBars) and level is not None:
            handler.setLevel(level)
    for library in ("orbax", "jax", "grain"):
        logging.getLogger(library).setLevel(logging.WARNING)
    # Orbax warns by it of a save that takes as long as an epoch, and writes twenty pages about one
    # that fails, which it raises, too.
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    sys.unraisablehook = _tell_unraisable


def _tell_unraisable(unraisable: "sys.UnraisableHookArgs") -> None:
    """Tell what Python cannot raise, but none of the writes that a failed save leaves behind."""
    if str(unraisable.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(unraisable)


def start_jax(*, cache: bool) -> None:
    """With `cache`, keep compiled programs in the user's cache folder for the next start.

    Small ones too, as together they take half a second. Who sets JAX_COMPILATION_CACHE_DIR decides
    for themselves.
    """
    import jax

    # Before the devices are looked for: that there is no TPU is no news.
    logging.getLogger("jax").setLevel(logging.WARNING)
    if cache and not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        try:
            folder = files.cache_folder("jax")
        except UserError as error:  # there is nowhere to write to: it goes without
            logging.getLogger(__name__).warning("%s", error.message)
            return
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
