"""One training step at 448 x 448: ours against PyTorch, eager and compiled; and where ours goes.

python -m benchmarks.train [--models NAME ...] [--batch 8] [--size 448] [--rounds 3]
    [--dtype float32] [--json FILE]
python -m benchmarks.train --profile [--models NAME ...]    ours by kind of instruction (CPUs)
python -m benchmarks.train --sweep --dtype bfloat16         the best batch of each (GPUs)

The step is that of `mode=train` with its default configuration: uint8 images in, asymmetric loss,
AdamW, averaged weights, the old state's memory reused. PyTorch's does the same, but for the norm of
the gradient, which it does not report: channels_last, fused AdamW where there is one, the average
by foreach, and autocast for bfloat16. Models are timm's under an ML-Decoder head
(`benchmarks/peers/pytorch.py`).

`limit` is what three forward passes of multiply-accumulates would take at the rate of a large
matrix product, measured in turn with the others on CPUs, and at the vendor's bfloat16 peak on
accelerators; `used` is the share of that rate. `cold_s` and `cached_s`: seconds to trace and
compile our step with an empty and a full cache, each in a process of its own.
"""

import argparse
import collections
import copy
import functools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from benchmarks.our_step import Case, make_batch, make_step
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
from benchmarks.train_profile import profile
from mlcls_jax import config as schema
from mlcls_jax.imagenet import MEAN, STD
from mlcls_jax.models import Network
from mlcls_jax.models.counting import count_macs
from mlcls_jax.planning.chips import CHIPS
from mlcls_jax.start import collect_rarely

try:
    import torch
except ImportError:
    torch = None

OURS, EAGER, COMPILED, LIMIT = "mlcls_jax", "PyTorch", "torch.compile", "limit"
PATHS = (OURS, EAGER, COMPILED)
INSTALL = "pip install torch timm"
LARGEST_BATCH = 4096


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=448, help="side of the images")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--paths", nargs="+", default=PATHS, choices=PATHS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--calls", type=int, default=2, help="steps a turn")
    parser.add_argument("--no_compile_times", action="store_true")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--sweep", action="store_true")
    parser.add_argument("--json")
    parser.add_argument("--compile_only", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    # Ours and PyTorch share the accelerator's memory.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    cases = [
        Case(model, arguments.batch, arguments.size, arguments.dtype) for model in arguments.models
    ]
    if arguments.compile_only:
        collect_rarely()  # as `mlcls` does
        print(json.dumps([make_step(case).seconds for case in cases]))
        return
    if arguments.profile:
        rows = [{"model": case.model} | row for case in cases for row in profile(case)]
        if arguments.json:
            Path(arguments.json).write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
        return
    if arguments.sweep:
        rows = [row for case in cases for row in sweep(case, arguments.paths)]
        print_table(f"Best batch, {_facts()}", rows, arguments.json)
        return
    rows, missing = [], []
    for case in cases:
        found, lacking = compare(case, arguments.paths, arguments.rounds, arguments.calls)
        if not arguments.no_compile_times and OURS in arguments.paths:
            found[0] |= compile_seconds(case)
        rows += found
        missing += lacking
        for row in found:
            print(row, file=sys.stderr)  # a long run shows what it has
    columns = {column: None for row in rows for column in row}
    rows = [columns | row for row in rows]
    print_table(f"{_title(cases[0]).partition(',')[2].strip()}; {_facts()}", rows, arguments.json)
    for line in dict.fromkeys(missing):
        print(line)


def compare(
    case: Case, paths: tuple[str, ...], rounds: int, calls: int
) -> tuple[list[dict[str, object]], list[str]]:
    """A row a path, and what could not be measured."""
    turns: dict[str, Turn] = {}
    missing = []
    for path in paths:
        try:
            turns[path] = _turn(*(ours(case) if path == OURS else theirs(case, path)))
        except ImportError as error:
            missing.append(f"{path}: not measured, {error.name} is missing: {INSTALL}")
        except Exception as error:  # a peer that does not run must not hide the others' numbers
            if path == OURS:
                raise
            said = (str(error).splitlines() or [""])[0]
            missing.append(f"{path}, {case.model}: failed, {type(error).__name__}: {said}")
    model = schema.Model(name=case.model, num_classes=CLASSES, image_size=(case.size, case.size))
    flops = 2 * 3 * count_macs(Network.of(model), case.size) * case.batch
    if peak := _vendor_peak():
        times = in_turn(turns, rounds=rounds, calls=calls) | {LIMIT: [1e3 * flops / peak]}
    else:
        product, macs = multiply() if jax.default_backend() == "cpu" else _multiply_there(case)
        turns[LIMIT] = timed(product)
        times = in_turn(turns, rounds=rounds, calls=calls)
        times[LIMIT] = [ms * flops / (2 * macs) for ms in times[LIMIT]]
    medians = {path: spread(values)[0] for path, values in times.items()}
    peers = [medians[path] for path in (EAGER, COMPILED) if path in medians]
    rows = []
    for path, values in times.items():
        middle, low, high = spread(values)
        rows.append(
            {
                "model": case.model,
                "path": path,
                "ms": round(middle, 2),
                "p10_ms": round(low, 2),
                "p90_ms": round(high, 2),
                "images_per_s": round(1e3 * case.batch / middle, 1),
                "used": round(medians[LIMIT] / middle, 3),
                "ratio": round(middle / min(peers), 3) if peers else None,
            }
        )
    return rows, missing


def compile_seconds(case: Case) -> dict[str, float]:
    """Seconds to trace and compile our step without and with a cached program, once each."""
    command = [sys.executable, "-m", "benchmarks.train", "--compile_only"]
    for name, value in (("models", case.model), *case._asdict().items()):
        command += [] if name == "model" else [f"--{name}", str(value)]
    seconds = {}
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": folder}
        for name in ("cold_s", "cached_s"):
            done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE)
            seconds[name] = round(json.loads(done.stdout.splitlines()[-1])[0], 2)
    return seconds


def sweep(case: Case, paths: tuple[str, ...]) -> list[dict[str, object]]:
    """Each path at batches of powers of two until memory ends, in processes of their own."""
    rows = []
    for path in paths:
        batch = case.batch
        while batch <= LARGEST_BATCH:
            command = [sys.executable, "-m", "benchmarks.train", "--no_compile_times"]
            command += ["--models", case.model, "--paths", path, "--batch", str(batch)]
            command += ["--size", str(case.size), "--dtype", case.dtype, "--calls", "10"]
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder, "rows.json")
                done = subprocess.run([*command, "--json", str(file)], capture_output=True)
                measured = json.loads(file.read_text()) if done.returncode == 0 else []
            found = [row for row in measured if row["path"] == path]
            if not found:
                said = (done.stderr or done.stdout).decode(errors="replace").strip()
                print(f"{path}, batch {batch}: {said.rpartition(chr(10))[2]}", file=sys.stderr)
                break
            rows += [{"batch": batch} | row for row in found]
            batch *= 2
    best: dict[str, float] = collections.defaultdict(float)
    for row in rows:
        best[row["path"]] = max(best[row["path"]], row["images_per_s"])
    return [row | {"best": row["images_per_s"] == best[row["path"]]} for row in rows]


def _turn(step: Callable[[], object], wait: Callable[[object], object]) -> Turn:
    """Milliseconds of a step. On accelerators steps are queued, and their mean is what counts."""
    step_and_wait = timed(lambda: wait(step()))
    step_and_wait(1)  # compiles, so that what fails does so here
    if jax.default_backend() == "cpu":
        return step_and_wait

    def turn(calls: int) -> list[float]:
        wait(step())
        began = time.perf_counter()
        for _ in range(calls):
            result = step()
        wait(result)
        return [1e3 * (time.perf_counter() - began) / calls]

    return turn


def _vendor_peak() -> float | None:
    """FLOP/s of the accelerator in bfloat16; None where it is not known, or on CPUs."""
    kind = jax.devices()[0].device_kind.lower()
    return next((chip.flops for name, chip in CHIPS.items() if name.lower() in kind), None)


def _multiply_there(case: Case, size: int = 8192) -> tuple[Callable[[], object], int]:
    """A large matrix product on the accelerator, and its multiply-accumulates."""
    x = jax.numpy.ones((size, size), case.dtype)
    product = jax.jit(jax.numpy.matmul)
    return lambda: jax.block_until_ready(product(x, x)), size**3


def _title(case: Case) -> str:
    return f"{case.model}, training, {case.size} x {case.size}, batch {case.batch}, {case.dtype}"


def _facts() -> str:
    return f"{jax.devices()[0].device_kind}, {describe('jax', 'torch', 'timm')}"


def ours(case: Case) -> tuple[Callable[[], object], Callable[[object], object]]:
    """Our step, and how to wait for what it gives."""
    step = make_step(case)
    state = step.state

    def run() -> object:
        nonlocal state
        state, numbers = step.compiled(state, step.batch)
        return state, numbers

    return run, jax.block_until_ready


def theirs(case: Case, path: str) -> tuple[Callable[[], object], Callable[[object], object]]:
    """PyTorch's step, and how to wait for it.

    Raises:
      ImportError: PyTorch or timm is missing.
    """
    if torch is None:
        raise ImportError(name="torch")
    from benchmarks.peers.pytorch import asymmetric_loss, build, decay_groups

    torch.set_num_threads(
        os.cpu_count() if not hasattr(os, "sched_getaffinity") else len(os.sched_getaffinity(0))
    )
    device = "cpu" if jax.default_backend() == "cpu" else "cuda"
    if device == "cuda" and not torch.cuda.is_available():
        raise RuntimeError("this PyTorch finds no GPU, on which ours runs")
    model = build(case.model, CLASSES).to(device, memory_format=torch.channels_last).train()
    average = copy.deepcopy(model).requires_grad_(False)
    config = schema.Config()
    groups = decay_groups(model, config.optimizer.weight_decay)
    optimizer = torch.optim.AdamW(groups, lr=config.optimizer.learning_rate, fused=True)
    old, new = (
        [x for x in (*m.parameters(), *m.buffers()) if x.is_floating_point()]
        for m in (average, model)
    )
    batch = make_batch(case)
    images, targets = (torch.from_numpy(batch[key]).to(device) for key in ("image", "target"))
    mean, std = (torch.tensor(x, device=device)[:, None, None] for x in (MEAN, STD))
    autocast = functools.partial(
        torch.autocast, device, torch.bfloat16, enabled=case.dtype == "bfloat16"
    )

    def objective(images: Any, targets: Any) -> Any:
        # uint8 [B, H, W, 3] is [B, 3, H, W] in channels_last already.
        x = (images.permute(0, 3, 1, 2).float() / 255 - mean) / std
        with autocast():
            logits = model(x)
        return asymmetric_loss(logits.float(), targets, config.loss)

    if path == COMPILED:
        objective = torch.compile(objective)

    def run() -> object:
        optimizer.zero_grad(set_to_none=True)
        loss = objective(images, targets)
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(old, new, 1 - config.train.ema_decay)
        return loss

    def wait(_: object) -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    return run, wait


if __name__ == "__main__":
    main()
