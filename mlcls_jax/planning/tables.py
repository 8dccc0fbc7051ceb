"""The tables that `mlcls plan` prints."""

import math
from collections import defaultdict

from mlcls_jax.planning.chips import CHIPS, GIB, PRICES, Chip
from mlcls_jax.planning.compile_report import Refusal, Report
from mlcls_jax.planning.costs import (
    LATENCY,
    LINK_SHARE,
    MEMORY_SHARE,
    PASSES,
    TPU_PASSES,
    Counts,
    Layout,
    Prediction,
    assumed_mfu,
    bytes_of,
    bytes_per_chip,
    exchange,
)
from mlcls_jax.planning.topologies import COMPILERS, release_of, tpu_shape

Row = tuple[str, str, str, str]  # what, value, unit, source


def predicted_rows(
    counts: Counts, prediction: Prediction, chip: Chip, layout: Layout, mfu: float | None
) -> list[Row]:
    """Return what is counted and predicted, with its assumptions."""
    sent = exchange(counts, layout)
    dtype = "bfloat16" if counts.itemsize == 2 else "float32"
    is_tpu = chip.platform == "tpu"
    passes = TPU_PASSES if is_tpu else PASSES
    hiding = "gradients' sums never" if is_tpu and sent.gradients else "predicted"
    mfu = mfu or assumed_mfu(counts, chip)
    peak = f"{mfu:.0%} of the peak assumed"
    return [
        ("operations per image", number(counts.flops / 1e9), "GFLOP", "counted"),
        ("training state, all of it", number(bytes_of(counts.state) / 1e6), "MB", "counted"),
        ("  on each chip", number(prediction.state_bytes / 1e6), "MB", "counted"),
        ("gradients and copies", number(prediction.gradient_bytes / 1e6), "MB per chip", "counted"),
        ("activations", number(prediction.activation_bytes / 1e6), "MB per chip", "counted"),
        ("memory in all", number(_needed(prediction) / GIB), "GiB per chip",
         f"of {number(chip.usable / GIB)} that a program gets"),
        ("largest batch", f"{prediction.largest_batch:,}", "images a step", "from the above"),
        ("sent: gradients", number(sent.gradients / 1e6), "MB per chip", f"counted, {dtype}"),
        ("sent: parameters", number(sent.parameters / 1e6), "MB per chip", f"counted, {dtype}"),
        ("sent: activations", number(sent.activations / 1e6), "MB per image", "counted"),
        ("time: operations", number(prediction.compute * 1e3), "ms", peak),
        ("time: memory", number(prediction.memory * 1e3), "ms",
         f"{passes} passes, {MEMORY_SHARE:.0%} of the rate assumed"),
        ("time: exchange", number(prediction.exchange * 1e3), "ms",
         f"may hide; {LINK_SHARE:.0%} of the rate assumed"),
        ("time: waiting", number(prediction.waiting * 1e3), "ms",
         f"{LATENCY * 1e6:.0f} us an exchange assumed" + " and gradients' sums" * is_tpu),
        ("step", number(prediction.step * 1e3), "ms", "predicted"),
        ("speed", number(prediction.images_per_s), "images/s", "predicted, all chips"),
        ("exchange hides from", f"{max(1, math.ceil(prediction.hiding_batch)):,}",
         "images per chip", hiding),
    ]  # fmt: skip


def checked_rows(counts: Counts, report: Report, layout: Layout, batch: int) -> list[Row]:
    """Return counted and compiled numbers; where they differ, docs/scaling.md says why."""
    images = batch / (layout.data * layout.fsdp)
    sent = exchange(counts, layout)
    counted = sent.gradients + sent.parameters + sent.activations * images
    compiled = sum(collective.sent for collective in report.collectives)
    flops = counts.flops - counts.shared_flops * (1 - 1 / layout.tensor)
    inputs = images * (counts.image + counts.labels)
    state = bytes_per_chip(counts.state, layout, counts) + inputs
    return [
        ("operations per image", number((report.flops or 0) / images / 1e9), "GFLOP a device",
         f"counted {number(flops / 1e9)}"),
        ("state and batch", number(report.argument_bytes / 1e6), "MB per device",
         f"counted {number(state / 1e6)}"),
        ("temporary memory", number(report.temporary_bytes / 1e6), "MB per device",
         "a CPU's: bfloat16 is widened there"),
        ("bytes accessed", number((report.bytes_accessed or 0) / images / 1e6), "MB per image",
         "a CPU's: it fuses otherwise"),
        ("exchanges", f"{len(report.collectives)}", "a step", _kinds(report)),
        ("sent", number(compiled / 1e6), "MB per device", f"counted {number(counted / 1e6)}"),
    ]  # fmt: skip


def fits(chip: Chip, report: Report | Refusal) -> bool:
    """Return whether the program fits: libtpu refuses what does not, the CUDA compiler nothing."""
    if isinstance(report, Refusal):
        return False
    return chip.platform == "tpu" or report.peak_bytes <= chip.usable


def cost(kind: str, chips: int) -> Row:
    """Return what an hour costs, where that was published."""
    if kind not in PRICES:
        return "cost", "not known", "", ""
    told = "on demand in us-central1, November 2026; differs by region and day"
    return "cost", number(PRICES[kind] * chips), "$ an hour", told


def seconds(chip: Chip, report: Report) -> float | None:
    """Return the TPU compiler's estimate of a step without its exchanges."""
    return report.cycles / chip.clock if report.cycles and chip.clock else None


def by_kind(report: Report) -> dict[str, dict[str, float]]:
    """Return how many exchanges of each kind there are, what they send, and what of that hides."""
    found: dict[str, dict[str, float]] = defaultdict(
        lambda: {"count": 0, "sent_bytes": 0, "hidden": 0, "hidden_bytes": 0}
    )
    for one in sorted(report.collectives):
        row = found[one.kind]
        row["count"] += 1
        row["sent_bytes"] += one.sent
        row["hidden"] += one.is_hidden
        row["hidden_bytes"] += one.is_hidden * one.sent
    return dict(found)


def compiled(kind: str, layout: Layout, report: Report | Refusal) -> list[str]:
    """Return what the chip's own compiler says of the step."""
    chip = CHIPS[kind]
    devices = math.prod(layout)
    shape = f"{devices} GPU(s)"
    if chip.platform == "tpu":
        shape = tpu_shape(kind, devices // chip.devices)
    head = f"Compiled for {kind} {shape} by {release_of(COMPILERS[chip.platform])}, not run:"
    if isinstance(report, Refusal):
        return [head, "", f"DOES NOT FIT, the compiler says: {report.words}"]
    held = report.argument_bytes + report.temporary_bytes
    offered = f"of {number(chip.usable / GIB)} that a program gets"
    if chip.platform == "gpu":
        offered += "; JAX takes 75% unless XLA_PYTHON_CLIENT_MEM_FRACTION says more"
    estimate = seconds(chip, report)
    rows = [
        ("memory", "fits" if fits(chip, report) else "DOES NOT FIT", "", ""),
        ("  at its peak", number(report.peak_bytes / GIB), "GiB a device", offered),
        ("  arguments and temporaries", number(held / GIB), "GiB a device", ""),
        ("operations", number(report.flops / 1e9) if report.flops else "-", "GFLOP a device", ""),
        ("padding", number(report.padding), "x", "large arrays as laid out / their own bytes"),
        ("time without exchanges", number(estimate * 1e3) if estimate else "-", "ms",
         "the compiler's cycles" if estimate else "this compiler estimates none"),
    ]  # fmt: skip
    rows += [
        (f"exchange: {name}", f"{row['count']:.0f}", f"{number(row['sent_bytes'] / 1e6)} MB sent",
         f"{row['hidden']:.0f} beside other work, {number(row['hidden_bytes'] / 1e6)} MB")
        for name, row in by_kind(report).items()
    ]  # fmt: skip
    rows += [
        ("state overwritten in place", f"{report.donated}", "arrays", f"of {report.state_arrays}"),
        ("float64", f"{report.float64}", "arrays", ""),
        ("waits for the host", f"{report.callbacks}", "", ""),
    ]
    return [head, "", *table(rows)]


def _kinds(report: Report) -> str:
    kinds = [collective.kind for collective in report.collectives]
    return ", ".join(f"{kinds.count(kind)} {kind}" for kind in sorted(set(kinds)))


def _needed(prediction: Prediction) -> float:
    return prediction.state_bytes + prediction.gradient_bytes + prediction.activation_bytes


def table(rows: list[Row]) -> list[str]:
    """Return the rows as lines with columns."""
    what, value, unit = (max(len(row[i]) for row in rows) for i in range(3))
    return [f"{a:{what}}  {b:>{value}}  {c:{unit}}  {d}".rstrip() for a, b, c, d in rows]


def number(value: float) -> str:
    """Format with three digits or, if there are more, all before the point."""
    if value == 0 or value >= 100:
        return f"{value:,.0f}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(value)))}f}"
