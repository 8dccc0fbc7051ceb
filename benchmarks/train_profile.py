"""Where our training step's time goes, by kind of instruction, from a trace (CPUs)."""

import collections
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax

from benchmarks.our_step import Case, make_step
from benchmarks.timing import print_table

LARGEST_KERNEL = 11  # of a convolution; a larger window is an image
LONGEST = 40  # instructions that are named

INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?([\w.\-]+) = (.*?) ([a-z][\w\-]*)\((.*)$")
COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) .*\{$")
MOVES = {"copy", "transpose", "broadcast", "bitcast", "reshape", "pad", "slice", "concatenate"}
MOVES |= {"parameter", "constant", "convert", "iota", "dynamic-slice", "reverse", "tuple"}
DEPTHWISE = re.compile(r"depthwise|jit\(_backward\)")  # `models/depthwise.py`


class Instruction(NamedTuple):
    """A line of a compiled program."""

    name: str
    shape: str
    opcode: str
    rest: str  # operands and attributes

    @property
    def op_name(self) -> str:
        """The path of JAX's function transformations and primitive that it comes from."""
        match = re.search(r'op_name="([^"]*)"', self.rest)
        return match[1] if match else ""

    @property
    def pass_(self) -> str:
        """forward, backward, or update: all that comes after the gradient."""
        if "transpose(" in self.op_name:
            return "backward"
        return "forward" if "jvp(" in self.op_name else "update"


def instructions(text: str) -> tuple[dict[str, Instruction], dict[str, list[Instruction]]]:
    """All instructions of a compiled program by name, and by the computation that holds them."""
    by_name: dict[str, Instruction] = {}
    inside: dict[str, list[Instruction]] = collections.defaultdict(list)
    current = ""
    for line in text.splitlines():
        if match := COMPUTATION.match(line):
            current = match[1]
        elif match := INSTRUCTION.match(line):
            found = Instruction(*match.groups())
            by_name[found.name] = found
            inside[current].append(found)
    return by_name, inside


def kind_of(instruction: Instruction, inside: dict[str, list[Instruction]]) -> str:
    """What the time of a table is added up by."""
    parts = list(_flat(instruction, inside))
    for part in parts:
        if part.opcode == "convolution":
            return _kind_of_convolution(part)
    # What the compiler put in has no origin of its own: it is counted where its neighbours belong.
    named = [p for p in parts if p.op_name] or _siblings(instruction, inside)
    passes = collections.Counter(part.pass_ for part in named)
    where = passes.most_common(1)[0][0] if passes else "update"
    opcodes = {part.opcode for part in parts}
    if "dot" in opcodes:
        return f"matrix product, {where}"
    if opcodes <= MOVES:
        return f"copy, transpose, pad, {where}"
    if any(DEPTHWISE.search(part.op_name) for part in parts):
        return f"depthwise products, {where}"
    if any("_bernoulli" in part.op_name for part in parts):
        return "random bits of dropout"
    if opcodes & {"transpose", "copy"}:
        return f"elementwise with transpose, {where}"
    if opcodes & {"reduce", "reduce-window"}:
        return f"elementwise with reduction, {where}"
    return f"elementwise, {where}"


def _siblings(instruction: Instruction, inside: dict[str, list[Instruction]]) -> list[Instruction]:
    """The instructions with an origin in the computation that holds this one."""
    for computation in inside.values():
        if instruction in computation:
            return [part for part in computation if part.op_name]
    return []


def _flat(instruction: Instruction, inside: dict[str, list[Instruction]]) -> Iterator[Instruction]:
    """The instruction, or those of the computation that a fusion or call runs."""
    called = re.search(r"(?:calls|to_apply)=%?([\w.\-]+)", instruction.rest)
    if instruction.opcode in ("fusion", "call") and called:
        for part in inside[called[1]]:
            yield from _flat(part, inside)
    else:
        yield instruction


def _kind_of_convolution(part: Instruction) -> str:
    """A kernel's gradient slides one whole image over the other; the compiler may drop its name."""
    depthwise = "depthwise " if "feature_group_count" in part.rest else ""
    window = re.search(r"window=\{size=(\d+)", part.rest)
    largest = int(window[1]) if window else 1
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", part.rest)
    shape = re.search(r"\[([\d,]+)\]", part.shape)
    side = int(shape[1].split(",")[labels[3].index("0")])
    if largest > LARGEST_KERNEL or "rhs_dilate" in part.rest:
        return f"{depthwise}convolution, kernel gradient"
    if part.pass_ == "backward":
        return f"{depthwise}convolution, {'kernel' if side <= largest else 'input'} gradient"
    return f"{depthwise}convolution, forward"


def profile(case: Case, steps: int = 3) -> list[dict[str, object]]:
    """Milliseconds a step by kind of instruction, the most expensive first; CPU only.

    An instruction that the runtime leaves to other threads counts with the time of its start alone;
    the difference shows between all instructions and the step.
    """
    step = make_step(case, whole=True)
    by_name, inside = instructions(step.compiled.as_text())
    state, _ = step.compiled(step.state, step.batch)
    jax.block_until_ready(state)
    times: dict[str, float] = collections.defaultdict(float)
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            began = time.perf_counter()
            for _ in range(steps):
                state, _ = step.compiled(state, step.batch)
                jax.block_until_ready(state)
            wall = (time.perf_counter() - began) * 1e3 / steps
        (file,) = Path(folder).rglob("*.xplane.pb")
        for name, nanoseconds in _self_times(jax.profiler.ProfileData.from_file(str(file))):
            times[name] += nanoseconds / 1e6 / steps
    program = by_name, inside
    kinds: dict[str, list[float]] = collections.defaultdict(list)
    for name, ms in times.items():
        found = by_name.get(name)
        kinds[kind_of(found, inside) if found else "unknown"].append(ms)
    total = sum(times.values())
    rows = [
        {"case": kind, "ms": round(sum(ms), 1), "share": round(sum(ms) / total, 3), "n": len(ms)}
        for kind, ms in sorted(kinds.items(), key=lambda item: -sum(item[1]))
    ]
    rows.append({"case": "all instructions", "ms": round(total, 1), "share": 1.0, "n": len(times)})
    rows.append({"case": "step", "ms": round(wall, 1), "share": round(wall / total, 3), "n": 1})
    rows.append({"case": "compilation", "ms": round(1e3 * step.seconds, 1), "share": None, "n": 1})
    _print_profile(case, rows, times, program)
    return rows


def _self_times(data: Any) -> Iterator[tuple[str, float]]:
    """(instruction, nanoseconds without those of instructions inside it), each time it ran."""
    for plane in data.planes:
        for line in plane.lines:
            events = [
                (e.start_ns, e.start_ns + e.duration_ns, dict(e.stats)["hlo_op"])
                for e in line.events
                if "hlo_op" in dict(e.stats) and not e.name.startswith("end:")
            ]
            open_: list[list[Any]] = []  # [end, name, own time] of what runs now, outermost first
            for start, end, name in sorted(events, key=lambda e: (e[0], -e[1])):
                while open_ and open_[-1][0] <= start:
                    _, done, own = open_.pop()
                    yield done, own
                if open_:
                    open_[-1][2] -= end - start
                open_.append([end, name, end - start])
            for _, name, own in open_:
                yield name, own


def _print_profile(
    case: Case,
    rows: list[dict[str, object]],
    times: dict[str, float],
    program: tuple[dict[str, Instruction], dict[str, list[Instruction]]],
) -> None:
    """The table by kind, and the instructions that take longest."""
    by_name, inside = program
    print_table(
        f"{case.model}, {case.size} x {case.size}, batch {case.batch}: time by kind of instruction",
        rows,
        None,
    )
    print("\nThe instructions that take longest, in ms:")
    for name, ms in sorted(times.items(), key=lambda item: -item[1])[:LONGEST]:
        if (found := by_name.get(name)) is None:
            continue
        parts = _flat(found, inside)
        main_part = next((p for p in parts if p.opcode in ("convolution", "dot")), found)
        window = re.search(r"window=\{[^}]*\}.*?dim_labels=[\w\->]+", main_part.rest)
        kind, origin = kind_of(found, inside), main_part.op_name.removeprefix("jit(train_step)/")
        shape = found.shape if len(found.shape) < 50 else f"{found.shape[:47]}..."
        more = window[0] if window else ""
        print(f"{ms:8.1f}  {name:32}  {kind:36}  {shape:50}  {origin[-60:]} {more}".rstrip())
    print()
