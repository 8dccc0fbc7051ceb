"""What the benchmarks share: taking turns, medians, and one table."""

import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path


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
    widths = {c: max(len(c), *(len(str(row[c])) for row in rows)) for c in columns}
    for row in ({c: c for c in columns}, *rows):
        cells = (
            str(row[c]).ljust(widths[c]) if c in ("case", "path") else str(row[c]).rjust(widths[c])
            for c in columns
        )
        print("  ".join(cells))
    if json_file:
        Path(json_file).write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
