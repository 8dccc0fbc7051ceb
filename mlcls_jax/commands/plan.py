"""`mlcls plan --model NAME --chips N --kind v5e`: expected time and memory of a training step."""

import math
import platform
from dataclasses import dataclass
from typing import Literal

import jax

from mlcls_jax import config as schema
from mlcls_jax import usage
from mlcls_jax.config import REQUIRED, add_arguments, from_arguments, option
from mlcls_jax.errors import ConfigError
from mlcls_jax.planning.chips import CHIPS, Chip, find_chip
from mlcls_jax.planning.compile_report import Report, compile_step
from mlcls_jax.planning.costs import (
    LATENCY,
    LINK_SHARE,
    MEMORY_SHARE,
    MFU,
    PASSES,
    Counts,
    Layout,
    Prediction,
    bytes_of,
    bytes_per_chip,
    count,
    exchange,
    predict,
    resolve,
)

MAX_COMPILED = 8  # devices; programs for more are slow to compile
Row = tuple[str, str, str, str]  # what, value, unit, source


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """The arguments."""

    model: str = option(REQUIRED, "as in `mlcls models`")
    chips: int = option(REQUIRED, "how many", min=1)
    kind: str = option(REQUIRED, f"of chip: {', '.join(CHIPS)}")
    batch: int | None = option(None, "images per step; None: 32 per chip", min=1)
    size: int = option(448, "side of the images", min=1)
    classes: int = option(80, "number of labels", min=1)
    dtype: Literal["bfloat16", "float32"] = option("bfloat16", "compute type")
    mfu: float = option(MFU, "share of the peak that is reached", min=0.001, max=1)
    compile: bool = option(True, "check against the compiled program, which takes a minute or more")


def run(argv: list[str]) -> str:
    """Return the prediction for the arguments, as a table.

    Raises:
      ConfigError: no such model or chip, or the layout or batch does not fit the chips.
      SystemExit: the arguments are wrong, or ask for help.
    """
    parser = usage.parser(
        "plan",
        "Predict time and memory of a training step on chips that are not here.",
        "plan --model PP-LCNet_x1_0_ML --chips 8 --kind v5e",
    )
    add_arguments(parser, Arguments)
    add_arguments(parser, schema.Parallel)
    parsed = parser.parse_args(argv)
    args = from_arguments(Arguments, parsed)
    chip = find_chip(args.kind)
    layout = resolve(from_arguments(schema.Parallel, parsed), args.chips)
    replicas = layout.data * layout.fsdp
    batch = args.batch or 32 * replicas
    if batch % replicas:
        raise ConfigError(
            f"--batch={batch}: must be a multiple of the {replicas} chips that share it",
            f"{max(1, round(batch / replicas)) * replicas} for instance.",
        )
    model = schema.Model(
        name=args.model,
        num_classes=args.classes,
        image_size=(args.size, args.size),
        dtype=args.dtype,
    )
    jax.config.update("jax_platforms", "cpu")  # shapes need no accelerator
    counts = count(model)
    prediction = predict(counts, chip, layout, batch, mfu=args.mfu)
    sizes = " x ".join(f"{axis} {size}" for axis, size in layout._asdict().items())
    lines = [
        f"{args.model}, {args.size} x {args.size}, {args.classes} labels, {args.dtype}: {batch}"
        f" images per step on {args.chips} x {args.kind} ({sizes}).",
        "A prediction: nothing was measured on such a chip; docs/scaling.md has the formulas.",
        "",
        *_table(_rows(counts, prediction, chip, layout, args.mfu)),
    ]
    if not prediction.fits:
        lines += ["", f"DOES NOT FIT: at most {prediction.largest_batch} images per step do."]
    if args.compile:
        small = smaller(layout)
        images = batch // replicas * small.data * small.fsdp
        report = compile_step(model, small, images)
        lines += [
            "",
            f"Checked against the program that jax {jax.__version__} compiles for"
            f" {math.prod(small)} virtual CPU(s) ({platform.machine()}) as data {small.data} x fsdp"
            f" {small.fsdp} x tensor {small.tensor}, with as many images per device:",
            "",
            *_table(_checks(counts, report, small, images)),
        ]
    return "\n".join(lines)


def smaller(layout: Layout) -> Layout:
    """Return the layout if it is small enough to compile, else at most two along each axis."""
    if math.prod(layout) <= MAX_COMPILED:
        return layout
    return Layout(*(min(2, size) for size in layout))


def _rows(
    counts: Counts, prediction: Prediction, chip: Chip, layout: Layout, mfu: float
) -> list[Row]:
    sent = exchange(counts, layout)
    peak = f"{mfu:.0%} of the peak assumed"
    return [
        ("operations per image", number(counts.flops / 1e9), "GFLOP", "counted"),
        ("training state, all of it", number(bytes_of(counts.state) / 1e6), "MB", "counted"),
        ("  on each chip", number(prediction.state_bytes / 1e6), "MB", "counted"),
        ("gradients and copies", number(prediction.gradient_bytes / 1e6), "MB per chip", "counted"),
        ("activations", number(prediction.activation_bytes / 1e6), "MB per chip", "counted"),
        ("memory in all", number(_needed(prediction) / 1e9), "GB per chip",
         f"of {chip.memory / 1e9:.0f}, 90% usable assumed"),
        ("largest batch", f"{prediction.largest_batch:,}", "images a step", "from the above"),
        ("sent: gradients", number(sent.gradients / 1e6), "MB per chip", "counted, float32"),
        ("sent: parameters", number(sent.parameters / 1e6), "MB per chip", "counted, float32"),
        ("sent: activations", number(sent.activations / 1e6), "MB per image", "counted"),
        ("time: operations", number(prediction.compute * 1e3), "ms", peak),
        ("time: memory", number(prediction.memory * 1e3), "ms",
         f"{PASSES} passes, {MEMORY_SHARE:.0%} of the rate assumed"),
        ("time: exchange", number(prediction.exchange * 1e3), "ms",
         f"may hide; {LINK_SHARE:.0%} of the rate assumed"),
        ("time: waiting", number(prediction.waiting * 1e3), "ms",
         f"{LATENCY * 1e6:.0f} us an exchange assumed"),
        ("step", number(prediction.step * 1e3), "ms", "predicted"),
        ("speed", number(prediction.images_per_s), "images/s", "predicted, all chips"),
        ("exchange hides from", f"{max(1, math.ceil(prediction.hiding_batch)):,}",
         "images per chip", "predicted"),
    ]  # fmt: skip


def _checks(counts: Counts, report: Report, layout: Layout, batch: int) -> list[Row]:
    """Return counted and compiled numbers; where they differ, docs/scaling.md says why."""
    images = batch / (layout.data * layout.fsdp)
    sent = exchange(counts, layout)
    counted = sent.gradients + sent.parameters + sent.activations * images
    compiled = sum(collective.sent for collective in report.collectives)
    flops = counts.flops - counts.shared_flops * (1 - 1 / layout.tensor)
    inputs = images * (counts.image + counts.labels)
    state = bytes_per_chip(counts.state, layout, counts) + inputs
    return [
        ("operations per image", number(report.flops / images / 1e9), "GFLOP a device",
         f"counted {number(flops / 1e9)}"),
        ("state and batch", number(report.argument_bytes / 1e6), "MB per device",
         f"counted {number(state / 1e6)}"),
        ("temporary memory", number(report.temporary_bytes / 1e6), "MB per device",
         "a CPU's: bfloat16 is widened there"),
        ("bytes accessed", number(report.bytes_accessed / images / 1e6), "MB per image",
         "a CPU's: it fuses otherwise"),
        ("exchanges", f"{len(report.collectives)}", "a step", _kinds(report)),
        ("sent", number(compiled / 1e6), "MB per device", f"counted {number(counted / 1e6)}"),
    ]  # fmt: skip


def _kinds(report: Report) -> str:
    kinds = [collective.kind for collective in report.collectives]
    return ", ".join(f"{kinds.count(kind)} {kind}" for kind in sorted(set(kinds)))


def _needed(prediction: Prediction) -> float:
    return prediction.state_bytes + prediction.gradient_bytes + prediction.activation_bytes


def _table(rows: list[Row]) -> list[str]:
    what, value, unit = (max(len(row[i]) for row in rows) for i in range(3))
    return [f"{a:{what}}  {b:>{value}}  {c:{unit}}  {d}".rstrip() for a, b, c, d in rows]


def number(value: float) -> str:
    """Format with three digits or, if there are more, all before the point."""
    if value == 0 or value >= 100:
        return f"{value:,.0f}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(value)))}f}"
