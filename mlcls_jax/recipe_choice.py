"""The recipe that suits a data set, chosen by its size; with the reasons in plain sentences."""

from dataclasses import dataclass
from typing import Any, Literal

from mlcls_jax.recipes import BACKBONES

FEW = 1_000  # images, below which the backbone stays as it was published
SOME = 5_000  # images, below which its layers learn more slowly than the head; on CPUs it stays
HEAD_STEPS, STEPS = 1_500, 4_000  # of a head alone; of a whole network
MIN_EPOCHS, MAX_EPOCHS = 10, 100


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A recipe of the configuration files, and the values that differ from it.

    Attributes:
      recipe: as after the colon in `configs/lcnet.py:small`.
      settings: values by their keys without `config.`, over those of the recipe: a `ConfigDict`
        takes them by `update_from_flattened_dict`.
      reasons: why, one sentence each.
    """

    recipe: Literal["small", "mlcls", "single"]
    settings: dict[str, Any]
    reasons: tuple[str, ...]


def choose(
    *,
    images: int,
    labels: int,
    task: Literal["multilabel", "single"] = "multilabel",
    has_weights: bool = True,
    platform: str = "cpu",
) -> Choice:
    """Return the recipe for a data set, with epochs, batch and image size.

    Args:
      images: to train on.
      labels: that they have in all.
      task: as `model.task`.
      has_weights: whether published weights of the model are at hand, or can be fetched.
      platform: of the devices: cpu, gpu or tpu.
    """
    settings: dict[str, Any] = {"model.weights": "auto" if has_weights else "none"}
    reasons = []
    is_single = task == "single"
    if has_weights and images >= SOME:
        recipe, kind = "single" if is_single else "mlcls", None
        reasons.append(f"{images:,} images are enough to train the whole network.")
    else:
        recipe = "small"
        is_frozen = images < FEW or platform == "cpu"
        kind = "whole" if not has_weights else "frozen" if is_frozen else "decayed"
        settings |= BACKBONES[kind]
        why = "slow" if kind == "frozen" and images >= FEW else kind
        reasons.append(_WHY[why].format(images=f"{images:,} images"))
    if is_single and recipe == "small":
        settings |= {"model.task": "single", "loss.name": "cross_entropy"}
    batch = _batch(images, platform)
    epochs = _epochs(images, batch, HEAD_STEPS if kind == "frozen" else STEPS)
    size = 448 if platform != "cpu" and images >= FEW and not is_single else 224
    settings |= {
        "train.batch_size": batch,
        "train.epochs": epochs,
        "model.image_size": (size, size),
    }
    reasons.append(f"{epochs} epochs of {-(-images // batch):,} steps of {batch} images.")
    if size == 224 and platform == "cpu" and not is_single:
        reasons.append("224 x 224: a CPU takes four times as long over 448 x 448.")
    if images < 10 * labels:
        reasons.append(
            f"{images:,} images are few for {labels} labels: reliable scores take 20 images or more"
            " with each label."
        )
    return Choice(recipe=recipe, settings=settings, reasons=tuple(reasons))


_WHY = {
    "frozen": "{images} are too few to fine-tune a backbone: only the head is trained, on"
    " feature maps that are computed once.",
    "slow": "A CPU takes hours to fine-tune a backbone on {images}: only the head is trained, on"
    " feature maps that are computed once.",
    "decayed": "{images} can fine-tune a backbone a little: its first blocks learn slowest.",
    "whole": "Without published weights, everything is learnt from {images}: expect a much lower"
    " mAP.",
}


def _batch(images: int, platform: str) -> int:
    """Return a power of two, a tenth of the images or so: at most 32 on CPUs, 64 elsewhere."""
    most = 32 if platform == "cpu" else 64
    return min(most, max(8, 1 << max(images // 10, 1).bit_length() - 1))


def _epochs(images: int, batch: int, steps: int) -> int:
    """Return epochs of about so many steps in all."""
    return min(MAX_EPOCHS, max(MIN_EPOCHS, round(steps / -(-images // batch))))
