"""Warnings about a run that continues: each is logged once, and again at the end."""

import logging
import math
from collections.abc import Sequence
from dataclasses import replace

import jax
import numpy as np

from mlcls_jax.config import Config, Train
from mlcls_jax.data.sources import DataSplits
from mlcls_jax.models import Network
from mlcls_jax.models.network import flatten
from mlcls_jax.training.cadence import Plan

log = logging.getLogger(__name__)

SHOWN = 5  # labels
LOW_PRECISION = 0.5
NEARLY_ALL = 0.9  # of all decisions
ENOUGH = 10  # training images of a label
FEW = 2_000  # training images, for random weights
KEPT = 0.05  # of the initial weights, in the average at the end
LARGE = 65  # pixels: any network has several cells then
LANES = 128  # of a TPU's vector unit; XLA puts the batch there where channels are few


class Advice:
    """Warnings of one run, for the log as they come and for its result."""

    def __init__(self, *, quiet: bool = False) -> None:
        """Log nothing if `quiet`: another process does."""
        self._quiet = quiet
        self.told: list[str] = []

    def tell(self, *texts: str | None) -> None:
        """Warn, unless the same was told before; None is no warning."""
        for text in texts:
            if text and text not in self.told:
                self.told.append(text)
                if not self._quiet:
                    log.warning("%s", text)


def about_plan(config: Config, plan: Plan, data: DataSplits) -> list[str]:
    """Warn of a batch size or warm-up that does not suit the run."""
    told, size = [], config.data.epoch_size or len(data.train)
    if config.train.batch_size > size:
        told.append(
            f"train.batch_size={config.train.batch_size} is more than the {size:,} images of an"
            " epoch: a step takes some of them twice. A smaller one makes more steps."
        )
    warmup = config.optimizer.warmup_epochs
    if config.optimizer.schedule != "onecycle" and warmup >= plan.epochs:
        told.append(
            f"optimizer.warmup_epochs={warmup:g} is as long as the run, train.epochs={plan.epochs}"
            f" or longer: the learning rate hardly reaches {config.optimizer.learning_rate:g}."
        )
    train, steps = config.train, plan.total_steps
    if train.ema_decay and not train.ema_warmup and (kept := train.ema_decay**steps) > KEPT:
        fitting = max(0.0, 1 - 10 / steps)
        told.append(
            f"train.ema_decay={train.ema_decay:g} keeps {kept:.0%} of the initial weights in the"
            f" average after all {steps:,} steps: take {fitting:.4g}, or train.ema_warmup=True."
        )
    return told


def about_start(config: Config, data: DataSplits, *, has_weights: bool) -> str | None:
    """Warn of random weights where they cannot become good ones."""
    if has_weights:
        return None
    way_out = "model.weights=auto takes published ones"
    if config.train.frozen_backbone:
        return (
            "train.frozen_backbone=True keeps a backbone of random weights, whose features say"
            f" little: {way_out}."
        )
    if len(data.train) < FEW:
        return (
            f"{len(data.train):,} images are few to train a network from random weights: {way_out},"
            " and a bundle that was trained on similar images is as good."
        )
    return None


def about_map(network: Network) -> str | None:
    """Warn of an image that leaves a head that looks at places a single one."""
    height, width = network.config.image_size
    if not network.has_evidence or min(height, width) >= LARGE:
        return None
    images = jax.ShapeDtypeStruct((1, height, width, 3), np.uint8)
    whole = replace(network, reads_features=False)
    cells = jax.eval_shape(lambda v, x: whole.apply(v, x).features, network.abstract, images)
    if math.prod(cells.shape[1:3]) > 1:
        return None
    return (
        f"model.image_size={height, width} leaves a feature map of a single cell, in which the"
        f" head finds nothing to choose from: take {4 * max(height, width)} or more."
    )


def has_convolutions(network: Network) -> bool:
    """Return whether blocks convolve; a transformer's only convolution cuts patches, below them."""
    below = max(network.depths.values())
    arrays = flatten(network.abstract)
    return any(
        array.ndim == 4 and 0 < network.depths.get(p, 0) < below for p, array in arrays.items()
    )


def about_lanes(train: Train, network: Network, *, platform: str, devices: int) -> str | None:
    """Warn of convolutions on TPUs over other numbers of images than fill their lanes.

    The factors are the compiler's estimates for v5e, at 448 x 448 in bfloat16.

    Args:
      train: the batch and its parts.
      network: to be trained.
      platform: of the devices.
      devices: how many of them share a batch.
    """
    if platform != "tpu" or not has_convolutions(network):
        return None
    size, parts = train.batch_size, train.accumulate
    images = size // (devices * parts)  # in one device's convolutions at a time
    if images % LANES == 0:
        return None
    if size % (devices * LANES) == 0:
        fuller = f"train.accumulate={size // (devices * LANES)}"
    else:
        fuller = f"train.batch_size={max(1, round(images / LANES)) * LANES * devices * parts}"
    return (
        f"train.batch_size={size}"
        + f" in train.accumulate={parts} parts" * (parts > 1)
        + f" puts {images} images on a TPU device at a time: multiples of {LANES} fill its lanes."
        " By the compiler's estimate an image costs 2.1 times as much with 32 as with 128 in"
        f" PP-LCNet_x1_0, and 1.15 times with 64 in ResNet50. Where it fits, take {fuller}."
    )


def about_positives(split: str, labels: Sequence[str], positives: np.ndarray) -> str | None:
    """Warn of labels that no image of the split has; `positives` [K] counts images."""
    lacking = [label for label, n in zip(labels, positives, strict=True) if not n]
    if not lacking:
        return None
    count = f"{len(lacking)} of {len(labels)} labels"
    what = {
        "training": "which cannot be learnt",
        "validation": "left out of the mean average precision",
    }
    if len(lacking) == len(labels):
        count = f"any of the {len(labels)} labels"
        what["validation"] = "so that no metric can tell which weights are the best"
    return f"no {split} image has {count}, {what[split]}: {_first(lacking)}"


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + ", …" * (len(names) > SHOWN)


def about_rare(labels: Sequence[str], positives: np.ndarray) -> str | None:
    """Warn of labels that hardly any training image has; `positives` [K] counts images."""
    rare = [f"{label} ({n})" for label, n in zip(labels, positives, strict=True) if 0 < n < ENOUGH]
    if not rare:
        return None
    names = _first(rare)
    return (
        f"{len(rare)} of {len(labels)} labels have fewer than {ENOUGH} training images, too few to"
        f" be learnt well: {names}. Collect more of them, or join or leave out these labels."
    )


def about_negatives(labels: Sequence[str], positives: np.ndarray, known: np.ndarray) -> str | None:
    """Warn of labels that no validation image lacks; `known` [K] counts images that tell them."""
    full = [label for label, n, of in zip(labels, positives, known, strict=True) if 0 < n == of]
    if not full:
        return None
    names = _first(full)
    return (
        f"{len(full)} of {len(labels)} labels are present in all validation images that tell of"
        f" them: their average precision is 1, however they are scored: {names}. Add images that"
        " are known to lack them."
    )


def about_data(data: DataSplits) -> list[str | None]:
    """Warn of such labels in both splits, as far as their targets are in memory."""
    told, labels = [], data.train.labels
    for split, source in {"training": data.train, "validation": data.validation}.items():
        if wrong := getattr(source, "contradicted", 0):
            told.append(
                f"{wrong:,} {split} images have labels that contradict the groups of the label"
                " file: an ancestor counts as present, two labels of one group as half each."
                " mode=check_dataset lists them."
            )
        if (targets := getattr(source, "targets", None)) is not None:
            positives = (targets >= 1).sum(0)
            told.append(about_positives(split, labels, positives))
            if split == "training":
                told.append(about_rare(labels, positives))
            else:
                told.append(about_negatives(labels, positives, (targets >= 0).sum(0)))
    return told


def about_decisions(metrics: dict[str, float], threshold: float) -> str | None:
    """Warn if nearly every label is reported on every image, or none that is right: of no use."""
    way_out = " `mlcls thresholds` chooses better ones; or train longer."
    if metrics.get("OR") == 0:
        return f"At the threshold of {threshold:g} no label is reported that is right." + way_out
    if "OR" not in metrics or metrics["OP"] >= LOW_PRECISION:
        return None
    # Of all decisions; wrong ones are those reported in vain, and those missed.
    precision, recall = metrics["OP"], metrics["OR"]
    reported = metrics["HammingDistance"] / (1 + precision / recall - 2 * precision)
    if reported < NEARLY_ALL:
        return None
    return (
        f"At the threshold of {threshold:g} {'' if reported > 1 - 1e-9 else 'nearly '}every label"
        f" is reported on every image, of which {precision:.0%} are right." + way_out
    )
