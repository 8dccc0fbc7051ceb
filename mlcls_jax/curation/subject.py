"""What a command of this package is about: a model that sees, and the data that it looks at."""

import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mlcls_jax import config as schema
from mlcls_jax.config import Data
from mlcls_jax.data.detect import detect
from mlcls_jax.data.lists import find_root
from mlcls_jax.data.sources import open_split
from mlcls_jax.data.types import Source, Split
from mlcls_jax.errors import ConfigError, DataError
from mlcls_jax.inference.api import create_model
from mlcls_jax.inference.bundle import model_folder
from mlcls_jax.inference.predictor import Predictor
from mlcls_jax.models import list_models
from mlcls_jax.paths import HUB, local_path
from mlcls_jax.workdir import CONFIG_FILE
from mlcls_jax.yaml_config import get_config

BATCH = 32
MAX_BOARDS = 10_000  # of the demo, whose boards are drawn without end


@dataclass(frozen=True)
class Subject:
    """A model and data."""

    model: str  # folder of a run or bundle, or name of a published model
    data: Data
    folder: Path  # of the results, unless another is named

    def predictor(self, device: str | None) -> Predictor:
        """Open the model.

        Raises:
          WeightsError: it is damaged, or published weights cannot be fetched.
        """
        given = (None, self.model) if Path(self.model).exists() else (self.model, None)
        return create_model(*given, device=device, batch_size=BATCH)

    def source(self, split: Split) -> Source:
        """Open a split; images that cannot be read are found later, and left out.

        Raises:
          DataError: a file is missing or malformed.
        """
        return open_split(replace(self.data, on_error="skip"), split)

    def count(self) -> int | None:
        """Return how many images of the split are looked at; None: all."""
        if self.data.source != "digits":
            return None
        return min(self.data.epoch_size or MAX_BOARDS, MAX_BOARDS)

    def names(self, source: Source, indices: np.ndarray) -> list[str]:
        """Return the names of images as lists have them."""
        names = [source.name(index) for index in indices.tolist()]
        if self.data.source != "mlcls":
            return names
        root = find_root(Path(self.data.folder))
        return [os.path.relpath(name, root).replace(os.sep, "/") for name in names]


def find_subject(model: str, data: str | None, *, flag: str = "--data") -> Subject:
    """Find a run, a bundle or a published model, and the data.

    Args:
      model: folder of a run or bundle, its address on the hub, or a name of `mlcls models`.
      data: an MLClsDataset or packed data; None: the data of the run.
      flag: that names the data, for messages.

    Raises:
      ConfigError: there is no such model; or no data is given, and it is no run.
      DataError: the data is not there, or of another form.
    """
    place = model_folder(model) if model.startswith(HUB) else local_path("MODEL", model)
    is_run = (place / CONFIG_FILE).is_file()
    if not place.exists() and model not in list_models():
        raise ConfigError(
            f"{model}: there is no such run, bundle or model",
            "Images are compared by what a network makes of them: name the folder of a run that"
            " `mlcls train` wrote, a bundle, or a published model of `mlcls models`.",
        )
    if data is None and not is_run:
        raise ConfigError(f"{model}: is no run, whose data would be known", f"Give {flag} DATA.")
    known = schema.parse(get_config(str(place / CONFIG_FILE))).data if is_run else Data()
    found = known if data is None else _found(local_path(flag, data), known)
    folder = place if is_run else Path("runs") / Path(found.folder).resolve().name
    return Subject(str(place) if place.exists() else model, found, folder)


def _found(place: Path, known: Data) -> Data:
    found = detect(place)
    if found.form not in ("mlcls", "packed"):
        raise DataError(
            f"{place}: is {found.told}; only lists of an MLClsDataset can be corrected",
            "`mlcls check` converts it; or leave --data out: a run has converted what it trained"
            " on.",
        )
    if found.form == "packed":
        return replace(known, source="packed", dir=str(place))
    return replace(known, source="mlcls", dir=str(found.root))
