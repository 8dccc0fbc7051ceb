"""TensorFlow Datasets: any builder with images and labels, read by index and without TensorFlow."""

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mlcls_jax import lazy
from mlcls_jax.config import Data
from mlcls_jax.data.fingerprint import digest
from mlcls_jax.data.types import Split
from mlcls_jax.errors import DataError

log = logging.getLogger(__name__)

Example = Mapping[str, Any]  # feature → value
_Target = Callable[..., np.ndarray]  # (example, key, names) → float32 [K]

# Boxes around crowds, and objects that annotators could hardly tell, are no labels.
_LEFT_OUT = ("is_crowd", "is_difficult")
_FILE_NAMES = ("image/filename", "image/file_name", "filename", "file_name")
_PREFERRED = ("objects", "labels", "label", "attributes")  # where a builder has several


class _Labels(NamedTuple):
    """Location of a builder's labels."""

    rank: int  # of the kind: the lowest is taken
    key: str
    names: tuple[str, ...]
    target: Callable[[Example], np.ndarray]  # float32 [K] of an example


class TfdsSplit:
    """One split of a prepared data set; images stay encoded."""

    def __init__(
        self, name: str, examples: Any, image_key: str, labels: _Labels, files: list[str]
    ) -> None:
        self.labels, self._files = labels.names, files
        self._name, self._examples, self._image_key = name, examples, image_key
        self._target = labels.target

    def __len__(self) -> int:
        return len(self._examples)

    def fingerprint(self) -> dict[str, str]:
        """Return a digest of the names of its files, with the builder's version."""
        return {"files": digest(name.encode() for name in self._files)}

    def __getitem__(self, index: int) -> tuple[bytes, np.ndarray]:
        example = self._read(index)
        return example[self._image_key], self._target(example)

    def name(self, index: int) -> str:
        try:
            example = self._read(index)
        except DataError:
            return str(index)
        names = (example[key].decode() for key in _FILE_NAMES if key in example)
        return next(names, str(index))

    def place(self, index: int) -> str:
        return f"{self._name}: example {index}: {self.name(index)}"

    def _read(self, index: int) -> Example:
        try:
            return self._examples[index]
        except Exception as error:  # of array_record, protobuf and TFDS
            told = f"{self._name}: example {index}: cannot be read: {error}"
            raise DataError(
                told, "Its files seem to be damaged: prepare the data set again."
            ) from error


def open_split(config: Data, split: Split) -> TfdsSplit:
    """Open the split that `train_split` or `val_split` names, of the builder prepared in `dir`.

    Nothing is downloaded, and no code of the builder runs. Splits may be slices: train[:90%].

    Raises:
      DataError: the data set is not prepared, or not for random access (says how); it has no such
        split, or files are missing; or its features hold no images with labels (lists them).
    """
    purpose = "data.source=tfds needs TensorFlow Datasets"
    with lazy.optional(purpose, extra="tfds", kind=DataError):
        import tensorflow_datasets as tfds
    folder = _find(config)
    try:
        builder: Any = tfds.builder_from_directory(folder)  # its decorators hide signatures
    except Exception as error:
        raise DataError(f"{folder}: cannot be read: {error}", _prepare(config)) from error
    features = builder.info.features
    image_key = _find_image(features, place=str(folder))
    labels = _find_labels(features, place=str(folder))
    log.debug("%s: %d labels from its feature %s.", folder, len(labels.names), labels.key)
    name = config.train_split if split == "train" else config.val_split
    try:
        paths = builder.info.splits[name].filepaths
        decoders = {image_key: tfds.decode.SkipDecoding()}
        examples = builder.as_data_source(name, decoders=decoders)
    except NotImplementedError as error:
        told = f"{folder}: is prepared as {builder.info.file_format.value}, not as array_record"
        raise DataError(told, _prepare(config, "in another data.dir")) from error
    except (ValueError, KeyError) as error:
        told = f"{folder}: no split {name}; there are {', '.join(builder.info.splits)}"
        raise DataError(told, "Set data.train_split and data.val_split.") from error
    if missing := [str(path) for path in paths if not path.exists()]:
        told = "\n".join(f"{path}: there is no such file" for path in missing)
        raise DataError(told, "Copy it again, or prepare the data set again.")
    names = [f"{builder.info.full_name}/{path.name}" for path in paths]
    return TfdsSplit(f"{folder} ({name})", examples, image_key, labels, names)


def _find(config: Data) -> Path:
    """Return the folder of the newest version, where TFDS keeps it: name/configuration/version."""
    assert config.tfds is not None  # the config was refused without it
    root = config.dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    asked = Path(root).expanduser() / config.tfds.replace(":", "/")
    if (asked / "features.json").is_file():
        return asked
    if versions := [path.parent for path in asked.glob("*.*.*/features.json")]:
        return max(versions, key=lambda path: [int(n) for n in path.name.split(".") if n.isdigit()])
    if below := sorted({path.parts[-3] for path in asked.glob("*/*/features.json")}):
        told = f"{asked}: there are several configurations: {', '.join(below)}"
        raise DataError(told, f"Name one: data.tfds={config.tfds}/{below[0]}")
    raise DataError(f"{asked}: there is no data set prepared by TFDS", _prepare(config))


def _prepare(config: Data, where: str = "once") -> str:
    """Say how to prepare the data set; TFDS's own program wants Apache Beam besides."""
    folder = "" if config.dir is None else f"data_dir={config.dir!r}, "
    return (
        f"Prepare it {where}, which may download much and needs"
        " `pip install tensorflow importlib_resources`:\n"
        'python -c "import tensorflow_datasets as tfds;'
        f" tfds.builder({config.tfds!r}, {folder}file_format='array_record')"
        '.download_and_prepare()"'
    )


def _find_image(features: Mapping[str, Any], *, place: str) -> str:
    import tensorflow_datasets as tfds

    # Not its subclasses, which are masks; and images of floats are no pictures.
    keys = [
        key
        for key, feature in features.items()
        if type(feature) is tfds.features.Image and feature.np_dtype != np.float32
    ]
    if len(keys) == 1 or "image" in keys:
        return keys[0] if len(keys) == 1 else "image"
    raise DataError(f"{place}: has {len(keys)} features that are images, not one:\n{features}")


def _find_labels(features: Mapping[str, Any], *, place: str) -> _Labels:
    found = list(_label_features(features))
    best = [labels for labels in found if labels.rank == min(other.rank for other in found)]
    preferred = [labels for key in _PREFERRED for labels in best if labels.key == key]
    if not best:
        raise DataError(f"{place}: none of its features holds labels:\n{features}")
    if len(best) > 1 and not preferred:
        keys = ", ".join(labels.key for labels in best)
        raise DataError(f"{place}: which features are the labels, {keys}?\n{features}")
    return preferred[0] if preferred else best[0]


def _label_features(features: Mapping[str, Any]) -> Iterator[_Labels]:
    """Yield the features that may hold labels."""
    from tensorflow_datasets import features as kinds

    for key, feature in sorted(features.items()):  # TFDS reads them in an order of chance
        inner = feature.feature if isinstance(feature, kinds.Sequence) else None
        parts = dict(inner.items()) if isinstance(inner, kinds.FeaturesDict) else {}
        if isinstance(label := parts.get("label"), kinds.ClassLabel):
            left_out = [name for name in _LEFT_OUT if name in parts]
            yield _labels(0, key, label.names, partial(_of_objects, left_out=left_out))
        elif isinstance(inner, kinds.ClassLabel):
            yield _labels(1, key, inner.names, _of_classes)
        elif isinstance(feature, kinds.ClassLabel):
            yield _labels(2, key, feature.names, _of_classes)
        elif isinstance(feature, kinds.FeaturesDict) and all(map(_is_flag, feature.values())):
            yield _labels(3, key, sorted(feature.keys()), _of_flags)
        elif "label" in key and isinstance(feature, kinds.Tensor) and (size := _length(feature)):
            yield _labels(3, key, map(str, range(size)), _of_values)


def _is_flag(feature: Any) -> bool:
    return feature.shape == () and feature.np_dtype == np.bool_


def _length(feature: Any) -> int | None:
    """Return the length of a vector of numbers; None or 0 of anything else."""
    return feature.shape[0] if len(feature.shape) == 1 and feature.np_dtype != np.object_ else None


def _labels(rank: int, key: str, names: Iterable[str], target: _Target) -> _Labels:
    names = tuple(names)
    return _Labels(rank, key, names, partial(target, key=key, names=names))


def _of_objects(
    example: Example, key: str, names: Sequence[str], left_out: list[str]
) -> np.ndarray:
    objects = example[key]  # feature → one value an object
    classes = np.asarray(objects["label"], np.int64)
    is_label = np.ones(len(classes), bool)
    for name in left_out:
        is_label &= ~np.asarray(objects[name], bool)
    return _multi_hot(classes[is_label], len(names))


def _of_classes(example: Example, key: str, names: Sequence[str]) -> np.ndarray:
    return _multi_hot(np.atleast_1d(np.asarray(example[key], np.int64)), len(names))


def _of_flags(example: Example, key: str, names: Sequence[str]) -> np.ndarray:
    return np.array([example[key][name] for name in names], np.float32)


def _of_values(example: Example, key: str, names: Sequence[str]) -> np.ndarray:
    return np.asarray(example[key], np.float32).reshape(len(names))


def _multi_hot(classes: np.ndarray, num_labels: int) -> np.ndarray:
    """Target of the classes [n] that are present; a class of -1 says that more may be."""
    target = np.full(num_labels, -1 if (classes < 0).any() else 0, np.float32)
    target[classes[classes >= 0]] = 1
    return target
