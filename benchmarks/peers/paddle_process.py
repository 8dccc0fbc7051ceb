"""Paddle Inference in a process of its own: its packages do not go together with everyone's."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from mlcls_jax.imagenet import MEAN, STD
from mlcls_jax.models.network import Model
from mlcls_jax.models.weights.export import to_foreign

# What PaddleClas calls them. CLIP is not among them: with oneDNN, Paddle 3.3's scores are wrong.
FACTORIES = {
    "PP-LCNet_x1_0_ML": "PPLCNet_x1_0",
    "PP-HGNetV2-B0_ML": "PPHGNetV2_B0",
    "PP-HGNetV2-B4_ML": "PPHGNetV2_B4",
    "PP-HGNetV2-B6_ML": "PPHGNetV2_B6",
    "ResNet50_ML": "ResNet50",
}
WORKER = Path(__file__).with_name("paddle_worker.py")


def find_python(given: str | None) -> str | None:
    """The Python that has Paddle: as given, PADDLE_PYTHON, or this one; None: there is none."""
    if python := given or os.environ.get("PADDLE_PYTHON"):
        return python
    return sys.executable if importlib.util.find_spec("paddle") else None


def write_model(model: Model, folder: Path) -> None:
    """What the worker needs to build PaddleClas' model with the weights of ours.

    Raises:
      ValueError: the model is not compared with PaddleClas'.
    """
    config = model.network.config
    name = FACTORIES.get(config.name)
    if name is None:
        raise ValueError(f"{config.name}: PaddleClas' is not compared")
    description = {
        "name": name,
        "class_num": config.num_classes,
        "query_num": min(config.query_num, config.num_classes),
        "in_channels": model.network.module(model.variables).backbone.channels,
        "size": config.image_size[0],
    }
    (folder / "model.json").write_text(json.dumps(description), encoding="utf-8")
    np.savez(folder / "weights.npz", **to_foreign(model, "paddle"))


class Paddle:
    """A model in Paddle Inference with oneDNN; to be used as a context.

    Args:
      python: that has Paddle and PaddleClas.
      model: of ours, whose weights it takes.
      folder: for its files.
      images: uint8 [B, H, W, 3], which all its predictions are of.
      threads: to compute with.

    Raises:
      RuntimeError: the process ended; its output says why.
    """

    def __init__(
        self, python: str, model: Model, folder: Path, images: np.ndarray, *, threads: int
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        write_model(model, folder)
        given = ((images / 255 - MEAN) / STD).transpose(0, 3, 1, 2)
        np.save(folder / "images.npy", np.ascontiguousarray(given, np.float32))
        self._log = folder / "log.txt"
        command = [python, str(WORKER), str(folder), str(len(images)), str(threads)]
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}  # not its packages
        environment["OMP_NUM_THREADS"] = str(threads)
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=environment,
            )
        self.version = self._answer()["version"]
        self.scores = np.array(self._order({"scores": str(folder / "images.npy")}))

    def times(self, calls: int) -> list[float]:
        """Milliseconds of each of `calls` predictions."""
        return self._order({"calls": calls})

    def __enter__(self) -> "Paddle":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stdin.close()
        self._process.wait(timeout=60)
        self._process.stdout.close()

    def _order(self, order: dict[str, Any]) -> Any:
        print(json.dumps(order), file=self._process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> Any:
        line = self._process.stdout.readline()
        if not line:
            tail = self._log.read_text(encoding="utf-8", errors="replace")[-2000:]
            raise RuntimeError(f"Paddle's process ended ({self._process.wait()}):\n{tail}")
        return json.loads(line)
