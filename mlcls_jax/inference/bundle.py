"""The trained model as shipped: a folder with `inference.json` and `weights.safetensors`."""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Bool, Float
from safetensors.numpy import save_file

from mlcls_jax import __version__, files
from mlcls_jax.config import Model as ModelConfig
from mlcls_jax.config import model_from_dict
from mlcls_jax.errors import ConfigError, WeightsError
from mlcls_jax.models.classifier import MEAN, STD, probabilities
from mlcls_jax.models.network import Model, Network, Variables, flatten
from mlcls_jax.models.weights import load

FORMAT = 1  # of inference.json


@dataclass(frozen=True)
class Bundle:
    """A model with everything that its use needs: labels, image size, threshold."""

    model: Model
    labels: tuple[str, ...]
    # One for all labels or one a label; None, for one label an image: the best few are reported.
    threshold: float | tuple[float, ...] | None
    facts: dict[str, Any]  # where it came from: epoch, step, which weights, metrics
    temperature: float = 1.0  # logits are divided by it

    def scores(self, variables: Variables, images: Array) -> Float[Array, "B K"]:
        """Scores in 0…1 of uint8 images [B, H, W, 3] of `image_size`; to be traced by JAX."""
        logits, _ = self.model.network.apply(variables, images)
        return self.probabilities(logits)

    def probabilities(self, logits: Float[Array, "B K"]) -> Float[Array, "B K"]:
        """Scores in 0…1, calibrated."""
        task = self.model.network.config.task
        return probabilities(logits, task, temperature=self.temperature)

    def decide(self, scores: Float[np.ndarray, "... K"]) -> Bool[np.ndarray, "... K"]:
        """Labels above their thresholds; of one label an image, the best one."""
        if self.threshold is None:
            return np.arange(scores.shape[-1]) == scores.argmax(-1, keepdims=True)
        return scores > np.asarray(self.threshold, scores.dtype)

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width to which images are resized."""
        return size_of(self.model.network.config)


def size_of(config: ModelConfig) -> tuple[int, int]:
    """Height and width; a single number stands for both."""
    size = config.image_size
    return (size[0], size[-1])


def write_bundle(
    folder: Path,
    config: ModelConfig,
    variables: Variables,
    *,
    labels: tuple[str, ...],
    threshold: float,
    facts: dict[str, Any],
) -> None:
    """Write a bundle in place of what `folder` holds, whole or not at all.

    `threshold` is that of several labels an image; where there is one, none is written.
    """
    description = {
        "format": FORMAT,
        "model": {**asdict(config), "weights": None, "text_embeddings": None},
        "labels": labels,
        "preprocess": {
            "resize": size_of(config),  # height, width; aspect ratio not kept
            "interpolation": "pillow bilinear, antialiased",
            "color": "RGB",
            "scale": 1 / 255,
            "mean": MEAN,
            "std": STD,
        },
        "threshold": None if config.task == "single" else threshold,
        "temperature": 1.0,
        **facts,
        "versions": {"mlcls_jax": __version__, "jax": jax.__version__},
    }
    arrays = {path: np.asarray(array) for path, array in flatten(variables).items()}

    def fill(new: Path) -> None:
        save_file(arrays, new / "weights.safetensors")
        files.write_json(new / "inference.json", description)

    files.replace_folder(folder, fill)


def read_bundle(folder: Path) -> Bundle:
    """The bundle in `folder`.

    Raises:
      WeightsError: there is none, or its files are damaged or do not belong together.
    """
    files.recover_folder(folder)
    path = folder / "inference.json"
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
        config = replace(model_from_dict(described["model"]), weights=None)
        labels, threshold = tuple(described["labels"]), described["threshold"]
        if isinstance(threshold, list):
            threshold = tuple(map(float, threshold))
        else:
            threshold = None if config.task == "single" else float(threshold)
        temperature = float(described.get("temperature", 1.0))
    except FileNotFoundError as error:
        raise WeightsError(
            f"{path}: there is no such file", "Train first, or name a bundle with model_dir."
        ) from error
    except (OSError, ValueError, KeyError, TypeError, ConfigError) as error:
        raise WeightsError(f"{path}: cannot be read: {error}") from error
    if len(labels) != config.num_classes:
        raise WeightsError(f"{path}: {len(labels)} labels, but num_classes={config.num_classes}")
    if isinstance(threshold, tuple) and len(threshold) != len(labels):
        raise WeightsError(f"{path}: {len(threshold)} thresholds, but {len(labels)} labels")
    if not temperature > 0:
        raise WeightsError(f"{path}: temperature={temperature}: must be above 0")
    network = Network.of(config)
    model = Model(network, network.abstract)  # shapes; every number comes from the file
    report = load(model, folder)
    if report.initial or report.ignored:
        raise WeightsError(f"{folder}: weights do not belong to inference.json: {report}")
    known = ("weights", "epoch", "step", "metrics", "calibration")
    facts = {k: described[k] for k in known if k in described}
    return Bundle(model, labels, threshold, facts, temperature)


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
    path = folder / "inference.json"
    described = json.loads(path.read_text(encoding="utf-8"))
    described |= {"threshold": threshold, "temperature": temperature, "calibration": calibration}
    files.write_json(path, described)
