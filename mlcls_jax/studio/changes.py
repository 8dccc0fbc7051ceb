"""The log of changes: a line of JSON each, only ever appended to, on the disk before it counts."""

import json
import logging
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from mlcls_jax import files
from mlcls_jax.errors import UserError

log = logging.getLogger(__name__)

VALUES = (-1, 0, 1)


class Change(NamedTuple):
    """One label of one image, set by somebody."""

    time: str
    window: str  # which browser window it came from
    image: str  # path relative to the data set
    label: str
    old: int
    new: int


class Written(NamedTuple):
    """The moment at which all changes before it had been brought into the lists."""

    time: str
    window: str
    lists: dict[str, str]  # what was written: name → backup


Entry = Change | Written


class ChangeLog:
    """The entries of a file, in order; the number of an entry is the revision that it led to.

    A line that a crash has torn was never confirmed: it stays in the file, and is passed over.
    """

    def __init__(self, path: Path) -> None:
        """Open the file, or begin it.

        Raises:
          UserError: it cannot be read or written.
        """
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            is_new = not path.exists()
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
            content = path.read_bytes()
            if content and not content.endswith(b"\n"):
                _write(self._file, b"\n")
            if is_new:
                files.sync(path.parent)
        except OSError as error:
            raise UserError(
                f"{path}: cannot be written: {error.strerror}",
                "--changes FOLDER names another place for the log of changes.",
            ) from error
        lines = content.splitlines()
        parsed = [_parse(line) for line in lines]
        self.entries: list[Entry] = [entry for entry in parsed if entry is not None]
        if len(lines) > len(self.entries):
            torn = len(lines) - len(self.entries)
            log.warning("%s: lines that are no changes, and are passed over: %d", path, torn)

    @property
    def revision(self) -> int:
        """Return the number of entries."""
        return len(self.entries)

    def append(self, entries: Sequence[Entry]) -> None:
        """Add entries; they are on the disk when this returns.

        Raises:
          OSError: they cannot be written, and none of them counts.
        """
        size = os.fstat(self._file).st_size
        try:
            _write(self._file, b"".join(map(_line, entries)))
            os.fsync(self._file)
        except OSError:
            os.ftruncate(self._file, size)  # half of a line would spoil the next one
            raise
        self.entries += entries

    def pending(self) -> list[Change]:
        """Return the changes that are not in the lists yet."""
        last = max((i for i, e in enumerate(self.entries) if isinstance(e, Written)), default=-1)
        return [entry for entry in self.entries[last + 1 :] if isinstance(entry, Change)]

    def history(self, image: str) -> list[Change]:
        """Return all changes of an image, the oldest first."""
        return [e for e in self.entries if isinstance(e, Change) and e.image == image]

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


def now() -> str:
    """Return the time, for an entry."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _line(entry: Entry) -> bytes:
    return json.dumps(entry._asdict()).encode() + b"\n"  # ASCII: names need not be UTF-8


def _parse(line: bytes) -> Entry | None:
    try:
        value: Any = json.loads(line)
        kind = Written if "lists" in value else Change
        entry = kind(**value)
    except (ValueError, TypeError, RecursionError):
        return None
    if isinstance(entry, Change):  # which may be a stranger's
        is_text = all(isinstance(part, str) for part in entry[:4])
        return entry if is_text and entry.old in VALUES and entry.new in VALUES else None
    return entry


def _write(file: int, content: bytes) -> None:
    while content:
        content = content[os.write(file, content) :]
