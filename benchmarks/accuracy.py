"""Accuracy on your own images after the same budget and from the same weights: ours and PyTorch.

python -m benchmarks.accuracy FOLDER [--model PP-LCNet_x0_5_ML] [--size 128] [--epochs 12]
    [--weights FILE] [--seeds 0 1 2] [--rate 1e-3] [--batch 32]
    [--paths mlcls_jax PyTorch "mlcls train"] [--json FILE] [--config.KEY=VALUE ...]

FOLDER has MLClsDataset form. Both sides train by AdamW with decay 1e-4, one epoch of warm-up and a
cosine to 0, flips, the asymmetric loss and a moving average of 0.99, under a decoder of width 256;
both read the images as the product does in evaluation, antialiased. Ours is the product's own
command; PyTorch's is `benchmarks/peers/pytorch_training.py`. Each run is a process of its own, ours
and theirs in turn. `mlcls train` is given the model, size, batch and epochs alone, and chooses the
rest. So is `lightly-train`, in an environment that has it. Flags `--config.…` go to ours alone.

`loss` is the mean of the training loss over the epoch, `raw` and `ema` the mAP of the weights and
of their average, `±` the standard deviation between seeds. `wall_s` is the whole process with its
start, compilation and evaluations; `images_per_s` that of training alone, as each side measures it.
"""

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.timing import describe, print_table
from mlcls_jax import config as schema

OURS, THEIRS, CHOSEN, LIGHTLY = "mlcls_jax", "PyTorch", "mlcls train", "lightly-train"
MODULES = {
    OURS: "mlcls_jax.main",
    THEIRS: "benchmarks.peers.pytorch_training",
    LIGHTLY: "benchmarks.peers.lightly_training",
}
PATHS = (OURS, THEIRS, CHOSEN, LIGHTLY)
MAP = "MultiLabelMAP"


def main() -> None:
    """Train every path with every seed, and print the two tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder")
    parser.add_argument("--model", default="PP-LCNet_x0_5_ML")
    parser.add_argument("--weights", default="none", help="of the backbone, .safetensors of timm")
    parser.add_argument("--size", type=int, default=128, help="side of the images")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--paths", nargs="+", default=PATHS[:3], choices=PATHS)
    parser.add_argument("--json", help="file for the rows of every run")
    arguments, flags = parser.parse_known_args()
    if unknown := [flag for flag in flags if not flag.startswith("--config.")]:
        parser.error(f"unknown: {' '.join(unknown)}")
    runs: list[dict[str, Any]] = []
    for seed in arguments.seeds:
        for path in arguments.paths:
            runs.append(
                train(path, config_of(arguments, seed), flags if path in (OURS, CHOSEN) else [])
            )
            said = runs[-1]["epochs"][-1]
            print(f"{path}, seed {seed}: {said}, {runs[-1]['wall_s']:.0f} s", file=sys.stderr)
            if arguments.json:
                Path(arguments.json).write_text(json.dumps(runs, indent=2) + "\n", encoding="utf-8")
    name = Path(arguments.folder).name
    case = f"{name}, {arguments.model}, {arguments.size} x {arguments.size}"
    facts = describe("jax", "flax", "torch", "timm")
    print_table(f"{case}, seeds {arguments.seeds}; {facts}", by_epoch(runs), None)
    print_table("Whole runs", whole(runs), None)


def config_of(arguments: argparse.Namespace, seed: int) -> schema.Config:
    """Return what both sides are given."""
    size = (arguments.size, arguments.size)
    decoder: dict[str, Any] = {"embed_dim": 256, "hidden_dim": 512, "num_heads": 8}
    folder, batch = str(Path(arguments.folder).resolve()), arguments.batch
    weights = arguments.weights
    weights = weights if weights == "none" else str(Path(weights).resolve())
    return schema.Config(
        seed=seed,
        model=schema.Model(name=arguments.model, weights=weights, image_size=size, **decoder),
        data=schema.Data(dir=folder, augment=("flip",), train_resize="exact"),
        train=schema.Train(
            epochs=arguments.epochs,
            batch_size=batch,
            ema_decay=0.99,
            save_epochs=arguments.epochs,
            log_steps=1,
        ),
        evaluate=schema.Evaluate(batch_size=batch),
        optimizer=schema.Optimizer(
            learning_rate=arguments.rate,
            weight_decay=1e-4,
            warmup_epochs=1.0,
            warmup_start=1e-6,
            end_learning_rate=0.0,
        ),
        log=schema.Log(tensorboard=False, pictures=0),
    )


def train(path: str, config: schema.Config, flags: list[str]) -> dict[str, Any]:
    """Return the numbers of a run: by epoch, images a second, and seconds from start to end.

    Raises:
      CalledProcessError: the run failed; what it said is on standard error.
    """
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        workdir = run(path, config, flags, Path(folder))
        seconds = time.perf_counter() - began
        lines = (workdir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        result = json.loads((workdir / "train_result.json").read_text(encoding="utf-8"))
    speed = result["images_per_s"]
    rows = [json.loads(line) for line in lines]
    return {
        **{"path": path, "seed": config.seed, "wall_s": seconds, "images_per_s": speed},
        "epochs": epochs_of(rows),
    }


def run(path: str, config: schema.Config, flags: Sequence[str], folder: Path) -> Path:
    """Train in a process of its own, and return its workdir in the folder.

    Raises:
      CalledProcessError: the run failed; what it said is on standard error.
    """
    file, workdir = folder / "config.yaml", folder / "run"
    file.write_text(schema.to_yaml(config), encoding="utf-8")
    if path == CHOSEN:
        words = ["mlcls_jax.main", "train", *wishes(config), f"--output={workdir}"]
    else:
        words = [MODULES[path], f"--config={file}", f"--workdir={workdir}"]
    command = [sys.executable, "-m", *words, *flags]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return workdir


def wishes(config: schema.Config) -> list[str]:
    """Return the words of `mlcls train` for the same data, network, size and budget."""
    given = {
        "model": config.model.name,
        "weights": config.model.weights,
        "image_size": config.model.image_size[0],
        "epochs": config.train.epochs,
        "batch_size": config.train.batch_size,
        "config.seed": config.seed,
    }
    return [str(config.data.dir), *(f"--{key}={value}" for key, value in given.items())]


def epochs_of(rows: list[dict[str, float]]) -> list[dict[str, float]]:
    """Return a row an epoch: mean training loss and both mAPs, of the lines of `metrics.jsonl`."""
    epochs = []
    for scored in (row for row in rows if f"raw/{MAP}" in row):
        epoch = scored["epoch"]
        losses = [r["loss"] for r in rows if "loss" in r and epoch - 1 < r["epoch"] <= epoch]
        maps = {name: scored[f"{name}/{MAP}"] for name in ("raw", "ema")}
        epochs.append({"epoch": epoch, "loss": statistics.fmean(losses or [math.nan]), **maps})
    return epochs


def by_epoch(runs: list[dict[str, Any]]) -> list[dict[str, object]]:
    """Return a row a path and epoch: mean and deviation between seeds."""
    rows: list[dict[str, object]] = []
    for path, mine in _by_path(runs).items():
        for same in zip(*(run["epochs"] for run in mine), strict=True):
            row: dict[str, object] = {"path": path, "epoch": same[0]["epoch"]}
            row["loss"] = _spread([r["loss"] for r in same], 2)
            rows.append(row | {m: _spread([r[m] for r in same], 4) for m in ("raw", "ema")})
    return rows


def whole(runs: list[dict[str, Any]]) -> list[dict[str, object]]:
    """Return a row a path: the best of each run, seconds and images a second."""
    rows: list[dict[str, object]] = []
    for path, mine in _by_path(runs).items():
        best = [max(max(r["raw"], r["ema"]) for r in run["epochs"]) for run in mine]
        speed = [run["images_per_s"] for run in mine]
        seconds = [run["wall_s"] for run in mine]
        row: dict[str, object] = {"path": path, "runs": len(mine), "best_mAP": _spread(best, 4)}
        rows.append(row | {"wall_s": _spread(seconds, 0), "images_per_s": _spread(speed, 0)})
    return rows


def _by_path(runs: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    return {
        path: [run for run in runs if run["path"] == path] for path in {r["path"]: 0 for r in runs}
    }


def _spread(values: list[float], digits: int) -> str:
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.fmean(values):.{digits}f} ± {deviation:.{digits}f}"


if __name__ == "__main__":
    main()
