"""The answer to what is asked of a plan: the prediction, and what a compiler says of it."""

import json
import math
import platform
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax

from mlcls_jax import config as schema
from mlcls_jax.errors import ConfigError, install_hint
from mlcls_jax.planning import tables, topologies
from mlcls_jax.planning.chips import CHIPS, IMAGES, TPU_IMAGES, Chip, name_of
from mlcls_jax.planning.compile_report import Refusal, Report, compile_step
from mlcls_jax.planning.costs import Counts, Layout, Prediction, count, predict, resolve
from mlcls_jax.planning.plan_options import PlanOptions
from mlcls_jax.planning.search import largest

MAX_COMPILED = 8  # virtual CPUs; programs for more are slow to compile
FAR = 8  # times the largest batch of the formulas, beyond which nothing is compiled
HOW_LONG = {"tpu": "1 to 10 minutes", "gpu": "half a minute to 5 minutes"}  # a compilation


@dataclass(frozen=True)
class Plan:
    """What is to be planned."""

    model: schema.Model
    train: schema.Train
    kind: str
    layout: Layout
    batch: int  # over all chips
    counts: Counts
    mfu: float | None

    @property
    def chip(self) -> Chip:
        return CHIPS[self.kind]

    @property
    def replicas(self) -> int:
        """Devices that share the images of a batch."""
        return self.layout.data * self.layout.fsdp

    @property
    def prediction(self) -> Prediction:
        return predict(self.counts, self.chip, self.layout, self.batch, mfu=self.mfu)


def answer(args: PlanOptions, parallel: schema.Parallel, config: schema.Config | None) -> str:
    """Return the prediction as a table or as JSON.

    Raises:
      ConfigError: no such model or chip, or the layout or batch does not fit the chips; or
        `must_fit`, and it does not.
    """
    jax.config.update("jax_platforms", "cpu")  # shapes need no accelerator
    plan = _plan(args, parallel, config)
    compiler = topologies.COMPILERS[plan.chip.platform]
    # What is far too large is no matter of the compiler's, and may be more than it can count.
    compiles = args.compile and plan.batch <= FAR * max(plan.prediction.largest_batch, 1)
    is_real = compiles and topologies.is_installed(compiler)
    if args.find_batch:
        if not is_real:
            raise ConfigError(
                f"--find_batch needs the compiler for {plan.kind}, and --compile",
                install_hint(compiler.extra),
            )
        plan, report = _find_batch(plan, args.program)
    else:
        report = _compile(plan, args.program) if is_real else None
    fits = _fits(plan, report)
    if args.json:
        text = json.dumps(_numbers(plan, report, fits), indent=2)
    else:
        parts = [_predicted(plan), [""]]
        if report is not None:
            parts.append(tables.compiled(plan.kind, plan.layout, report))
        elif compiles:
            parts.append(_checked(plan))
        text = "\n".join(line for part in parts for line in part).rstrip()
    if args.must_fit and not fits:
        raise ConfigError(f"{text}\n\n{plan.batch} images per step do not fit", "Try --batch.")
    return text


def _plan(args: PlanOptions, parallel: schema.Parallel, config: schema.Config | None) -> Plan:
    kind = name_of(args.kind)
    layout = resolve(parallel, args.chips * CHIPS[kind].devices)
    replicas = layout.data * layout.fsdp
    given: dict[str, Any] = {}
    given |= {"name": args.model} if args.model else {}
    given |= {"image_size": (args.size, args.size)} if args.size else {}
    given |= {"dtype": args.dtype} if args.dtype else {}
    if config is None:
        default = schema.Model(image_size=(448, 448), dtype="bfloat16")
    else:
        default = config.model
    classes = args.classes or default.num_classes or 80
    images = TPU_IMAGES if CHIPS[kind].platform == "tpu" else IMAGES
    batch = args.batch or (config.train.batch_size if config else images * replicas)
    if batch % replicas:
        raise ConfigError(
            f"--batch={batch}: must be a multiple of the {replicas} chips that share it",
            f"{max(1, round(batch / replicas)) * replicas} for instance.",
        )
    model = replace(default, num_classes=classes, **given)
    train = config.train if config else schema.Train()
    return Plan(model, train, kind, layout, batch, count(model, CHIPS[kind].platform), args.mfu)


def _compile(plan: Plan, program: str | None) -> Report | Refusal:
    """Ask the chip's own compiler, and say on stderr that this takes its time."""
    compiler = topologies.COMPILERS[plan.chip.platform]
    if plan.chip.platform == "tpu":  # refused here, since the other process has a traceback to show
        topologies.tpu_shape(plan.kind, math.prod(plan.layout) // plan.chip.devices)
    began = time.monotonic()
    _tell(
        f"{topologies.release_of(compiler)} compiles {plan.batch} images for"
        f" {math.prod(plan.layout)} devices of {plan.kind}:"
        f" {HOW_LONG[plan.chip.platform]} on two idle cores "
    )
    try:
        return compile_step(
            plan.model,
            plan.layout,
            plan.batch,
            train=plan.train,
            kind=plan.kind,
            tick=lambda: _tell("."),
            program=Path(program) if program else None,
        )
    finally:
        _tell(f" {time.monotonic() - began:.0f} s\n")


def _tell(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()


def _find_batch(plan: Plan, program: str | None) -> tuple[Plan, Report | Refusal]:
    """Return the plan with the largest batch that fits, and its numbers."""
    tried: dict[int, Report | Refusal] = {}
    guess = plan.prediction.largest_batch // plan.replicas

    def fits(images: int) -> bool:
        tried[images] = _compile(replace(plan, batch=images * plan.replicas), program)
        is_in = _fits(plan, tried[images])
        _tell(f"{images} images a device {'fit' if is_in else 'do not fit'}\n")
        return is_in

    images = largest(fits, guess, grain=8 if guess >= 32 else 1)
    return replace(plan, batch=max(images, 1) * plan.replicas), tried[images or min(tried)]


def _fits(plan: Plan, report: Report | Refusal | None) -> bool:
    """Return whether it fits, as the compiler says or else the prediction."""
    if report is None:
        return plan.prediction.fits
    return tables.fits(plan.chip, report)


def _predicted(plan: Plan) -> list[str]:
    model, prediction = plan.model, plan.prediction
    sizes = " x ".join(f"{axis} {size}" for axis, size in plan.layout._asdict().items())
    chips = math.prod(plan.layout) // plan.chip.devices
    lines = [
        f"{model.name}, {model.image_size[0]} x {model.image_size[1]}, {model.num_classes} labels,"
        f" {model.dtype}: {plan.batch} images per step on {chips} x {plan.kind} ({sizes}).",
        "A prediction: nothing was measured on such a chip; docs/scaling.md has the formulas.",
        "",
        *tables.table(
            [
                *tables.predicted_rows(plan.counts, prediction, plan.chip, plan.layout, plan.mfu),
                tables.cost(plan.kind, chips),
            ]
        ),
    ]
    if not prediction.fits:
        lines += ["", f"DOES NOT FIT: at most {prediction.largest_batch} images per step do."]
    return lines


def _checked(plan: Plan) -> list[str]:
    """Return numbers of the program for CPUs beside the counted ones."""
    compiler = topologies.COMPILERS[plan.chip.platform]
    small = smaller(plan.layout)
    images = plan.batch // plan.replicas * small.data * small.fsdp
    _tell("Compiling the step for virtual CPUs, to check what is counted ")
    report = compile_step(plan.model, small, images, train=plan.train, tick=lambda: _tell("."))
    _tell("\n")
    assert isinstance(report, Report)  # memory of CPUs has no end
    return [
        f"The compiler for {plan.kind} is not installed. {install_hint(compiler.extra)}",
        f"Checked instead against the program that jax {jax.__version__} compiles for"
        f" {math.prod(small)} virtual CPU(s) ({platform.machine()}) as data {small.data} x fsdp"
        f" {small.fsdp} x tensor {small.tensor}, with as many images per device:",
        "",
        *tables.table(tables.checked_rows(plan.counts, report, small, images)),
    ]


def _numbers(plan: Plan, report: Report | Refusal | None, fits: bool) -> dict[str, Any]:
    """Return what `--json` prints."""
    compiled: dict[str, Any] | None = None
    if isinstance(report, Refusal):
        compiled = {"refused": report.words}
    elif report:
        compiled = {**report._asdict(), "exchanges": tables.by_kind(report)}
        del compiled["collectives"]
        compiled["seconds"] = tables.seconds(plan.chip, report)
    return {
        "model": plan.model.name,
        "image_size": plan.model.image_size,
        "kind": plan.kind,
        "layout": plan.layout._asdict(),
        "batch": plan.batch,
        "usable_bytes": plan.chip.usable,
        "fits": fits,
        "predicted": plan.prediction._asdict(),
        "compiled": compiled,
    }


def smaller(layout: Layout) -> Layout:
    """Return the layout if it is small enough to compile, else at most two along each axis."""
    if math.prod(layout) <= MAX_COMPILED:
        return layout
    return Layout(*(min(2, size) for size in layout))
