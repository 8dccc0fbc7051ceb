"""Warnings about a run that continues: each is logged once, and again at the end."""

import logging
from collections.abc import Sequence

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
            f" or longer: the learning rate hardly gets to {config.optimizer.learning_rate:g}."
        )
    return told


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
    names = ", ".join(lacking[:SHOWN]) + ", …" * (len(lacking) > SHOWN)
    what = {
        "training": "they cannot be learnt",
        "validation": "they count in no mean average precision"
        if len(lacking) < len(labels)
        else "no metric can tell which weights are the best",
    }
    count = "all" if len(lacking) == len(labels) else str(len(lacking))
    return (
        f"{count} of {len(labels)} labels are without a positive image in the {split} data:"
        f" {what[split]}: {names}"
    )


def about_data(data: DataSplits) -> list[str | None]:
    """Warn of such labels in both splits, as far as their targets are in memory."""
    splits = {"training": data.train, "validation": data.validation}
    return [
        about_positives(split, source.labels, (targets >= 1).sum(0))
        for split, source in splits.items()
        if (targets := getattr(source, "targets", None)) is not None
    ]


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
