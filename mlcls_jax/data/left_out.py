"""Files that a walk through a folder leaves out: counted by reason, and told in the end."""

import logging
from collections import Counter
from pathlib import Path

from mlcls_jax.readable import printable

log = logging.getLogger(__name__)


class LeftOut:
    """Count of files left out per reason, with the first example of each."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._examples: dict[str, Path] = {}

    def add(self, why: str, path: Path) -> None:
        self._counts[why] += 1
        self._examples[why] = min(path, self._examples.get(why, path))

    def warn(self, folder: Path | str) -> None:
        """Log a warning per reason; paths are shown relative to `folder` where they lie in it."""
        for why, count in self._counts.items():
            example = self._examples[why]
            if example.is_relative_to(folder):
                example = example.relative_to(folder)
            log.warning(
                "%s: left out: %s (%d), such as %s", folder, why, count, printable(str(example))
            )
