"""The trained model as shipped: a folder with `inference.json` and `weights.safetensors`."""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors.numpy import save_file

from mlcls_jax import __version__, files
from mlcls_jax.config import Model as ModelConfig
from mlcls_jax.config import model_from_dict
from mlcls_jax.errors import ConfigError, WeightsError
from mlcls_jax.models.classifier import MEAN, STD
from mlcls_jax.models.network import Model, Network, Variables, flatten
from mlcls_jax.models.weights import load

FORMAT = 1  # of inference.json


@dataclass(frozen=True)
class Bundle:
    """A model with everything that its use needs: labels, image size, threshold."""

    model: Model
    labels: tuple[str, ...]
    threshold: float | None  # None, for one label an image: the best few are reported
    facts: dict[str, Any]  # where it came from: epoch, step, which weights, metrics

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
        threshold = None if config.task == "single" else float(threshold)
    except FileNotFoundError as error:
        raise WeightsError(
            f"{path}: there is no such file", "Train first, or name a bundle with model_dir."
        ) from error
    except (OSError, ValueError, KeyError, TypeError, ConfigError) as error:
        raise WeightsError(f"{path}: cannot be read: {error}") from error
    if len(labels) != config.num_classes:
        raise WeightsError(f"{path}: {len(labels)} labels, but num_classes={config.num_classes}")
    network = Network.of(config)
    model = Model(network, network.abstract)  # shapes; every number comes from the file
    report = load(model, folder)
    if report.initial or report.ignored:
        raise WeightsError(f"{folder}: weights do not belong to inference.json: {report}")
    facts = {k: described[k] for k in ("weights", "epoch", "step", "metrics") if k in described}
    return Bundle(model, labels, threshold, facts)
