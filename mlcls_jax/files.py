"""Atomic writing of files and folders, and the places of caches.

Nothing in the package takes another way. What is written gets the mode that the umask says, so no
file made by `tempfile` or `safetensors.save_file`, which only their owner may read, is renamed.
"""

import atexit
import ctypes
import errno
import functools
import glob
import hashlib
import json
import logging
import os
import shutil
import stat
import struct
import sys
import tempfile
import time
import tokenize
import uuid
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mlcls_jax.errors import UserError

log = logging.getLogger(__name__)

_CANNOT_SYNC = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP)
_CANNOT_EXCHANGE = (*_CANNOT_SYNC, errno.EPERM)  # EPERM: forbidden to a container
# What NumPy and zipfile raise, RuntimeError with NotImplementedError.
_DAMAGED = (OSError, ValueError, LookupError, EOFError, RuntimeError, MemoryError, struct.error,
            zipfile.BadZipFile, zlib.error, tokenize.TokenError)  # fmt: skip
_NO_FILE = "is a pipe or a device, not a file: save its content as one"
_UNFINISHED: set[Path] = set()
_FORGOTTEN = 24 * 3600  # seconds after which nobody is still writing a new folder


def regular(path: str | Path) -> Path:
    """Return a path that is to be opened for reading.

    Raises:
      OSError: it is not there; or it is a pipe or a device, which could be waited for, or read, for
        ever.
    """
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # of a folder, opening it tells
        raise OSError(errno.EINVAL, _NO_FILE, os.fspath(path))
    return Path(path)


@contextmanager
def beside(path: Path) -> Iterator[Path]:
    """The path of a temporary file in the folder of `path`, gone when the block ends."""
    temporary = Path(f"{_hidden(path)}{uuid.uuid4().hex}.tmp")
    with _unfinished(temporary):
        try:
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def _unfinished(path: Path) -> Iterator[None]:
    """Let `remove_unfinished` know of a file or folder that is written in the block."""
    _UNFINISHED.add(path)
    try:
        yield
    finally:
        _UNFINISHED.discard(path)


def remove_unfinished() -> None:
    """Delete what is being written; for a process that ends at once, in any of its threads."""
    for path in tuple(_UNFINISHED):
        with suppress(OSError):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Name `path` in an error that names no file, as that of a full disk, or the one `beside`."""
    try:
        yield
    except OSError as error:
        if error.errno and str(error.filename or _hidden(path)).startswith(_hidden(path)):
            error.filename = str(path)
        raise


def _hidden(path: Path) -> str:
    """Return what the paths of temporary files beside a file begin with."""
    # Cut, as the name itself may be as long as the file system allows.
    return str(path.parent / f".{path.name[:40]}.")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """The path of a temporary file that the block writes; at its end it becomes `path`.

    After an exception `path` is as it was.
    """
    with naming(path), beside(path) as temporary:
        yield temporary
        place(temporary, path)


def place(temporary: Path, path: Path) -> None:
    """Rename a finished file of the same folder to `path`; a crash leaves all of it or nothing."""
    sync(temporary)
    temporary.replace(path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Wait until the content of a file, or the names in a folder, are on the disk."""
    is_folder = path.is_dir()
    if is_folder and os.name == "nt":
        return
    try:
        opened = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    except PermissionError:
        if is_folder:  # one may write into some folders that one may not read
            return
        raise
    try:
        os.fsync(opened)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:  # some network file systems
            raise
    finally:
        os.close(opened)


def write_bytes(path: Path, content: bytes) -> None:
    """Give `path` this content, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def sha256(path: Path) -> str:
    """Return the hexadecimal checksum of a file."""
    with regular(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_text(path: Path, text: str) -> None:
    """Give `path` this content as UTF-8, whole or not at all.

    Names of files that are not UTF-8 are written as escapes, which are JSON's, too.
    """
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: Path, value: Any) -> None:
    """Give `path` this value as indented JSON, whole or not at all."""
    write_text(path, to_json(value))


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file that this program wrote.

    Raises:
      OSError: it is not there, or cannot be read.
      UserError: it is damaged.
    """
    try:
        value = json.loads(regular(path).read_text(encoding="utf-8"))
        if isinstance(value, dict):
            return value
        fault = "there is no object in it"
    except (ValueError, RecursionError) as error:
        fault = str(error)
    raise UserError(f"{path}: is damaged: {fault}", "Move it away, and run what wrote it again.")


def read_arrays(path: Path, *names: str) -> dict[str, Any] | None:
    """Return the arrays of an .npz file of this program, which has those of these names.

    None: it is not there, or damaged.

    Such a file holds checksums of its arrays, as one .npy does not.
    """
    import numpy as np  # a help does without

    try:
        with np.load(regular(path)) as kept:
            return {**kept, **{name: kept[name] for name in names}}
    except FileNotFoundError:
        return None
    except _DAMAGED as error:
        log.warning("%s: is damaged, and not used: %s", path, error)
        return None


def to_json(value: Any) -> str:
    """Return the value as indented JSON."""
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def replace_folder(folder: Path, fill: Callable[[Path], None], *, durable: bool = True) -> None:
    """Let `fill` write a new folder, then put it in the place of `folder` in one step.

    At any moment, and after a crash, `folder` is the old or the new one; an error leaves no folder
    above it that was not there. Where the file system
    cannot exchange two folders it is `<name>.old` for a moment: see `current_folder`. Without
    `durable` that holds for crashes of the process alone: of many files, each would be waited for.
    """
    folder = Path(os.path.realpath(folder))  # a link stays one
    _remove_forgotten(folder)
    new = folder.with_name(f".{folder.name[:40]}.{uuid.uuid4().hex}.new")
    above = [path for path in folder.parents if not path.exists()]
    try:
        with naming(folder), _unfinished(new):
            new.mkdir(parents=True)
            fill(new)
            for path in (*new.rglob("*"), new) if durable else ():
                if not path.is_symlink():
                    sync(path)
            _take_name(new, folder)
    finally:
        _remove(new)  # the old content by now, or the half-written one
        with suppress(OSError):  # what is not empty stays
            for path in above:
                path.rmdir()


def _take_name(new: Path, folder: Path) -> None:
    try:
        new.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
        if not exchange(new, folder):
            _move_aside(new, folder)
    sync(folder.parent)
    _remove(_old(folder))


def exchange(one: Path, other: Path) -> bool:
    """Exchange the names of two folders in one step; False where that cannot be done.

    Raises:
      OSError: it can be done, but not with these.
    """
    names = [os.fsencode(path) for path in (one, other)]
    if sys.platform == "linux":
        call, arguments = "renameat2", (-100, names[0], -100, names[1], 2)  # AT_FDCWD, EXCHANGE
    elif sys.platform == "darwin":
        call, arguments = "renamex_np", (*names, 2)  # RENAME_SWAP
    else:
        return False
    library = ctypes.CDLL(None, use_errno=True)
    if not hasattr(library, call):  # an old libc
        return False
    if getattr(library, call)(*arguments) == 0:
        return True
    code = ctypes.get_errno()
    if code in _CANNOT_EXCHANGE:
        return False
    raise OSError(code, os.strerror(code), str(other))


def _move_aside(new: Path, folder: Path) -> None:
    """In two renames. Some systems refuse the first while a file in the folder is open."""
    for seconds in (0.1, 0.3, 1, 3, None):
        try:
            if folder.exists():
                _remove(_old(folder))
                folder.rename(_old(folder))
            new.rename(folder)
            return
        except OSError:
            if seconds is None:
                raise
            time.sleep(seconds)


def current_folder(folder: Path) -> Path:
    """Return the folder that holds the content of `folder` at this moment, for reading."""
    old = _old(folder)
    return old if old.exists() and not folder.exists() else folder


def recover_folder(folder: Path) -> None:
    """Bring back what a crash inside `replace_folder` left under its old name.

    For the one who is about to replace it; who only reads takes `current_folder`.
    """
    current = current_folder(folder)
    if current != folder:
        try:
            current.rename(folder)
        except FileNotFoundError:
            if not folder.exists():  # else another process was faster
                raise


def _old(folder: Path) -> Path:
    return folder.with_name(folder.name + ".old")


def _remove(folder: Path) -> None:
    """Delete a folder that nobody needs any more; if that fails, nothing is lost but space."""
    if folder.exists():
        try:
            shutil.rmtree(folder)
        except OSError as error:
            log.warning("%s: cannot be deleted: %s", folder, error)


def _remove_forgotten(folder: Path) -> None:
    """Delete what processes that were killed in `fill` left."""
    pattern = f".{glob.escape(folder.name[:40])}.{'[0-9a-f]' * 32}.new"
    for path in folder.parent.glob(pattern):
        if path.exists() and time.time() - path.stat().st_mtime > _FORGOTTEN:
            _remove(path)


def cache_folder(name: str) -> Path:
    """Return the user's cache folder for things of this kind.

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
    hint = "Set XDG_CACHE_HOME to keep caches elsewhere."
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
    _UNFINISHED.add(own)  # of a process that ends at once
    told = "%s: cannot be written to: %s. What would be kept there is computed anew each time;"
    log.warning(told + " set XDG_CACHE_HOME to another place.", instead_of, reason)
    return own
