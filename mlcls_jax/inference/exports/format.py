"""The statement that each format's module makes, as `FORMAT`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mlcls_jax.inference.bundle import Bundle


class Format(NamedTuple):
    """How a format is written and run."""

    place: str  # of the file or folder in that of the export; `{model}` is the architecture's name
    write: Callable[[Bundle, Path], object]  # writes the file, or into the empty folder
    # (path) → function of uint8 images [n, H, W, 3] that gives scores [n, K]. Both raise UserError,
    # ExportError for instance, where a library is missing, and `write` where it cannot convert.
    load: Callable[[Path], Callable[[np.ndarray], np.ndarray]]
    is_folder: bool = False
    # (path) → the content of the JSON beside a file
    describe: Callable[[Path], dict[str, Any]] | None = None
