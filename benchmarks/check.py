"""The check of a data set, headers only: seconds and memory as the lists grow.

python -m benchmarks.check [--lines N] [--classes K] [--threads T] [--json FILE]

Every size is checked in a process of its own. The images are small JPEGs of equal size and
different content, so that all of them are hashed, too.
"""

import argparse
import io
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.timing import print_table
from mlcls_jax.config import Data
from mlcls_jax.data.checks import check

SIDE = 64  # of an image
DIFFERENT_ROWS = 1000
MEAN_LABELS = 3  # of an image


def main() -> None:
    """Check a quarter, a half and all of the lines, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=100_000)
    parser.add_argument("--classes", type=int, default=2000)
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--json")
    parser.add_argument("--folder", help=argparse.SUPPRESS)  # set: check it, and say what it took
    arguments = parser.parse_args()
    if arguments.folder:
        print(json.dumps(_measure(arguments.folder, arguments.threads)))
        return
    rows = []
    for lines in (arguments.lines // 4, arguments.lines // 2, arguments.lines):
        with tempfile.TemporaryDirectory() as folder:
            _write(Path(folder), lines, arguments.classes)
            command = [sys.executable, "-m", "benchmarks.check", "--folder", folder]
            command += ["--threads", str(arguments.threads)]
            printed = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
        taken = json.loads(printed)
        rows.append(
            {
                "lines": lines,
                "classes": arguments.classes,
                "seconds": round(taken["seconds"], 2),
                "lines_per_s": round(lines / taken["seconds"]),
                "growth_mib": round(taken["growth"] / 2**20, 1),
                "passed": taken["passed"],
            }
        )
    print_table("check_dataset, headers only", rows, arguments.json)


def _measure(folder: str, threads: int) -> dict[str, object]:
    """Seconds of one check, and by how many bytes the process grew at its peak."""
    before, began = _memory("VmRSS"), time.perf_counter()
    report = check(folder, Data(dir=folder), pixels=False, threads=threads)
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "growth": _memory("VmHWM") - before, "passed": report.passed}


def _memory(field: str) -> int:
    """Bytes of this process in memory, now (VmRSS) or at most so far (VmHWM); Linux only."""
    # Not getrusage, whose peak includes that of the parent before this process began.
    (line,) = (x for x in Path("/proc/self/status").read_text().splitlines() if field in x)
    return int(line.split()[1]) * 1024


def _write(root: Path, lines: int, classes: int) -> None:
    """A good data set with four training images to a validation image."""
    rng = np.random.default_rng(0)
    rows = (rng.random((DIFFERENT_ROWS, classes)) < MEAN_LABELS / classes).astype(int)
    rows[np.arange(classes) % DIFFERENT_ROWS, np.arange(classes)] = 1  # every label occurs
    texts = [",".join(map(str, row)) for row in rows.tolist()]
    stream = io.BytesIO()
    pixels = rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    Image.fromarray(pixels).save(stream, "JPEG", comment=b"%08d" % 0)
    before, _, after = stream.getvalue().partition(b"%08d" % 0)
    (root / "images").mkdir()
    (root / "label.txt").write_text("".join(f"{k} label {k}\n" for k in range(classes)))
    for split, start, stop in (("train", 0, lines * 4 // 5), ("val", lines * 4 // 5, lines)):
        with (root / f"{split}.txt").open("w") as file:
            for i in range(start, stop):
                (root / f"images/{i:08}.jpg").write_bytes(before + b"%08d" % i + after)
                file.write(f"images/{i:08}.jpg\t{texts[i % DIFFERENT_ROWS]}\n")


if __name__ == "__main__":
    main()
