"""Facts from the text of a compiled program, as XLA writes it (HLO)."""

import math
import re
from typing import NamedTuple


class Collective(NamedTuple):
    """One exchange in a compiled program."""

    kind: str  # all-reduce, all-gather, reduce-scatter, all-to-all, collective-permute
    sent: float  # bytes that a device sends if it runs as a ring
    devices: int  # that take part together
    is_hidden: bool = False  # other work runs meanwhile


KINDS = "all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute"
LINE = re.compile(rf"%([\w.\-]+) = (.*?) ({KINDS})(-start|-done)?\((.*)")
SHAPE = re.compile(r"\b(pred|[suf]\d+|bf16)\[([\d,]*)\](?:\{([^}]*)\})?")
OPERATION = re.compile(r"\s+(?:ROOT )?%[\w.\-]+ = (.*?) ([\w\-]+)\(")
WORK = ("fusion", "custom-call", "convolution", "dot")
# Who takes part is told in one of three ways: {{0,1},{2,3}}, [2,2]<=[4], or, by axes of a mesh that
# the compiler makes, mesh['a'=2,'b'=2] {'b'}, where 'b':(1)2 would be a part of an axis.
LISTED = re.compile(r"replica_groups=\{\{([\d,]*)\}")
IOTA = re.compile(r"replica_groups=\[\d+,(\d+)\]")
AXES = re.compile(r"replica_groups=mesh\[(.*?)\].*? \{(.*?)\}")
CHANNEL = re.compile(r"channel_id=(\d+)")
CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
CALLBACK = re.compile(
    r'custom_call_target="[^"]*(?:callback|python)[^"]*"| (?:infeed|outfeed|send|recv)\('
)


def find_collectives(text: str) -> list[Collective]:
    """The exchanges in the text, each once, with ring-sized traffic.

    The TPU compiler repeats an exchange in several fusions, with the same channel and shapes; those
    that it makes of several share a channel. A sum that is fused with the cut after it is a
    scatter. An exchange hides if other work stands between its start and its end, or in the same
    fusion.
    """
    found: dict[tuple[str, ...], Collective] = {}
    open_: dict[str, tuple[str, int, str]] = {}  # name → channel, work done before, how it began
    computation, work = "", 0
    for number, line in enumerate(text.splitlines()):
        if line and not line[0].isspace():
            computation = line
            continue
        if not (match := LINE.search(line)):
            operation = OPERATION.match(line)
            work += operation is not None and operation[2] in WORK
            continue
        name, result, kind, part, rest = match.groups()
        numbered = CHANNEL.search(rest)
        channel = numbered[1] if numbered else str(-number)
        if part == "-start":  # whose result holds its operands, too
            open_[name] = channel, work, rest
            continue
        is_hidden = "async" in computation.partition("(")[0]
        if part == "-done":
            channel, before, rest = open_.pop(rest.partition(")")[0].rpartition("%")[2])
            is_hidden = work > before
        if "scatter" in computation.partition("(")[0]:
            kind = "all-reduce-scatter"
        key = channel, *(f"{dtype}[{sides}]" for dtype, sides, _ in SHAPE.findall(result))
        if key not in found:
            found[key] = _collective(kind, result, rest, is_hidden)
        elif is_hidden:
            found[key] = found[key]._replace(is_hidden=True)
    return list(found.values())


def _collective(kind: str, result: str, rest: str, is_hidden: bool) -> Collective:
    size = sum(_bytes(*shape[:2]) for shape in SHAPE.findall(result))
    devices = _devices(rest)
    others = (devices - 1) / devices
    sent = {
        "all-reduce": 2 * size * others,
        "reduce-scatter": size * (devices - 1),  # the result is a part
        "collective-permute": float(size),
    }.get(kind, size * others)
    kind = "reduce-scatter" if kind == "all-reduce-scatter" else kind
    return Collective(kind, sent, devices, is_hidden)


def _devices(line: str) -> int:
    """Return the number of devices per group."""
    if listed := LISTED.search(line):
        return listed[1].count(",") + 1
    if iota := IOTA.search(line):
        return int(iota[1])
    if axes := AXES.search(line):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", axes[1]))
        parts = re.findall(r"'(\w+)'(?::\(\d+\)(\d+))?", axes[2])
        return math.prod(int(part or sizes[axis]) for axis, part in parts)
    return 2  # a permutation: from one to another


def entry_of(text: str) -> str:
    """Return the computation that the program begins with."""
    return text[text.index("\nENTRY ") :]


def estimated_cycles(text: str) -> int | None:
    """Return the TPU compiler's estimate of all operations but exchanges, None of others."""
    cycles = [int(found) for found in CYCLES.findall(entry_of(text))]
    return sum(cycles) if cycles else None


def padding(text: str) -> float:
    """Return how many times their size the large arrays take as they are laid out; 1 is none."""
    logical = laid_out = 0
    for line in entry_of(text).splitlines():
        operation = OPERATION.match(line)
        if operation is None or operation[2] not in (*WORK, "copy"):
            continue
        for dtype, sides, layout in SHAPE.findall(operation[1]):
            size = _bytes(dtype, sides)
            if size > 2**16 and "S(1)" not in layout:  # those stay inside the core
                logical += size
                laid_out += _laid_out(dtype, sides, layout)
    return laid_out / logical if logical else 1.0


def _laid_out(dtype: str, sides: str, layout: str) -> int:
    """Return the bytes of an array in tiles: `{1,0:T(8,128)}` has minor axes first."""
    tile = re.search(r"T\(([\d,]+)\)", layout)
    if tile is None:
        return _bytes(dtype, sides)
    axes = [int(axis) for axis in layout.partition(":")[0].split(",")]
    numbers = [int(side) for side in sides.split(",")]
    lengths = [numbers[axis] for axis in axes]
    for place, length in enumerate(reversed([int(n) for n in tile[1].split(",")])):
        if place < len(lengths):
            lengths[place] = -(-lengths[place] // length) * length
        else:
            lengths.append(length)
    return _bits(dtype) * math.prod(lengths) // 8


def count_donated(text: str) -> int:
    """Return how many inputs lend their memory to an output."""
    return len(re.findall("(?:may|must)-alias", text.partition("\n")[0]))


def count_float64(text: str) -> int:
    """Return how often an array of float64 is named."""
    return len(re.findall(r"\bf64\[", text))


def count_callbacks(text: str) -> int:
    """Return how often the program waits for the host."""
    return len(CALLBACK.findall(text))


def _bytes(dtype: str, shape: str) -> int:
    return _bits(dtype) * math.prod(int(side) for side in shape.split(",") if side) // 8


def _bits(dtype: str) -> int:
    return 8 if dtype == "pred" else int(dtype.lstrip("sufb"))
