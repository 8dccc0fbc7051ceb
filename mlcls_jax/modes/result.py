"""The results of modes: typed, with their JSON and their summary."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from mlcls_jax.config import Config

SHOWN = 10  # unreadable images that a summary names


class Result(Protocol):
    """The outcome of a mode: a frozen dataclass with these two methods."""

    def to_json(self) -> dict[str, Any]:
        """Return the content of `MODE_result.json`."""
        ...

    def summary(self, config: Config, workdir: Path, command: str) -> list[str]:
        """Return the lines for the terminal: what was written where, and what to do next.

        `command` repeats what the user typed, without the mode.
        """
        ...


def remarks(
    result_file: Path, *, warnings: Sequence[str] = (), skipped: Sequence[str] = ()
) -> list[str]:
    """Return the last lines of a summary: warnings, and images that could not be read."""
    lines = [f"warning: {text}" for text in warnings]
    if skipped:
        lines += [f"{len(skipped)} unreadable images were left out:", *skipped[:SHOWN]]
    if len(skipped) > SHOWN:
        lines += [f"all of them in {result_file}"]
    return lines
