"""The model that a user means: a bundle, a published one, or a weight file with its name."""

import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path

from mlcls_jax.config import DEFAULT_THRESHOLD, model_from_dict
from mlcls_jax.data.frame import Frame
from mlcls_jax.data.lists import label_names
from mlcls_jax.errors import InputError, WeightsError
from mlcls_jax.inference.bundle import Bundle, model_folder, read_bundle
from mlcls_jax.inference.official import COCO_LABELS, official_bundle
from mlcls_jax.inference.paddle_settings import Settings, read_settings
from mlcls_jax.inference.words import open_words
from mlcls_jax.models import default_size
from mlcls_jax.models.network import Model, Network
from mlcls_jax.models.registry import split_name
from mlcls_jax.models.text_tower import TOKENS
from mlcls_jax.models.texts import has_texts, open_texts
from mlcls_jax.models.weights.fetch import BUNDLE_FILES, hub_bundle
from mlcls_jax.models.weights.foreign import (
    SUFFIXES,
    LoadReport,
    count_classes,
    fill,
    read_weights,
)
from mlcls_jax.models.weights.paddle_inference import is_inference_folder
from mlcls_jax.models.weights.sources import weight_file
from mlcls_jax.paths import HUB, expand, local_path

log = logging.getLogger(__name__)

Labels = str | Path | Sequence[str]  # a file of lines `<index> <name>`, or the names


def open_model(
    name: str | None,
    model_dir: str | Path | None,
    weights: str | Path | None = None,
    labels: Labels | None = None,
) -> Bundle:
    """Open the bundle in `model_dir`, or made of `weights`, or else the published one of this name.

    Args:
      name: of the model; needed unless there is a bundle, which then must be of this model. The
        address of a bundle on the hub, `hf://owner/name@revision`, may stand here, too.
      model_dir: a bundle, its address on the hub, or an inference folder of PaddleX, whose
        `inference.yml` is obeyed; a weight file here means the same as in `weights`.
      weights: a file, folder, URL or `hf://owner/name`, as `mlcls_jax.models.weights.load` takes.
      labels: of the weight file.

    Raises:
      InputError: options that do not go together.
      ConfigError: no such model.
      WeightsError: the bundle or the weights are missing, damaged or of another model.
      DataError: the label file is missing or malformed.
    """
    if model_dir is None and weights is None and name is None:
        raise InputError("create_model needs model_name or model_dir")
    if model_dir is not None and weights is not None:
        raise InputError(
            f"model_dir={model_dir} and weights={weights}: only one of them can be meant",
            "model_dir is a bundle; weights are a file for a model_name.",
        )
    if name is not None and model_dir is None and name.startswith(HUB):
        name, model_dir = None, name
    if model_dir is not None:
        model_dir = expand(os.fspath(model_dir))
        if model_dir.startswith(HUB):
            model_dir = hub_bundle(model_dir) or model_dir
    if model_dir is not None and is_weight_file(model_dir):
        model_dir, weights = None, model_dir
    if weights is not None and (folder := _bundle_of_file(weights)):
        model_dir, weights = folder, None
    if weights is not None:
        return bundle_of_weights(name, weights, labels)
    if model_dir is not None and is_inference_folder(Path(model_dir)):
        return _bundle_of_paddle(name, Path(model_dir), labels)
    if name is not None and model_dir is None and has_texts(name):
        return open_words(name, open_texts(name)).bundle(_labels(labels or ()))
    if labels is not None:
        raise InputError("labels are given, but a bundle has its own", "Leave labels out.")
    if model_dir is None:
        assert name is not None  # or nothing at all would be given
        folder = official_bundle(name)
    else:
        folder = local_path("model_dir", model_dir)
    bundle = read_bundle(folder)
    found = bundle.model.network.config.name
    if name not in (None, found):
        raise InputError(
            f"{folder}: holds {found}, not {name}", "Leave out model_name, or correct it."
        )
    return bundle


def _bundle_of_paddle(name: str | None, folder: Path, labels: Labels | None) -> Bundle:
    """Make a bundle, in memory, of an inference folder and what its `inference.yml` says."""
    settings = read_settings(folder)
    if None not in (name, settings.model_name) and name != settings.model_name:
        raise InputError(
            f"{folder}: holds {settings.model_name}, not {name}",
            "Leave out model_name, or correct it.",
        )
    return bundle_of_weights(
        settings.model_name or name, folder, labels or settings.labels, settings
    )


def is_weight_file(place: str | Path) -> bool:
    """Return whether this names a weight file, rather than the folder of a bundle."""
    if re.match(rf"{HUB}|https?://", str(place)):
        return True
    place = Path(place)
    return place.is_file() or (place.suffix in SUFFIXES and not place.is_dir())


def _bundle_of_file(weights: str | Path) -> Path | None:
    """Return the folder of the bundle, or run, that somebody gave as weights, if it is one."""
    path = Path(expand(os.fspath(weights)))
    folder = model_folder(path.parent if path.name in BUNDLE_FILES else path)
    return folder if all((folder / name).exists() for name in BUNDLE_FILES) else None


def bundle_of_weights(
    name: str | None,
    weights: str | Path,
    labels: Labels | None = None,
    settings: Settings = Settings(),  # noqa: B008 (frozen)
) -> Bundle:
    """Make a bundle, in memory, of a weight file.

    Image size and threshold are the architecture's, unless `settings` say otherwise.

    A model without ML-Decoder is taken for one of one label per image, as the published ones are.
    Where `labels` are not given they are COCO's if there are 80, or else numbers. It raises what
    `open_model` does.
    """
    if name is None:
        raise InputError(
            f"{weights}: a weight file does not say which model it is of",
            "Give model_name, too; `mlcls models` lists them.",
        )
    names = None if labels is None else _labels(labels)
    side = default_size(name)
    task = "multilabel" if split_name(name)[1] else "single"
    frame = settings.frame or Frame((side, side))
    values = {"name": name, "task": task, "image_size": frame.size}
    network = Network.of(model_from_dict({**values, "num_classes": len(names or COCO_LABELS)}))
    arrays = read_weights(weight_file(weights, name))
    count = count_classes(network, arrays)
    if count is None and TOKENS.keys() & arrays:
        return open_words(name, open_texts(weights)).bundle(names or ())
    if count is None:
        raise WeightsError(
            f"{weights}: holds no classifier of {name}",
            "A backbone alone labels nothing: train with model.weights.",
        )
    if names is None:
        names = COCO_LABELS if count == len(COCO_LABELS) else tuple(map(str, range(count)))
        network = Network.of(model_from_dict({**values, "num_classes": count}))
    model = Model(network, network.abstract)  # shapes; every number comes from the file
    report = fill(model, arrays, str(weights))
    if report.initial:
        raise WeightsError(
            f"{weights}: does not hold all of {name} with {len(names)} labels: {report}",
            _hint(report, count, len(names)),
        )
    if labels is None and names is not COCO_LABELS:
        log.warning("%s: its %d labels are numbered; a label file would name them.", weights, count)
    threshold = DEFAULT_THRESHOLD if settings.threshold is None else settings.threshold
    threshold = None if task == "single" else threshold
    facts = {"weights": str(weights)}
    return Bundle(model, names, threshold, facts, frame)


def _hint(report: LoadReport, count: int, labels: int) -> str:
    """Return what to do about weights that are not all of a model."""
    if count != labels:
        return f"It has {count} labels."
    if report.reshaped and all(path.startswith("head/") for path in report.initial):
        return (
            "Its head has another width or depth than the model's own, which a weight file does not"
            " say: give the run or bundle that it is from as model_dir."
        )
    return "Check model_name."


def _labels(labels: Labels) -> tuple[str, ...]:
    if not isinstance(labels, str | Path):
        return tuple(map(str, labels))
    path = Path(expand(labels)) if isinstance(labels, str) else labels
    if not path.is_file():
        raise InputError(f"labels={labels}: there is no such file", "A line is `<index> <name>`.")
    return label_names(path, name=str(labels))
