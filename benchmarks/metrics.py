"""Metrics at scale: MultiLabelMAP and all metrics, seconds and memory, against scikit-learn.

python -m benchmarks.metrics [--sizes 40000x80 1000000x80 125000x9000] [--targets uint8]
    [--rounds 3] [--json FILE]

Sizes are images x classes, each measured in a process of its own; 125,000 x 9,000 is that of
OpenImages. The arrays are filled in blocks. `peak_gib` is the most memory that the process has had
once that row was done, scores and targets included (Linux only). scikit-learn takes long where
there are many classes, so both are compared on as many as `--peer_entries` allow; then ours runs on
all of them, which leaves a peak of ours alone.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from sklearn.metrics import average_precision_score

from benchmarks.timing import print_table, rows_of, take_turns
from mlcls_jax.metrics import mean_average_precision, multilabel_metrics
from mlcls_jax.metrics.bounds import mean_precision_bounds

SIZES = ("40000x80", "1000000x80", "125000x9000")
PRESENT = 0.04
BLOCK = 2**22  # entries drawn at a time
LIMIT_GIB = 16


def main() -> None:
    """Measure each size in a process of its own, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sizes", nargs="+", default=SIZES, help="images x classes")
    parser.add_argument("--targets", default="uint8", help="type of the targets")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peer_entries", type=int, default=10_000_000)
    parser.add_argument("--json")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.alone:
        (size,) = arguments.sizes
        images, classes = map(int, size.split("x"))
        rows = _measure(
            images, classes, arguments.targets, arguments.rounds, arguments.peer_entries
        )
        print(json.dumps(rows))
        return
    rows = []
    for size in arguments.sizes:
        command = [sys.executable, "-m", "benchmarks.metrics", "--alone", "--sizes", size]
        for name in ("targets", "rounds", "peer_entries"):
            command += [f"--{name}", str(getattr(arguments, name))]
        printed = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
        rows += json.loads(printed)
        print(f"{size}: done", file=sys.stderr)  # the largest takes minutes
    title = f"Metrics, float32 scores, {arguments.targets} targets; limit {LIMIT_GIB} GiB"
    print_table(title, rows, arguments.json)
    if max(row["peak_gib"] for row in rows) > LIMIT_GIB:
        sys.exit(1)


def _measure(
    images: int, classes: int, dtype: str, rounds: int, peer_entries: int
) -> list[dict[str, object]]:
    """The rows of one size: ours on all classes, then ours and scikit-learn on the first ones."""
    scores, targets = _draw(images, classes, np.dtype(dtype))
    rows = []
    works: dict[str, Callable[[], object]] = {
        "mAP": lambda: mean_average_precision(scores, targets),
        "all metrics": lambda: multilabel_metrics(scores, targets),
    }
    if np.issubdtype(targets.dtype, np.signedinteger):  # --targets=int8: a tenth is missing
        targets[::10] = -1
        works["bounds of mAP"] = lambda: mean_precision_bounds(scores, targets)
    for work, call in works.items():
        times = _times(call, rounds if scores.size <= 10**8 else 1)
        row = rows_of(f"{images} x {classes}, {work}", {"mlcls_jax": times}, peer="mlcls_jax")[0]
        rows.append(row | {"ratio": None, "peak_gib": _peak_gib()})
    few = max(1, min(classes, peer_entries // images))
    scores, targets = (np.ascontiguousarray(array[:, :few]) for array in (scores, abs(targets)))
    values: dict[str, float] = {}

    def ours() -> None:
        values["ours"] = mean_average_precision(scores, targets)

    def peer() -> None:
        values["peer"] = average_precision_score(targets, scores, average="macro")

    times = take_turns({"mlcls_jax": ours, "scikit-learn": peer}, rounds=rounds)
    np.testing.assert_allclose(values["ours"], values["peer"], rtol=1e-9)
    compared = rows_of(f"{images} x {few}, mAP", times, peer="scikit-learn")
    return rows + [row | {"peak_gib": _peak_gib()} for row in compared]


def _draw(images: int, classes: int, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """Scores float32 and targets [N, K]; a present label's score is higher on average."""
    rng = np.random.default_rng(0)
    scores = np.empty((images, classes), np.float32)
    targets = np.empty((images, classes), dtype)
    height = max(1, BLOCK // classes)
    for start in range(0, images, height):
        rows = slice(start, start + height)
        present = rng.random(scores[rows].shape, np.float32) < PRESENT
        targets[rows] = present
        scores[rows] = rng.random(present.shape, np.float32) ** np.where(present, 0.5, 2)
    return scores, targets


def _times(call: Callable[[], object], rounds: int) -> list[float]:
    """Milliseconds of each round."""
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        call()
        times.append(1000 * (time.perf_counter() - began))
    return times


def _peak_gib() -> float:
    """What this process has had in memory at most so far."""
    # Not getrusage, whose peak includes that of the parent before this process began.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
    return round(int(line.split()[1]) / 2**20, 2)


if __name__ == "__main__":
    main()
