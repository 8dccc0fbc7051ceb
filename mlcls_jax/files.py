"""Writing files so that nothing half-written stands under its final name; where caches lie."""

import atexit
import functools
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlcls_jax.errors import UserError

log = logging.getLogger(__name__)


def write_text(path: Path, text: str) -> None:
    """Write beside the file, then rename over it.

    Names of files that are not UTF-8 are written as escapes, which are JSON's, too.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
    os.replace(temporary, path)


def write_json(path: Path, value: Any) -> None:
    """`value` as indented JSON."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def replace_folder(folder: Path, fill: Callable[[Path], None]) -> None:
    """Let `fill` write a new folder, then put it in the place of `folder`.

    A crash leaves the old or the new one complete, if only as `<name>.old`; see `recover_folder`.
    """
    new, old = (folder.with_name(folder.name + suffix) for suffix in (".new", ".old"))
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    fill(new)
    if folder.exists():
        shutil.rmtree(old, ignore_errors=True)
        folder.rename(old)
    new.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def recover_folder(folder: Path) -> None:
    """Bring back what a crash inside `replace_folder` left under its old name."""
    old = folder.with_name(folder.name + ".old")
    if old.exists() and not folder.exists():
        old.rename(folder)


def cache_folder(name: str) -> Path:
    """The user's cache folder for things of this kind.

    Where it cannot be written to, it is a temporary one of this process, in which the files of the
    other are seen; a warning says so once.

    Raises:
      UserError: there is no temporary folder either.
    """
    caches = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    folder = Path(caches) / "mlcls_jax" / name
    if caches.startswith("~"):
        return _own_cache(folder, "there is no home folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        return _own_cache(folder, error.strerror or str(error))


@functools.cache
def _own_cache(folder: Path, reason: str) -> Path:
    hint = "XDG_CACHE_HOME names another place for caches."
    try:
        own = _own_caches(folder.parent, reason) / folder.name
        own.mkdir()
    except OSError as error:
        raise UserError(f"{folder}: cannot be written to, and {error}", hint) from error
    if os.access(folder, os.R_OK | os.X_OK):
        for path in folder.iterdir():
            (own / path.name).symlink_to(path.absolute())
    return own


@functools.cache
def _own_caches(instead_of: Path, reason: str) -> Path:
    own = Path(tempfile.mkdtemp(prefix="mlcls_jax-"))
    atexit.register(shutil.rmtree, own, ignore_errors=True)
    told = "%s: cannot be written to: %s. What is kept there is made anew each time;"
    log.warning(told + " XDG_CACHE_HOME names another place.", instead_of, reason)
    return own
