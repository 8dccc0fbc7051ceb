"""From the command to the first training step and to the first prediction: ours against PyTorch.

python -m benchmarks.startup [--model PP-LCNet_x1_0_ML] [--batch 8] [--size 448] [--repeats 3]
    [--json FILE]

Every measurement is a process of its own, timed from before its start until it says that it is
done: import, build the model with random weights, one step (or one prediction of one image) on
random images, its numbers fetched. Ours calls the functions that mode=train and predictions call,
cold with an empty compilation cache and warm with the cache that the cold one left; no data set is
read, and nothing is written but the cache. PyTorch runs eagerly, with AdamW and a plain loss. All
take turns.
"""

import argparse
import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.timing import CLASSES, describe, print_table, spread

TORCH = "peer torch eager"


def main() -> None:
    """Measure and print; as a child process, do one task."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="PP-LCNet_x1_0_ML")
    parser.add_argument("--batch", type=int, default=8, help="images of the training step")
    parser.add_argument("--size", type=int, default=448, help="side of the images")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", help="also write the rows to this file")
    parser.add_argument("--task", choices=TASKS, help=argparse.SUPPRESS)  # of a child
    arguments = parser.parse_args()
    if arguments.task:
        if arguments.task.startswith("ours"):
            from mlcls_jax.start import collect_rarely

            collect_rarely()  # as `mlcls` does before it imports more
        TASKS[arguments.task](arguments.model, arguments.batch, arguments.size)
        print("done", flush=True)
        os._exit(0)  # the parent has stopped its clock: tearing down is not measured
    has_torch = all(importlib.util.find_spec(name) for name in ("torch", "timm"))
    rows = []
    for work in ("step", "prediction"):
        times = measure(arguments, work, with_torch=has_torch)
        medians = {path: spread(values)[0] for path, values in times.items()}
        for path, values in times.items():
            median, low, high = spread(values)
            rows.append(
                {
                    "model": arguments.model,
                    "path": f"first {work}, {path}",
                    "ms": round(median),
                    "p10": round(low),
                    "p90": round(high),
                    "ratio": round(median / medians[TORCH], 2) if has_torch else None,
                }
            )
    title = f"Start-up, a step of {arguments.batch} images, {arguments.size} x {arguments.size}"
    print_table(f"{title}; {describe('jax', 'jaxlib', 'torch', 'timm')}", rows, arguments.json)
    if not has_torch:
        print(f"{TORCH}: missing: pip install torch timm")


def measure(
    arguments: argparse.Namespace, work: str, *, with_torch: bool
) -> dict[str, list[float]]:
    """Milliseconds of each path, in turn; each repeat has a cache of its own."""
    times: dict[str, list[float]] = {"ours cold": [], "ours warm": []}
    if with_torch:
        times[TORCH] = []
    for _ in range(arguments.repeats):
        with tempfile.TemporaryDirectory() as cache:
            for path, values in times.items():
                task = f"{'torch' if path == TORCH else 'ours'}_{work}"
                values.append(run(arguments, task, cache))
    return times


def run(arguments: argparse.Namespace, task: str, cache: str) -> float:
    """Milliseconds from the start of a process to its word that it is done.

    Raises:
      RuntimeError: it failed.
    """
    command = [sys.executable, "-m", "benchmarks.startup", "--task", task]
    command += ["--model", arguments.model]
    command += ["--batch", str(arguments.batch), "--size", str(arguments.size)]
    environment = os.environ | {"XDG_CACHE_HOME": cache}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    folder = Path(__file__).parents[1]
    began = time.perf_counter()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=environment, cwd=folder
    ) as process:
        while (line := process.stdout.readline()) not in ("done\n", ""):
            pass
        seconds = time.perf_counter() - began
    if not line:
        raise RuntimeError(f"{task}: ended with {process.returncode}")
    return 1000 * seconds


def ours_step(name: str, batch: int, size: int) -> None:
    """One step as mode=train makes it."""
    import jax

    from benchmarks.our_step import Case, make_step
    from mlcls_jax.start import start_jax

    start_jax(cache=True)
    step = make_step(Case(name, batch, size, "float32"))
    jax.block_until_ready(step.compiled(step.state, step.batch))


def ours_prediction(name: str, batch: int, size: int) -> None:
    """One image through the backend jax."""
    from mlcls_jax import models
    from mlcls_jax.data.frame import Frame
    from mlcls_jax.inference.backends import open_backend
    from mlcls_jax.inference.bundle import Bundle
    from mlcls_jax.start import start_jax

    start_jax(cache=True)
    model = models.create(name, num_classes=CLASSES, image_size=size)
    labels = tuple(f"label {i}" for i in range(CLASSES))
    bundle = Bundle(model, labels, 0.5, {}, Frame((size, size)))
    open_backend("jax", bundle)(random_batch(1, size)[0])


def torch_step(name: str, batch: int, size: int) -> None:
    """One step of AdamW."""
    import torch

    from benchmarks.peers.pytorch import build

    model = build(name, CLASSES).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters())
    images, targets = random_batch(batch, size)
    logits = model(_as_floats(images))
    loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, torch.from_numpy(targets))
    loss.backward()
    optimizer.step()
    loss.item()


def torch_prediction(name: str, batch: int, size: int) -> None:
    """One image."""
    import torch

    from benchmarks.peers.pytorch import build

    model = build(name, CLASSES).eval().to(memory_format=torch.channels_last)
    with torch.inference_mode():
        model(_as_floats(random_batch(1, size)[0])).sigmoid().numpy()


def random_batch(batch: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [B, H, W, 3] and targets [B, K]."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (batch, size, size, 3), np.uint8)
    return images, (rng.random((batch, CLASSES)) < 0.04).astype(np.float32)


def _as_floats(images: np.ndarray) -> object:
    import torch

    # The axes NCHW, but in memory channels last, as they came.
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255 - 0.5


TASKS: dict[str, Callable[[str, int, int], None]] = {
    "ours_step": ours_step,
    "ours_prediction": ours_prediction,
    "torch_step": torch_step,
    "torch_prediction": torch_prediction,
}


if __name__ == "__main__":
    main()
