"""A training run in PyTorch, by our configuration: `benchmarks/accuracy.py` compares it with ours.

python -m benchmarks.peers.pytorch_training --config=FILE --workdir=FOLDER

Images, targets, rates of every step and the metric are the product's; reading, model, loss,
optimizer and averages are PyTorch's. It writes `metrics.jsonl` and `train_result.json` with the
keys that the product's have, as far as they are compared.
"""

import copy
import io
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from benchmarks.peers import training
from benchmarks.peers.pytorch import asymmetric_loss, build, decay_groups
from mlcls_jax import config as schema
from mlcls_jax.data.sources import open_data
from mlcls_jax.metrics import metrics_of
from mlcls_jax.models.registry import pixels as statistics_of
from mlcls_jax.training.cadence import Plan
from mlcls_jax.training.optimizer import make_schedule


class Images(Dataset):
    """Images of a source, uint8 [3, H, W], resized by Pillow, and their targets."""

    def __init__(self, source: Any, size: tuple[int, int], *, flip: bool) -> None:
        self.source, self.size, self.flip = source, size, flip

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> tuple[Tensor, np.ndarray]:
        content, target = self.source[index]
        image = Image.open(io.BytesIO(content)).convert("RGB")
        height, width = self.size
        image = image.resize((width, height), Image.Resampling.BILINEAR)
        if self.flip and torch.rand(()) < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return torch.from_numpy(np.array(image)).permute(2, 0, 1), target


class Passes:
    """Batches of indices: passes over all images, each in another order, without an end between."""

    def __init__(self, images: int, batch: int, steps: int) -> None:
        self.images, self.batch, self.steps = images, batch, steps

    def __iter__(self) -> Iterator[list[int]]:
        passes = -(-self.steps * self.batch // self.images)
        order = torch.cat([torch.randperm(self.images) for _ in range(passes)]).tolist()
        for step in range(self.steps):
            yield order[step * self.batch : (step + 1) * self.batch]

    def __len__(self) -> int:
        return self.steps


def train(config: schema.Config, workdir: Path) -> None:
    """Train as `config` says, as far as this comparison varies it."""
    if hasattr(os, "sched_getaffinity"):
        torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.manual_seed(config.seed)
    data, size, options = open_data(config.data), config.model.image_size, config.train
    plan = Plan.of(options, epoch_size=len(data.train))
    passes = Passes(len(data.train), options.batch_size, plan.total_steps)
    images = Images(data.train, size, flip="flip" in config.data.augment)
    batches = DataLoader(images, batch_sampler=passes, num_workers=1)
    sizes = (config.model.embed_dim, config.model.hidden_dim, config.model.num_heads)
    weights = None if config.model.weights in (None, "none") else config.model.weights
    model = build(config.model.name, len(data.train.labels), *sizes, weights=weights)
    model = model.to(memory_format=torch.channels_last).train()
    average = copy.deepcopy(model).eval()
    old, new = (
        [x for x in (*m.parameters(), *m.buffers()) if x.is_floating_point()]
        for m in (average, model)
    )
    schedule = make_schedule(config.optimizer, plan)
    groups = decay_groups(model, config.optimizer.weight_decay)
    optimizer = torch.optim.AdamW(groups, lr=config.optimizer.learning_rate, fused=True)
    seconds, losses, rows = 0.0, [], []
    began = time.perf_counter()
    for step, (pixels, targets) in enumerate(batches, start=1):
        for group in optimizer.param_groups:
            group["lr"] = np.asarray(schedule(step - 1)).item()
        optimizer.zero_grad(set_to_none=True)
        images = normalise(pixels, config.model.name)
        loss = asymmetric_loss(model(images), targets, config.loss)
        loss.backward()
        optimizer.step()
        decay = (
            min(options.ema_decay, step / (9 + step)) if options.ema_warmup else options.ema_decay
        )
        with torch.no_grad():
            torch._foreach_lerp_(old, new, 1 - decay)
        losses.append(loss.detach())
        if plan.ends_epoch(step):
            rows.append({"epoch": plan.epoch(step), "loss": float(torch.stack(losses).mean())})
            losses.clear()
        if plan.evaluate_after(step):
            seconds += time.perf_counter() - began
            found = evaluate({"raw": model, "ema": average}, data.validation, config)
            rows.append({"epoch": plan.epoch(step), **found})
            began = time.perf_counter()
    training.write(workdir, rows, plan.total_steps * options.batch_size / seconds)


def evaluate(models: dict[str, nn.Module], source: Any, config: schema.Config) -> dict[str, float]:
    """Return the mAP of each model over all images of `source`."""
    images = Images(source, config.model.image_size, flip=False)
    logits: dict[str, list[Tensor]] = {name: [] for name in models}
    targets = []
    for model in models.values():
        model.eval()
    with torch.inference_mode():
        for pixels, target in DataLoader(images, batch_size=config.evaluate.batch_size):
            targets.append(target)
            for name, model in models.items():
                logits[name].append(model(normalise(pixels, config.model.name)))
    models["raw"].train()
    found = {}
    for name, parts in logits.items():
        values = torch.cat(parts)
        metrics = metrics_of(
            config.model.task,
            values.sigmoid().numpy(),
            torch.cat(targets).numpy(),
            ranking=values.numpy(),
        )
        found[f"{name}/MultiLabelMAP"] = metrics["MultiLabelMAP"]
    return found


def normalise(pixels: Tensor, model: str) -> Tensor:
    """Return uint8 [B, 3, H, W] as float by the model's mean and deviation, in channels_last."""
    statistics = statistics_of(model)
    mean, std = (torch.tensor(v)[:, None, None] for v in (statistics.mean, statistics.std))
    pixels = pixels.contiguous(memory_format=torch.channels_last)
    return (pixels.float() / 255 - mean) / std


if __name__ == "__main__":
    training.main(train, __doc__)
