"""What the check keeps of lists and files: about a hundred bytes per line."""

import posixpath
from array import array
from dataclasses import dataclass

import numpy as np

from mlcls_jax.data.duplicates import first_equal

_TRAIN = 0  # position among the lists


class Lines:
    """The lines of all lists that name an image, in order."""

    def __init__(self, lists: tuple[str, ...]) -> None:
        self.lists = lists
        self.list_number, self.number = array("B"), array("I")
        self.path, self.target = array("q"), array("q")  # hashes; target 0: malformed values
        self._text, self._ends = bytearray(), array("Q", [0])

    def add(self, list_number: int, number: int, image: str, target: np.ndarray | None) -> None:
        """Add a line; `target` is None where its values are malformed."""
        self.list_number.append(list_number)
        self.number.append(number)
        self.path.append(hash(posixpath.normpath(image)))
        self.target.append(0 if target is None else hash(target.tobytes()) | 1)
        self._text += image.encode()
        self._ends.append(len(self._text))

    def image(self, line: int) -> str:
        """Return the path that a line names."""
        return self._text[self._ends[line] : self._ends[line + 1]].decode()

    def place(self, line: int) -> str:
        """Return list and number of a line, for messages."""
        return f"{self.lists[self.list_number[line]]}:{self.number[line]}"

    def kind_of_pair(self, line: int, other: int, *, within: str, across: str) -> str:
        """Return the kind of finding for two lines that share what only one should have."""
        lists = self.list_number[line], self.list_number[other]
        if lists[0] == lists[1]:
            return within
        return across if _TRAIN in lists else "val_in_test"

    def differ(self, line: int, other: int) -> bool:
        """Return whether both have values, and not the same."""
        targets = self.target[line], self.target[other]
        return all(targets) and targets[0] != targets[1]


@dataclass
class Images:
    """The F different files that N lines name."""

    first: np.ndarray  # int64 [N], the first line with the same path
    lines: np.ndarray  # int64 [F], the first line of every file
    is_there: np.ndarray  # bool [F]
    is_readable: np.ndarray  # bool [F]
    num_bytes: np.ndarray  # int64 [F]
    digest: np.ndarray  # uint64 [F], of the content; 0: not known
    pixel_hash: np.ndarray  # uint64 [F]; 0: not known

    @classmethod
    def of(cls, lines: Lines) -> "Images":
        """Return a table of the files in these lines, about which nothing is known yet."""
        first = first_equal(np.asarray(lines.path))
        files = np.flatnonzero(first == np.arange(len(first)))
        is_there, is_readable = np.ones(len(files), bool), np.zeros(len(files), bool)
        num_bytes, hashes = np.zeros(len(files), np.int64), np.zeros((2, len(files)), np.uint64)
        return cls(first, files, is_there, is_readable, num_bytes, *hashes)
