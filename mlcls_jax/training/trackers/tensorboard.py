"""TensorBoard's events, in `tensorboard/` of the workdir, with the configuration as text.

Of evaluations there are curves of precision and recall, of the end the hyper-parameters with what
they reached, and the picture of predictions.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image
from tensorboardX import SummaryWriter
from tensorboardX.summary import hparams

from mlcls_jax.config import Config, flattened, to_dict
from mlcls_jax.training.trackers import Tracker

SHOWN = 20  # labels with a curve of their own
SECTIONS = ("model", "data", "train", "optimizer", "loss")  # whose options are hyper-parameters


def open_run(workdir: Path, config: Config, start_step: int) -> Tracker:
    """Open the events; purging hides what a killed run had written after its last checkpoint."""
    writer = SummaryWriter(str(workdir / "tensorboard"), purge_step=start_step + 1)
    text = yaml.safe_dump(to_dict(config), sort_keys=False, allow_unicode=True)
    writer.add_text("config", "".join(f"    {line}\n" for line in text.splitlines()), start_step)

    def scalars(step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            writer.add_scalar(name, value, step)

    def curves(step: int, scores: np.ndarray, targets: np.ndarray, labels: Sequence[str]) -> None:
        columns = [("all labels", slice(None))]
        columns += [(name, slice(k, k + 1)) for k, name in enumerate(labels[:SHOWN])]
        for name, those in columns:
            known = targets[:, those] >= 0
            truth, found = targets[:, those][known] > 0.5, scores[:, those][known]
            if truth.any():
                writer.add_pr_curve(f"precision_recall/{name}", truth, found, step)

    return Tracker(scalars, writer.close, curves)


def write_outcome(
    workdir: Path, config: Config, step: int, metrics: dict[str, float], picture: Path | None
) -> None:
    """Write what a run came to after its last step: hyper-parameters, metrics, picture."""
    reached = {f"best/{name}": value for name, value in metrics.items()}
    # Files of one second would have one name without the suffix.
    with SummaryWriter(str(workdir / "tensorboard"), filename_suffix=".outcome") as writer:
        assert writer.file_writer is not None  # it is open
        sections = {name: to_dict(config)[name] for name in SECTIONS}
        for summary in hparams(_plain(sections), reached):
            writer.file_writer.add_summary(summary)
        for name, value in reached.items():
            writer.add_scalar(name, value, step)
        if picture:
            pixels = np.asarray(Image.open(picture).convert("RGB"))
            writer.add_image("predictions", pixels, step, dataformats="HWC")


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """Return numbers and texts by dotted name; others, such as tuples, as texts."""
    return {
        key: value if isinstance(value, str | int | float) else str(value)
        for key, value in flattened(values).items()
        if value is not None
    }
