"""Data sets by name. A new kind is one file and one line in `SOURCES`."""

from collections.abc import Callable
from typing import NamedTuple, get_args

import numpy as np

from mlcls_jax.config import Data
from mlcls_jax.data.images import decode_image
from mlcls_jax.data.sources import digits, mlcls, packed, tfds
from mlcls_jax.data.types import Source, Split
from mlcls_jax.errors import ConfigError, DataError, unknown


class DataSplits(NamedTuple):
    """The two halves of a data set, with the same labels."""

    train: Source
    validation: Source


# name → function of the `data` section that opens one split
SOURCES: dict[str, Callable[[Data, Split], Source]] = {
    "digits": digits.open_split,
    "mlcls": mlcls.open_split,
    "packed": packed.open_split,
    "tfds": tfds.open_split,
}


def open_data(config: Data) -> DataSplits:
    """Open both splits of the data set that `config` names.

    Raises:
      ConfigError: there is no such kind of data set.
      DataError: its files are missing or malformed; lists every fault of both.
    """
    splits, errors = [], []
    for split in get_args(Split):
        try:
            splits.append(open_split(config, split))
        except DataError as error:
            errors.append(error)
    if errors:
        messages = dict.fromkeys(error.message for error in errors)  # both may lack the same
        raise type(errors[0])("\n".join(messages), errors[0].hint) from errors[0]
    return DataSplits(*splits)


def open_split(config: Data, split: Split) -> Source:
    """Open one split of the data set that `config` names; the other's files may be missing.

    Raises:
      ConfigError, DataError: like `open_data`.
    """
    if config.source not in SOURCES:
        given = f"data.source={config.source}"
        raise ConfigError(unknown(given, "kind", config.source, SOURCES))
    return SOURCES[config.source](config, split)


def load(
    source: Source, index: int, *, at_least: tuple[int, int] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return image uint8 [H, W, 3] and target float32 [K] of one example.

    The image has its own size, or a smaller one that covers `at_least`; see `decode_image`.

    Raises:
      DataError: it cannot be read or decoded; names the place.
    """
    image, target = source[index]
    if isinstance(image, bytes):
        image = decode_image(image, name=source.place(index), at_least=at_least)
    return image, target
