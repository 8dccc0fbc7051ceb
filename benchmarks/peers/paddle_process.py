"""Paddle Inference in a process of its own: its packages do not go together with everyone's."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

WORKER = Path(__file__).with_name("paddle_worker.py")


def find_python(given: str | None) -> str | None:
    """The Python that has Paddle: as given, PADDLE_PYTHON, or this one; None: there is none."""
    if python := given or os.environ.get("PADDLE_PYTHON"):
        return python
    return sys.executable if importlib.util.find_spec("paddle") else None


def write_graph(onnx_file: Path, folder: Path) -> bool:
    """The ONNX file as nodes.json and weights.npz, which are read without the package onnx.

    Bytes that become floats at the start are left out: Paddle is given floats, and the axes as its
    first operation likes them. Returns whether that is [batch, channels, height, width].
    """
    import onnx

    graph = onnx.load(onnx_file).graph
    _, *image_shape = (size.dim_value for size in graph.input[0].type.tensor_type.shape.dim)
    renamed = {graph.input[0].name: "images"}
    nodes, channels_first = [], False
    for node in graph.node:
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        inputs = [renamed.get(name, name) for name in node.input]
        is_first = inputs[:1] == ["images"]
        if is_first and node.op_type == "Cast":
            renamed[node.output[0]] = "images"
            continue
        if is_first and node.op_type == "Transpose":
            channels_first = True
            image_shape = [image_shape[axis - 1] for axis in attributes["perm"][1:]]
            renamed[node.output[0]] = "images"
            continue
        nodes.append(
            {
                "kind": node.op_type,
                "inputs": inputs,
                "output": node.output[0],
                "attributes": attributes,
            }
        )
    weights = {w.name: onnx.numpy_helper.to_array(w) for w in graph.initializer}
    np.savez(folder / "weights.npz", **weights)
    description = {"nodes": nodes, "image_shape": image_shape}
    (folder / "nodes.json").write_text(json.dumps(description), encoding="utf-8")
    return channels_first


class Paddle:
    """A model in Paddle Inference with oneDNN; to be used as a context.

    Args:
      python: that has Paddle.
      onnx_file: the model, of ours.
      folder: for its files.
      images: uint8 [B, H, W, 3], which all its predictions are of.
      threads: to compute with.

    Raises:
      RuntimeError: the process ended; its output says why.
    """

    def __init__(
        self, python: str, onnx_file: Path, folder: Path, images: np.ndarray, *, threads: int
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        channels_first = write_graph(onnx_file, folder)
        given = images.transpose(0, 3, 1, 2) if channels_first else images
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
