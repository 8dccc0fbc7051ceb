"""One process a folder: who trains there, or writes results, keeps all others out."""

import contextlib
import errno
import os
import shlex
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import yaml

from mlcls_jax.errors import WorkdirError

LOCK_FILE = ".lock"

_BYTE = 2**30  # that Windows locks: far behind the text, which others can so read


@contextlib.contextmanager
def locked(folder: Path | None, name: str = LOCK_FILE, *, is_needed: bool = True) -> Iterator[None]:
    """Keep other processes out of the folder, on this and other hosts; None: nothing to do.

    `name` is of the file that is locked. Where two processes would only do the same work twice, no
    lock `is_needed`, and none is asked for where the file system has none.

    The operating system lets go of the lock when the process ends, however it ends. Where the file
    system has no locks, a file that a dead process of this host left is taken over; one of another
    host is left to the user.

    Raises:
      WorkdirError: another process is in it; names process and host. Nothing was touched.
    """
    if folder is None:
        yield
        return
    path = folder / name
    descriptor = _take(path, is_needed=is_needed)
    try:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, _own_text().encode())
        yield
    finally:
        # Removed before it is let go, so that nobody can hold a file without a name; see `_take`.
        with contextlib.suppress(FileNotFoundError, PermissionError):  # Windows: it is open
            path.unlink()
        os.close(descriptor)


def _take(path: Path, *, is_needed: bool) -> int:
    """A descriptor of the lock file, which is ours now."""
    while True:
        is_new = True
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
        except FileExistsError:
            is_new = False
            try:
                descriptor = os.open(path, os.O_RDWR)
            except FileNotFoundError:
                continue  # let go of just now
        has_lock = _lock(descriptor)
        is_ours = has_lock
        if has_lock is None:
            is_ours = is_new or not is_needed or _is_left_behind(_read(path))
        if not is_ours:
            os.close(descriptor)
            raise _in_use(path, has_lock is None)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        os.close(descriptor)  # its holder removed it while we took it


def _lock(descriptor: int) -> bool | None:
    """Lock the open file: whether it is ours now; None if the file system has no locks."""
    try:
        if sys.platform == "win32":
            import msvcrt

            os.lseek(descriptor, _BYTE, os.SEEK_SET)
            try:
                msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
            finally:
                os.lseek(descriptor, 0, os.SEEK_SET)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK):
            return False
        return None
    return True


def _own_text() -> str:
    facts = {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "started": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "command": shlex.join(sys.argv),
    }
    return yaml.safe_dump(facts, sort_keys=False, allow_unicode=True, width=2**20)


def _read(path: Path) -> dict[str, object]:
    """Return what the holder wrote, or an empty dict if it cannot be read."""
    try:
        facts = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return facts if isinstance(facts, dict) else {}


def _is_left_behind(facts: dict[str, object]) -> bool:
    """Return whether its process ran on this host and is gone."""
    pid = facts.get("pid")
    if facts.get("host") != socket.gethostname() or type(pid) is not int or pid <= 0:
        return False
    if sys.platform == "win32":  # where `kill` with 0 is no question
        return False
    if pid == os.getpid():  # in containers each start has the same
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False  # somebody else's
    return False


def _in_use(path: Path, is_without_locks: bool) -> WorkdirError:
    facts = _read(path)
    who = ""
    if facts:
        who = (
            f": process {facts.get('pid')} on {facts.get('host')}, since {facts.get('started')}:"
            f" {facts.get('command')}"
        )
    hint = "Wait until it has ended, end it, or choose another folder."
    if is_without_locks:
        hint += f" If it is no more, delete {path}: this file system has no locks that would tell."
    return WorkdirError(f"{path.parent}: is in use by another process{who}", hint)
