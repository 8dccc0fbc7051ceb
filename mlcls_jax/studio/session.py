"""A data set being mended: its labels as they are now, and the order of everybody's changes."""

import threading
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from mlcls_jax.groups import implied
from mlcls_jax.studio.changes import Change, ChangeLog, Written, now
from mlcls_jax.studio.dataset import Dataset
from mlcls_jax.studio.list_writer import write_lists


class Cell(NamedTuple):
    """What a window wants a label to be, and what it took it for."""

    row: int
    label: int
    old: int
    new: int


class Session:
    """The one place where labels change; may be used from several threads at once."""

    def __init__(self, dataset: Dataset, log: ChangeLog) -> None:
        """Take up the changes of `log` that are not in the lists yet."""
        self.dataset, self.log = dataset, log
        self.targets = dataset.targets.copy()  # int8 [N, K], as they are now
        self.is_changed = np.zeros(len(dataset), bool)  # [N], since the lists were written
        self._column = {label: k for k, label in enumerate(dataset.labels)}
        self._lock = threading.Lock()
        for change in log.pending():
            self._apply(change)

    def change(
        self, window: str, cells: Sequence[Cell], *, follows: bool = False
    ) -> dict[str, Any]:
        """Set labels, all that are still what the window took them for.

        With `follows` also those that they imply or exclude by the groups of labels.

        Returns:
          {"revision", "conflicts": [[row, label, value], …], "implied": [[row, label, old, new],
          …]}: the labels that another window had set meanwhile, which stay as that one set them;
          and those that followed from others.

        Raises:
          OSError: the changes cannot be kept; nothing has changed.
        """
        data = self.dataset
        with self._lock:
            accepted, conflicts = list[Change](), list[tuple[int, int, int]]()
            others, seen = list[Cell](), defaultdict[str, dict[int, int]](dict)  # by image
            for cell in cells:
                row, label, old, new = cell
                image = data.images[row]
                target = self.targets[row].copy()
                for k, value in seen[image].items():  # one for all of its lines
                    target[k] = value
                if (value := int(target[label])) != old:
                    conflicts.append((row, label, value))
                if value != old or value == new:
                    continue
                further = implied(target, label, new, data.groups) if follows else {}
                others += (also := [Cell(row, k, int(target[k]), v) for k, v in further.items()])
                for _, k, before, after in (cell, *also):
                    seen[image][k] = after
                    accepted.append(Change(now(), window, image, data.labels[k], before, after))
            if accepted:
                self.log.append(accepted)
            for change in accepted:
                self._apply(change)
            return {"revision": self.log.revision, "conflicts": conflicts, "implied": others}

    def since(self, revision: int) -> dict[str, Any]:
        """Return {"revision", "cells": [[row, label, value], …]} of what changed after a revision.

        Of a revision that there is not, as after a move of the log, all changed labels.
        """
        with self._lock:
            start = revision if 0 <= revision <= self.log.revision else 0
            changes = [e for e in self.log.entries[start:] if isinstance(e, Change)]
            places = {
                (row, self._column[change.label])
                for change in changes
                if change.label in self._column
                for row in self.dataset.rows_of.get(change.image, ())
            }
            cells = [(row, label, int(self.targets[row, label])) for row, label in sorted(places)]
            return {"revision": self.log.revision, "cells": cells, "changed": self.num_changed}

    def write(self, window: str) -> dict[str, str]:
        """Bring all changes into the lists; return {list: its backup}.

        Raises:
          DataError, OSError: it cannot be done, and the lists are as they were.
        """
        with self._lock:
            backups = write_lists(self.dataset, self.log.pending())
            if self.is_changed.any() or backups:
                self.log.append([Written(now(), window, backups)])
            self.is_changed[:] = False
            return backups

    @property
    def num_changed(self) -> int:
        """Return how many rows have changes that are not in the lists yet."""
        return int(self.is_changed.sum())

    def _apply(self, change: Change) -> None:
        label = self._column.get(change.label)
        for row in self.dataset.rows_of.get(change.image, ()) if label is not None else ():
            self.targets[row, label] = change.new
            self.is_changed[row] = True
