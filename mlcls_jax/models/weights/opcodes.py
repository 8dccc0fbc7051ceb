"""Pickles read into plain values, at a cost bounded by the length of the file.

Python's own reader calls, hashes and compares whatever a file tells it to, in C. This one knows the
opcodes that weight files are made of; the only functions that it calls are those it was given, and
the only values that it hashes are names of entries.
"""

import pickletools
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO, NamedTuple

MAX_STEPS = 1 << 19  # opcodes, hence values and memo entries; 1,000 tensors take about 40,000
MAX_MARKS = 100  # values begun one inside another
MAX_NAME = 1000  # characters of an entry's name

# Opcodes that put what follows them onto the stack.
_PUSHES = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_PUTS = ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE")
_GETS = ("GET", "BINGET", "LONG_BINGET")


class RefusedError(Exception):
    """The file names something that is not admitted; the message is its name."""


class Global(NamedTuple):
    """Meaning of an admitted name in the file."""

    name: str
    call: Callable[..., Any] | None  # None: it may be named, but not called


class StandIn:
    """A value that the file makes in two steps, the second of which gives its state."""

    def set_state(self, state: Any) -> None:
        """Take the state from the file, which may be anything."""
        raise NotImplementedError


class Table(dict, StandIn):
    """Stands for an OrderedDict."""

    def set_state(self, state: Any) -> None:
        """Attributes, PyTorch's versions of modules for instance, are left out."""


def read_pickle(
    file: BinaryIO,
    admitted: Mapping[str, Callable[..., Any] | None],
    load_persistent: Callable[[Any], Any] | None = None,
) -> Any:
    """Return the value that the pickle in `file` describes.

    Args:
      file: with its content in memory.
      admitted: by full name, `collections.OrderedDict` for instance, what is called in its place.
      load_persistent: gives the value of a reference to something outside the pickle.

    Raises:
      RefusedError: it names anything else, or uses an opcode that weight files do not need.
      ValueError, IndexError, TypeError: it is damaged, or larger than the limits.
    """
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}
    argument: Any
    for step, (opcode, argument, _) in enumerate(pickletools.genops(file)):
        if step == MAX_STEPS:
            raise ValueError(f"it has more than {MAX_STEPS:,} steps")
        name = opcode.name
        if _collect(name, stack, marks):
            continue
        if name in _PUSHES:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _PUTS:
            index = len(memo) if name == "MEMOIZE" else argument
            if not 0 <= index < MAX_STEPS:
                raise ValueError(f"it remembers a value under the number {index}")
            memo[index] = stack[-1]
        elif name in _GETS:
            if argument not in memo:
                raise ValueError(f"it recalls a value {argument} that it never remembered")
            stack.append(memo[argument])
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            parts = argument.split(" ") if name == "GLOBAL" else (stack.pop(-2), stack.pop())
            stack.append(_find(".".join(_expect(part, str) for part in parts), admitted))
        elif name == "REDUCE":
            arguments, function = _expect(stack.pop(), tuple), _expect(stack.pop(), Global)
            if function.call is None:
                raise RefusedError(f"{function.name} as a function")
            stack.append(function.call(*arguments))
        elif name == "BUILD":
            state = stack.pop()
            _expect(stack[-1], StandIn).set_state(state)
        elif name == "BINPERSID" and load_persistent is not None:
            stack.append(load_persistent(stack.pop()))
        elif name == "STOP":
            return stack.pop()
        elif name not in ("PROTO", "FRAME"):
            raise RefusedError(f"the opcode {name}")
    raise ValueError("it has no end")  # genops has told so before


def _collect(name: str, stack: list[Any], marks: list[int]) -> bool:
    """Make or fill a tuple, list or dict; return whether the opcode is one of those that do."""

    def since_mark() -> list[Any]:
        begin = marks.pop()
        items = stack[begin:]
        del stack[begin:]
        return items

    if name in _TUPLES:
        items = tuple(stack[-_TUPLES[name] :])
        del stack[-_TUPLES[name] :]
        stack.append(items)
    elif name == "MARK":
        if len(marks) == MAX_MARKS:
            raise ValueError(f"it is nested more than {MAX_MARKS} deep")
        marks.append(len(stack))
    elif name == "TUPLE":
        stack.append(tuple(since_mark()))
    elif name in ("EMPTY_LIST", "LIST"):
        stack.append(since_mark() if name == "LIST" else [])
    elif name in ("EMPTY_DICT", "DICT"):
        table: dict[Any, Any] = {}
        _set_items(table, since_mark() if name == "DICT" else [])
        stack.append(table)
    elif name in ("APPEND", "APPENDS"):
        items = since_mark() if name == "APPENDS" else [stack.pop()]
        _expect(stack[-1], list).extend(items)
    elif name in ("SETITEM", "SETITEMS"):
        items = since_mark() if name == "SETITEMS" else [stack.pop(-2), stack.pop()]
        _set_items(_expect(stack[-1], dict), items)
    else:
        return False
    return True


def _find(name: str, admitted: Mapping[str, Callable[..., Any] | None]) -> Global:
    if name not in admitted:
        raise RefusedError(name if len(name) <= MAX_NAME else f"{name[:MAX_NAME]}…")
    return Global(name, admitted[name])


def _set_items(table: dict[Any, Any], items: list[Any]) -> None:
    for key, value in zip(items[::2], items[1::2], strict=True):
        # Hashing a tuple may take for ever, and numbers can be chosen so that all hashes collide.
        is_number = type(key) is int and 0 <= key < MAX_STEPS
        if not is_number and not (type(key) is str and len(key) <= MAX_NAME):
            raise ValueError(f"a {type(key).__name__} where the name of an entry should be")
        table[key] = value


def _expect(value: Any, kind: type) -> Any:
    """Return the value, if it is of this kind."""
    if not isinstance(value, kind):
        raise ValueError(f"a {type(value).__name__} where a {kind.__name__} should be")
    return value
