"""Prediction on this CPU, float32, ML-Decoder head, 80 labels: our backends, peers, the limit.

python -m benchmarks.infer [--models NAME …] [--batch 1] [--size 448] [--rounds 10]
    [--paths ours peers] [--paddle_python PYTHON] [--json FILE]

All of them take turns in this process, but Paddle Inference, which has one of its own and takes its
turn there. Ours take uint8 images and normalise them, peers take floats. The weights are random.
Paddle runs PaddleClas' own models with the weights of ours, after their scores have been compared;
the other peers run timm's backbone under a head of our writing.

Ratios are of medians: to the best peer, and to ONNX Runtime on PyTorch's export. The limit is what
the multiply-accumulates would take at the rate of a large matrix product by NumPy, measured in the
same turns. It is no bound: Winograd's convolutions multiply less, and products may be faster still.
"""

import argparse
import contextlib
import importlib.util
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from benchmarks.peers.paddle_process import Paddle, find_python
from benchmarks.timing import (
    CLASSES,
    MODELS,
    Turn,
    describe,
    in_turn,
    multiply,
    print_table,
    spread,
    timed,
)
from mlcls_jax import models
from mlcls_jax.data.frame import Frame
from mlcls_jax.inference.backends import open_backend
from mlcls_jax.inference.backends.onnx_cache import thread_count
from mlcls_jax.inference.bundle import Bundle
from mlcls_jax.models.counting import count_macs

TOLERANCE = 1e-3  # of a score
OURS = ("jax", "onnxruntime", "openvino", "auto")
REFERENCE = "peer onnxruntime"
# path → the method of `runtimes.Peer`, and the packages that it needs
TORCH_PEERS = {
    REFERENCE: ("onnxruntime", ("onnxruntime", "onnx")),
    "peer openvino": ("openvino", ("openvino", "onnx")),
    "peer torch eager": ("eager", ()),
    "peer torch.compile": ("compiled", ()),
}
PADDLE = "peer paddle, oneDNN"
LIMIT = "numpy matrix product"


class Opened(NamedTuple):
    """Every path of a model, ready to be timed."""

    turns: dict[str, Turn]
    missing: dict[str, str]  # path → why
    products: float  # multiply-accumulates of a batch, in those of the product that is LIMIT


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--models", nargs="+", default=MODELS, metavar="NAME")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--size", type=int, default=448, help="side of the images")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--calls", type=int, default=3, help="predictions a turn")
    parser.add_argument(
        "--paths", nargs="+", default=("ours", "peers"), choices=("ours", "peers", *OURS)
    )
    parser.add_argument("--paddle_python", help="a Python that has Paddle; or PADDLE_PYTHON")
    parser.add_argument("--json", help="also write the rows to this file")
    arguments = parser.parse_args()
    backends = [name for name in OURS if "ours" in arguments.paths or name in arguments.paths]
    rows: list[dict[str, object]] = []
    missing: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder, _own_cache(Path(folder) / "cache"):
        for name in arguments.models:
            print(f"{name} …", flush=True)
            with contextlib.ExitStack() as stack:
                opened = open_all(
                    name,
                    backends,
                    Path(folder),
                    stack,
                    batch=arguments.batch,
                    size=arguments.size,
                    peers="peers" in arguments.paths,
                    paddle_python=arguments.paddle_python,
                )
                times = in_turn(opened.turns, rounds=arguments.rounds, calls=arguments.calls)
            rows += rows_of_model(name, times, opened.products, opened.missing)
            missing |= opened.missing
    packages = ("jax", "jaxlib", "numpy", "onnxruntime", "openvino", "torch", "timm")
    title = f"Prediction, batch {arguments.batch}, {arguments.size} x {arguments.size}, float32"
    print_table(f"{title}; {describe(*packages)}", rows, arguments.json)
    for path, why in missing.items():
        print(f"{path}: missing: {why}")


def open_all(
    name: str,
    backends: Sequence[str],
    folder: Path,
    stack: contextlib.ExitStack,
    *,
    batch: int,
    size: int,
    peers: bool,
    paddle_python: str | None,
) -> Opened:
    """The model on every path; what a process of its own needs is closed by `stack`."""
    threads = thread_count()
    images = np.random.default_rng(0).integers(0, 256, (batch, size, size, 3), np.uint8)
    model = models.create(name, num_classes=CLASSES, image_size=size)
    labels = tuple(f"label {i}" for i in range(CLASSES))
    bundle = Bundle(model, labels, 0.5, {}, Frame((size, size)))
    turns: dict[str, Turn] = {}
    missing: dict[str, str] = {}
    product, product_macs = multiply()
    turns[LIMIT] = timed(product)
    for backend in backends:
        runner = open_backend(backend, bundle, device="cpu", batch_size=batch)
        path = f"ours {backend}" + (f" ({runner.name})" if backend == "auto" else "")
        turns[path] = timed(lambda run=runner: run(images))
    if peers:
        for path, call, why in torch_peers(name, images, folder, threads):
            if call is None:
                missing[path] = why
            else:
                turns[path] = timed(call)
        if not (python := find_python(paddle_python)):
            missing[PADDLE] = "pip install paddlepaddle, see benchmarks/requirements.txt"
        else:
            path, call, why = paddle_peer(python, model, images, folder, stack, threads)
            if call is None:
                missing[path] = why
            else:
                turns[path] = call
    products = batch * count_macs(model.network, size) / product_macs
    return Opened(turns, missing, products)


def paddle_peer(
    python: str,
    model: models.Model,
    images: np.ndarray,
    folder: Path,
    stack: contextlib.ExitStack,
    threads: int,
) -> tuple[str, Turn | None, str]:
    """Path, turn of predictions, and where there is none, why."""
    name = model.network.config.name
    try:
        paddle = Paddle(python, model, folder / "paddle" / name, images, threads=threads)
    # A peer that does not run must not hide the others' numbers.
    except (RuntimeError, ValueError) as error:
        return PADDLE, None, str(error)
    stack.enter_context(paddle)
    path = f"{PADDLE} {paddle.version}"
    ours = np.asarray(jax.nn.sigmoid(model(images)))
    difference = np.abs(paddle.scores - ours).max()
    if difference > TOLERANCE:
        return path, None, f"{name}: its scores are wrong by {difference:.1e}: not timed"
    return path, lambda calls: paddle.times(calls + 1)[1:], ""


def torch_peers(
    name: str, images: np.ndarray, folder: Path, threads: int
) -> Iterator[tuple[str, Callable[[], object] | None, str]]:
    """Path, function that predicts once, and where there is none, why."""
    peer = None
    for path, (method, packages) in TORCH_PEERS.items():
        packages = ("torch", "timm", *packages)
        if absent := [p for p in packages if importlib.util.find_spec(p) is None]:
            yield path, None, f"pip install {' '.join(absent)}"
            continue
        if peer is None:
            from benchmarks.peers.runtimes import Peer

            warnings.filterwarnings("ignore")  # of PyTorch's export, which is checked
            peer = Peer(name, CLASSES, images, folder, threads=threads)
        yield path, getattr(peer, method)(), ""


def rows_of_model(
    name: str, times: dict[str, list[float]], products: float, missing: dict[str, str]
) -> list[dict[str, object]]:
    """A row a path, also of those that are missing; `products` as in `Opened`."""
    limit = products * spread(times[LIMIT])[0]
    medians = {path: spread(values)[0] for path, values in times.items() if path != LIMIT}
    best_peer = min((ms for path, ms in medians.items() if path.startswith("peer")), default=None)
    reference = medians.get(REFERENCE)
    rows = []
    for path, ms in medians.items():
        _, low, high = spread(times[path])
        rows.append(
            {
                "model": name,
                "path": path,
                "ms": round(ms, 2),
                "p10": round(low, 2),
                "p90": round(high, 2),
                "ratio": round(ms / best_peer, 3) if best_peer else None,
                "to_ort": round(ms / reference, 3) if reference else None,
                "limit_ms": round(limit, 2),
                "of_limit": round(ms / limit, 2),
            }
        )
    columns = ("ms", "p10", "p90", "ratio", "to_ort", "limit_ms", "of_limit")
    rows += [{"model": name, "path": path, **dict.fromkeys(columns)} for path in missing]
    return rows


@contextlib.contextmanager
def _own_cache(folder: Path) -> Iterator[None]:
    """Keeps exported files and choices of backends that other code made out of the measurement."""
    before = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = str(folder)
    try:
        yield
    finally:
        del os.environ["XDG_CACHE_HOME"]
        if before is not None:
            os.environ["XDG_CACHE_HOME"] = before


if __name__ == "__main__":
    main()
