"""What a user may ask of a new run."""

from dataclasses import dataclass
from typing import Any

from mlcls_jax.config import option
from mlcls_jax.data.detect import Form


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What a user asks of a new run; None: it is chosen."""

    model: str | None = option(None, "architecture, of `mlcls models`")
    epochs: int | None = option(None, "passes over the training images", min=1)
    batch_size: int | None = option(None, "images of a step", min=1)
    image_size: int | None = option(None, "height and width of the images", min=8)
    lr: float | None = option(None, "learning rate", min=0.0)
    device: str | None = option(None, "cpu, gpu, gpu:0,1 or tpu; None: all that JAX finds")
    weights: str | None = option(
        None,
        "to start from: auto, none (random), a file, folder or address; None: auto",
        path="any",
    )
    output: str | None = option(
        None,
        "new folder for everything that the run writes; None: runs/DATA-1, -2, …",
        path="local",
    )
    format: Form | None = option(None, "of the data, where it may be read in several ways")

    def settings(self) -> dict[str, Any]:
        """Return the values of the configuration that are asked for."""
        size = self.image_size and (self.image_size, self.image_size)
        given = {
            "model.name": self.model,
            "train.epochs": self.epochs,
            "train.batch_size": self.batch_size,
            "model.image_size": size,
            "optimizer.learning_rate": self.lr,
            "model.weights": self.weights,
        }
        return {key: value for key, value in given.items() if value is not None}
