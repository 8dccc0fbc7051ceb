"""What the benchmarks share: taking turns, medians, and one table."""

import datetime
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path

import numpy as np

MODELS = (
    "PP-LCNet_x1_0_ML",
    "PP-HGNetV2-B0_ML",
    "PP-HGNetV2-B4_ML",
    "ResNet50_ML",
    "CLIP_vit_base_patch16_448_ML",
)
CLASSES = 80
FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "asimd", "sve")
Turn = Callable[[int], Sequence[float]]  # number of calls → milliseconds of each


def take_turns(
    candidates: dict[str, Callable[[], object]], *, rounds: int = 7
) -> dict[str, list[float]]:
    """Milliseconds of each candidate, A B A B, after one warm-up call each."""
    for call in candidates.values():
        call()
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, call in candidates.items():
            began = time.perf_counter()
            call()
            times[name].append(1000 * (time.perf_counter() - began))
    return times


def timed(call: Callable[[], object]) -> Turn:
    """Milliseconds of calls in a row, after one that warms up what the others' turns cooled down.

    Thread pools of several runtimes wait busily for a while after their last call; the first call
    of a turn bears it.
    """

    def turn(calls: int) -> list[float]:
        times = []
        for _ in range(calls + 1):
            began = time.perf_counter()
            call()
            times.append(1000 * (time.perf_counter() - began))
        return times[1:]

    return turn


def in_turn(turns: Mapping[str, Turn], *, rounds: int, calls: int = 3) -> dict[str, list[float]]:
    """Milliseconds of each candidate, A B A B, `calls` at a time, after a round that is dropped."""
    times: dict[str, list[float]] = {name: [] for name in turns}
    for number in range(rounds + 1):
        for name, turn in turns.items():
            measured = turn(calls)
            if number > 0:
                times[name] += measured
    return times


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Median, and the 10th and 90th percentile."""
    low, middle, high = np.percentile(values, (10, 50, 90))
    return float(middle), float(low), float(high)


def multiply(size: int = 1536) -> tuple[Callable[[], object], int]:
    """NumPy's product of two float32 matrices, and its multiply-accumulates: a machine's limit."""
    rng = np.random.default_rng(0)
    left, right = (rng.random((size, size), np.float32) for _ in range(2))
    out = np.empty((size, size), np.float32)
    return lambda: np.matmul(left, right, out=out), size**3


def describe(*packages: str) -> str:
    """The day, the releases of `packages`, and the cores: for the line above a table."""
    versions = []
    for package in packages:
        try:
            versions.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            continue
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    facts = (datetime.date.today().isoformat(), *versions, f"{cores} cores", *_features())
    return ", ".join(facts)


def _features() -> list[str]:
    """What this processor can do, of what matters here; nothing where it does not say."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:  # not Linux
        return []
    lines = (x for x in text.splitlines() if x.lower().startswith(("flags", "features")))
    flags = next(lines, "").split()
    return [name for name in FEATURES if name in flags]


def rows_of(case: str, times: dict[str, list[float]], *, peer: str) -> list[dict[str, object]]:
    """A row a candidate: median, spread, and how many times the peer's median it is."""
    medians = {name: statistics.median(values) for name, values in times.items()}
    return [
        {
            "case": case,
            "path": name,
            "ms": round(medians[name], 3),
            "fastest_ms": round(min(values), 3),
            "slowest_ms": round(max(values), 3),
            "ratio": round(medians[name] / medians[peer], 3),
        }
        for name, values in times.items()
    ]


def print_table(title: str, rows: list[dict[str, object]], json_file: str | None) -> None:
    """The rows as text; also as JSON where a file is named."""
    print(f"{title}  ({platform.processor() or platform.machine()}, {platform.platform()})")
    columns = list(rows[0])
    texts = [{c: "-" if row[c] is None else str(row[c]) for c in columns} for row in rows]
    widths = {c: max(len(c), *(len(row[c]) for row in texts)) for c in columns}
    for row in ({c: c for c in columns}, *texts):
        cells = (
            row[c].ljust(widths[c]) if c in ("case", "model", "path") else row[c].rjust(widths[c])
            for c in columns
        )
        print("  ".join(cells).rstrip())
    if json_file:
        Path(json_file).write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
