"""What the commands of this package are asked alike."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mlcls_jax.config import REQUIRED, option
from mlcls_jax.lock import locked
from mlcls_jax.start import start_jax
from mlcls_jax.workdir import open_workdir

if TYPE_CHECKING:  # imports JAX, which a help does without
    from mlcls_jax.curation.subject import Subject


HINT = "Name another place: --output."


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A model that sees, and the data that it looks at."""

    model: str = option(
        REQUIRED, "folder of a run or bundle, or name of a published model, whose network compares"
        " images", positional=True, metavar="MODEL",
    )  # fmt: skip
    data: str | None = option(
        None, "MLClsDataset or packed data, with any labels; None: the data of the run"
    )
    device: str | None = option(None, "cpu, gpu:0 or tpu; None: the first that JAX finds")

    def subject(self, labelled: str | None, *, flag: str = "--data") -> "Subject":
        """Start JAX, and find the model and the labelled data of `flag`; None: that of the run."""
        start_jax(cache=True)
        from mlcls_jax.curation.subject import find_subject

        return find_subject(self.model, labelled, flag=flag)


@contextlib.contextmanager
def results_in(folder: Path) -> Iterator[None]:
    """Make a folder and keep other processes out of it, before minutes are spent on what it gets.

    Raises:
      WorkdirError: it cannot be written to, or another process writes its results there.
    """
    open_workdir(folder, HINT)
    with locked(folder):
        yield
