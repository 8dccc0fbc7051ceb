"""The trained model as shipped: a folder with `inference.json` and `weights.safetensors`."""

import hashlib
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np
import safetensors.numpy
from jaxtyping import Array, Bool, Float

from mlcls_jax import __version__, files
from mlcls_jax.config import Model as ModelConfig
from mlcls_jax.data.frame import Frame
from mlcls_jax.errors import ConfigError, InputError, WeightsError, raise_faults
from mlcls_jax.inference.description import FORMAT, parse, preprocess
from mlcls_jax.models import registry
from mlcls_jax.models.classifier import probabilities
from mlcls_jax.models.network import Model, Network, Variables, flatten
from mlcls_jax.models.weights import load
from mlcls_jax.models.weights.fetch import BUNDLE_FILES, hub_bundle
from mlcls_jax.parallel import Device
from mlcls_jax.paths import HUB
from mlcls_jax.workdir import BEST_MODEL, CONFIG_FILE, LAST_MODEL

log = logging.getLogger(__name__)

DESCRIPTION, WEIGHTS = BUNDLE_FILES
EXPORTED = "bundle"  # beside a model that was exported
_TRIES = 20  # to read both files of one bundle while others replace it


@dataclass(frozen=True)
class Bundle:
    """A model with everything that its use needs: labels, image size, threshold."""

    model: Model
    labels: tuple[str, ...]
    # One for all labels or one per label; None, for one label per image: the best few are reported.
    threshold: float | tuple[float, ...] | None
    facts: dict[str, Any]  # where it came from: epoch, step, which weights, metrics
    frame: Frame  # the size of images, and how pictures of other shapes are fitted into it
    temperature: float = 1.0  # logits are divided by it
    weights_sha256: str = ""  # of weights.safetensors
    # (labels, templates=) → the bundle of other words; None: its labels are those of a training.
    relabel: "Callable[..., Bundle] | None" = None

    def on(self, devices: Iterable[Device]) -> "Bundle":
        """Return the same bundle, its network in the form for these devices; see `Network.on`."""
        return replace(self, model=Model(self.model.network.on(devices), self.model.variables))

    def scores(self, variables: Variables, images: Array) -> Float[Array, "B K"]:
        """Scores in 0…1 of uint8 images [B, H, W, 3] of `image_size`; to be traced by JAX."""
        return self.probabilities(self.model.network.apply(variables, images).logits)

    def probabilities(self, logits: Float[Array, "B K"]) -> Float[Array, "B K"]:
        """Scores in 0…1, calibrated."""
        task = self.model.network.config.task
        return probabilities(logits, task, temperature=self.temperature)

    def decide(self, scores: Float[np.ndarray, "... K"]) -> Bool[np.ndarray, "... K"]:
        """Labels above their thresholds; of one label per image, the best one."""
        if self.threshold is None:
            return np.arange(scores.shape[-1]) == scores.argmax(-1, keepdims=True)
        return scores > np.asarray(self.threshold, scores.dtype)

    def of_words(self, labels: Sequence[str], templates: Sequence[str] | None = None) -> "Bundle":
        """Return the bundle of other labels, given as words; see `Predictor.predict`.

        Raises:
          InputError: there are no labels, or the model has no text tower.
        """
        if self.relabel is None:
            raise InputError(
                f"labels are given, but {self.model.network.config.name} was trained for its own",
                "Leave labels out, or take a model with a text tower, CLIP's or SigLIP's.",
            )
        if not labels:
            raise InputError("no labels are given", 'For instance labels=["a dog", "snow"].')
        return self.relabel(labels, **({"templates": templates} if templates else {}))

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width to which images are resized."""
        return self.frame.size


def write_bundle(
    folder: Path,
    config: ModelConfig,
    variables: Variables,
    *,
    labels: tuple[str, ...],
    threshold: float,
    facts: dict[str, Any],
    frame: Frame | None = None,
) -> None:
    """Write a bundle in place of the one in `folder`, whole or not at all; other files stay there.

    `threshold` is that of several labels per image; where there is one, none is written. `frame`
    is of the config's image size; None: pictures are squeezed into it.

    Raises:
      WeightsError: such a bundle could not be read, for two equal labels for instance.
    """
    arrays = {path: np.asarray(array) for path, array in flatten(variables).items()}
    weights = safetensors.numpy.save(arrays)
    described = {
        "format": FORMAT,
        "model": {**asdict(config), "weights": None, "text_embeddings": None},
        "labels": labels,
        "preprocess": preprocess(frame or Frame(config.image_size), registry.pixels(config.name)),
        "threshold": None if config.task == "single" else threshold,
        "temperature": 1.0,
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
        **facts,
        "versions": {"mlcls_jax": __version__, "jax": jax.__version__},
    }
    text = files.to_json(described).encode()
    parse(text, folder / DESCRIPTION)
    _write(folder, text, weights)


def copy_bundle(bundle: "Bundle", source: Path, target: Path) -> None:
    """Put the files of `bundle`, read from `source`, in place of the bundle in `target`.

    Raises:
      WeightsError: there is another bundle in `source` by now.
    """
    text, weights = _contents(source)
    if hashlib.sha256(weights).hexdigest() != bundle.weights_sha256:
        raise WeightsError(f"{source}: was replaced while it was being read", "Try again.")
    _write(target, text, weights)


def _write(folder: Path, text: bytes, weights: bytes) -> None:
    def fill(new: Path) -> None:
        if folder.is_dir():
            _keep_others(folder, new)
        (new / WEIGHTS).write_bytes(weights)
        (new / DESCRIPTION).write_bytes(text)

    files.replace_folder(folder, fill)


def _keep_others(folder: Path, new: Path) -> None:
    """Put what users and other modes left beside a bundle into its new folder."""
    for path in folder.iterdir():
        is_unfinished = path.name.startswith(".") and path.name.endswith(".tmp")
        if path.name in BUNDLE_FILES or is_unfinished:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.copytree(
                path, new / path.name, symlinks=True, copy_function=cast(Any, _link_or_copy)
            )
        else:
            _link_or_copy(path, new / path.name, follow_symlinks=False)


def _link_or_copy(source: Path, target: Path, *, follow_symlinks: bool = True) -> None:
    try:
        os.link(source, target, follow_symlinks=follow_symlinks)
    except OSError:  # a file system without links, or a file of another user
        shutil.copy2(source, target, follow_symlinks=follow_symlinks)


def read_bundle(place: str | Path) -> Bundle:
    """Read the bundle in `model_folder(place)`, which another process may be replacing.

    Raises:
      WeightsError: there is none, its files are damaged or do not belong together, or this version
        cannot do what they say; names file and key.
    """
    folder = model_folder(place)
    text, weights = _contents(folder)
    path, described = folder / WEIGHTS, parse(text, folder / DESCRIPTION)
    digest = hashlib.sha256(weights).hexdigest()
    if described.weights_sha256 is None:
        log.info("%s: has no checksum of its weights, being of an earlier version.", folder)
    elif described.weights_sha256 != digest:
        raise WeightsError(
            f"{path}: damaged, or of another bundle: its SHA-256 is {digest},"
            f" but {DESCRIPTION} says {described.weights_sha256}",
            "Copy both files again.",
        )
    try:
        arrays = safetensors.numpy.load(weights)
    except Exception as error:  # of types that NumPy lacks, it raises several kinds
        raise WeightsError(f"{path}: not a safetensors file, or damaged: {error}") from error
    if described.config.decoder_depth > len(arrays):
        told = f"model.decoder_depth={described.config.decoder_depth}: {WEIGHTS} has fewer arrays"
        raise WeightsError(f"{folder / DESCRIPTION}: {told}")
    try:
        network = Network.of(described.config)
    except (ConfigError, ValueError, TypeError, ArithmeticError) as error:
        raise WeightsError(f"{folder / DESCRIPTION}: no such model: {error}") from error
    faults = list(_array_faults(arrays, flatten(network.abstract)))
    raise_faults(
        WeightsError, [f"{path}: {fault}" for fault in faults], f"It must fit {DESCRIPTION}."
    )
    model = Model(network, network.abstract)  # shapes; every number comes from the file
    load(model, arrays)
    return Bundle(
        model,
        described.labels,
        described.threshold,
        described.facts,
        described.frame,
        described.temperature,
        digest,
    )


def check_labels(model_dir: str | Path, model: tuple[str, ...], data: tuple[str, ...]) -> None:
    """Raise ConfigError unless model and data have the same labels in the same order."""
    if len(model) != len(data):
        raise ConfigError(
            f"{model_dir}: has {len(model)} labels, but the data has {len(data)}",
            "Evaluate on the data set that the model was trained for.",
        )
    for index, (ours, theirs) in enumerate(zip(model, data, strict=True)):
        if ours != theirs:
            raise ConfigError(
                f"{model_dir}: label {index} is {ours!r}, but in the data it is {theirs!r}",
                "Bring the label file into the order that the model was trained with.",
            )


def model_folder(place: str | Path) -> Path:
    """Return the folder of the bundle that is meant wherever a model is an argument.

    Args:
      place: a bundle; a run, of which the best is meant, or else the last; what `mlcls export`
        wrote; or an address on the hub, `hf://owner/name@revision`, which is fetched. What is none
        of these is returned as is.

    Raises:
      WeightsError: it cannot be fetched, or is no bundle there.
    """
    if str(place).startswith(HUB):
        if found := hub_bundle(str(place)):
            return found
        hint = f"If it holds weights: mlcls predict --model_name NAME --weights {place}"
        raise WeightsError(
            f"{place}: holds no bundle, whose files are {', '.join(BUNDLE_FILES)}", hint
        )
    folder = Path(place)
    if (folder / DESCRIPTION).exists():
        return folder
    if not (folder / CONFIG_FILE).is_file():
        exported = folder / EXPORTED
        return exported if (exported / DESCRIPTION).exists() else folder
    kept = (folder / name for name in (BEST_MODEL, LAST_MODEL))
    return next((path for path in kept if path.exists()), folder / BEST_MODEL)


def _contents(folder: Path) -> tuple[bytes, bytes]:
    """Of both files, of one and the same bundle: read again where it was replaced meanwhile."""
    if folder.is_file():
        hint = "A weight file is predicted with: mlcls predict --model_name NAME --weights FILE."
        raise WeightsError(f"{folder}: is a file, and a bundle is a folder", hint)
    for _ in range(_TRIES):
        missing = None
        try:
            here = files.current_folder(folder)
            text, weights = (files.regular(here / name).read_bytes() for name in BUNDLE_FILES)
            if (files.current_folder(folder) / DESCRIPTION).read_bytes() == text:
                return text, weights
        except FileNotFoundError as error:
            missing = Path(error.filename).name
        except OSError as error:
            path = folder / Path(error.filename).name
            raise WeightsError(f"{path}: cannot be read: {error.strerror}") from error
    if missing:
        hint = "Train first, or name a bundle with model_dir."
        raise WeightsError(f"{folder / missing}: there is no such file", hint)
    raise WeightsError(f"{folder}: is being replaced again and again", "Try again.")


def _array_faults(arrays: dict[str, np.ndarray], wanted: dict[str, Any]) -> Iterator[str]:
    for names, told in (
        (wanted.keys() - arrays.keys(), "lacks"),
        (arrays.keys() - wanted.keys(), "has more than the model:"),
    ):
        if names:
            shown = ", ".join(sorted(names)[:5]) + (" …" if len(names) > 5 else "")
            yield f"{told} {shown}"
    for name in sorted(wanted.keys() & arrays.keys()):
        array, (shape, dtype) = arrays[name], (wanted[name].shape, wanted[name].dtype)
        if array.shape != shape:
            yield f"{name}: is {array.shape}, but must be {shape}"
        elif array.dtype != dtype:
            yield f"{name}: is {array.dtype}, but must be {dtype}"
        elif not np.isfinite(array).all():
            yield f"{name}: holds numbers that are not finite"


def update_bundle(
    folder: Path,
    *,
    threshold: float | tuple[float, ...],
    temperature: float,
    calibration: dict[str, Any],
) -> None:
    """Put other thresholds and another temperature into the bundle; its weights stay.

    `calibration` says how they were chosen, for people who read the file.
    """
    path = folder / DESCRIPTION
    described = files.read_json(path)
    described |= {"threshold": threshold, "temperature": temperature, "calibration": calibration}
    files.write_json(path, described)
