"""A training run by lightly-train, by our configuration, for `benchmarks/accuracy.py` to compare.

python -m benchmarks.peers.lightly_training --config=FILE --workdir=FOLDER

lightly-train is given the images, the network in timm's name, size, batch, seed and number of
steps, and chooses the rest, as `mlcls train` does: crops and colours, BCE on pooled features,
AdamW with clipped gradients, no average of the weights. It leaves out images without a label. This
writes `metrics.jsonl` and `train_result.json` with the keys that the product's have, as far as they
are compared; the macro average precision of its validation stands for both mAPs, and its loss,
another one, is left out. Its speed is that of whole epochs, with their evaluation.
"""

import csv
import time
from multiprocessing import get_context
from pathlib import Path

import lightly_train
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from benchmarks.peers import training
from benchmarks.peers.pytorch import BACKBONES
from mlcls_jax import config as schema
from mlcls_jax.data.lists import Row, label_names, read_list
from mlcls_jax.training.cadence import Plan

MAP = "val_metric/avg_precision_macro"


def train(config: schema.Config, workdir: Path) -> None:
    """Train as `config` says, as far as this comparison varies it."""
    folder, out = Path(config.data.dir), workdir / "lightly"
    labels = label_names(folder / config.data.label_file)
    lists = {"train": folder / config.data.train_list, "val": folder / config.data.val_list}
    images = {name: write_list(path, workdir, len(labels)) for name, path in lists.items()}
    plan = Plan.of(config.train, epoch_size=images["train"])
    wishes = {
        "out": str(out),
        "model": f"timm/{BACKBONES[config.model.name.removesuffix('_ML')][0]}",
        "data": {
            **{name: str(workdir / f"{path.stem}.csv") for name, path in lists.items()},
            "classes": dict(enumerate(labels)),
            "csv_label_type": "id",
        },
        "classification_task": "multilabel",
        "steps": plan.total_steps,
        "batch_size": config.train.batch_size,
        "num_workers": 1,
        "accelerator": "cpu",
        "precision": "32-true",
        "seed": config.seed,
        "transform_args": {"image_size": config.model.image_size},
        "metric_args": {"watch_metric": MAP},
        "logger_args": {"val_every_num_steps": plan.steps_per_epoch},
    }
    began = time.perf_counter()
    # A process of its own: its events are all on disk only when it has ended.
    process = get_context("spawn").Process(
        target=lightly_train.train_image_classification, kwargs=wishes
    )
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(process.exitcode)
    seconds = time.perf_counter() - began
    events = EventAccumulator(str(out)).Reload().Scalars(MAP)
    rows = [{"epoch": n, **both(e.value)} for n, e in enumerate(events, start=1)]
    training.write(workdir, rows, plan.total_steps * config.train.batch_size / seconds)


def write_list(path: Path, workdir: Path, num_classes: int) -> int:
    """Write a list of ours as lightly-train reads it; return how many images have a label."""
    rows = [row for row in read_list(path, num_classes, name=path.name) if isinstance(row, Row)]
    present = [(row, (row.target == 1).nonzero()[0]) for row in rows]
    with (workdir / f"{path.stem}.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["image_path", "label"])
        for row, labels in present:
            writer.writerow([path.parent / row.image, ",".join(map(str, labels))])
    return sum(bool(len(labels)) for _, labels in present)


def both(value: float) -> dict[str, float]:
    """Return the keys of both mAPs: there is no average of the weights."""
    return {f"{name}/MultiLabelMAP": value for name in ("raw", "ema")}


if __name__ == "__main__":
    training.main(train, __doc__)
