"""Replacing several files of a folder: all of them or none, and the old ones become backups."""

import os
import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, TextIO

from mlcls_jax.errors import DataError
from mlcls_jax.files import naming, place, to_json
from mlcls_jax.parsing import parse_json

Writer = Callable[[TextIO], None]

JOURNAL = ".replacing.json"  # {name: backup, or null where there was no file}, while at work


def replace_files(folder: Path, writers: Mapping[str, Writer | None]) -> dict[str, str]:
    """Write the files `{name: writer}`; a writer of None takes the file away.

    Everything is written beside its place before anything is replaced. A file that was there is
    renamed to NAME.bak, or to NAME.bak1, NAME.bak2, … where there is one already; if it has the
    new content already, it stays. After an exception the folder is as it was; after a crash it is
    so again once `recover` ran, which this function does first.

    Returns:
      {name: its backup} of the files that were replaced or taken away.
    """
    recover(folder, writers)
    written = {name: _beside(folder / name) for name, write in writers.items() if write}
    try:
        for name, path in written.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            with naming(folder / name), path.open("w", encoding="utf-8", newline="\n") as file:
                if write := writers[name]:
                    write(file)
        backups = {
            name: _free_backup(folder, name) if os.path.lexists(folder / name) else None
            for name in writers
            if _differs(folder / name, written.get(name))
        }
        journal = _beside(folder / JOURNAL)  # a name of its own would be left by a crash
        with naming(journal):
            journal.write_text(to_json(backups), encoding="utf-8")
        place(journal, folder / JOURNAL)
        for name, backup in backups.items():
            if backup:
                os.rename(folder / name, folder / backup)
            if name in written:
                place(written[name], folder / name)
        (folder / JOURNAL).unlink()  # from here on the new files count
    except BaseException:
        recover(folder, writers)
        raise
    finally:
        for path in written.values():
            path.unlink(missing_ok=True)
    return {name: backup for name, backup in backups.items() if backup}


def recover(folder: Path, names: Collection[str]) -> None:
    """Bring back the old files if a crash cut `replace_files` off; `names` are all it may touch.

    Raises:
      DataError: other files were being replaced.
    """
    journal = folder / JOURNAL
    try:
        backups = parse_json(journal.read_bytes(), journal)
    except FileNotFoundError:
        return
    except DataError:
        backups = None
    # A data set may come from a stranger: what its journal says must not reach other files.
    if not isinstance(backups, dict) or not all(
        name in names and (backup is None or _is_backup_name(backup, of=name))
        for name, backup in backups.items()
    ):
        raise DataError(
            f"{journal}: is left of a run that was cut off while it replaced other files",
            "Start that run again, or rename its *.bak files back and remove this file.",
        )
    for name, backup in backups.items():
        if backup is None:
            (folder / name).unlink(missing_ok=True)
        elif os.path.lexists(folder / backup):
            os.replace(folder / backup, folder / name)
        _beside(folder / name).unlink(missing_ok=True)
    journal.unlink()


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.new")


def _free_backup(folder: Path, name: str) -> str:
    number, backup = 0, f"{name}.bak"
    while os.path.lexists(folder / backup):
        number += 1
        backup = f"{name}.bak{number}"
    return backup


def _is_backup_name(value: Any, *, of: str) -> bool:
    return isinstance(value, str) and bool(re.fullmatch(re.escape(of) + r"\.bak\d*", value))


def _differs(old: Path, new: Path | None) -> bool:
    if new is None:
        return os.path.lexists(old)
    if not old.is_file():
        return True
    with old.open("rb") as before, new.open("rb") as after:
        while (block := before.read(2**20)) == after.read(2**20):
            if not block:
                return False
    return True
