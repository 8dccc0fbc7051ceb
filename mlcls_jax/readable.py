"""Text that any program can show: names of files, which need not be UTF-8 or one line; tables."""

import csv
import io
import re
from collections.abc import Iterable, Sequence

_SURROGATE = re.compile("[\ud800-\udfff]")
_BYTES = 0xDC00  # a byte that is not UTF-8 stands in Python's file names as this and its value


def readable(text: str, form: str = "\\x{:02x}") -> str:
    """Return the text as UTF-8 can write it; bytes that are not UTF-8 take this form."""

    def escaped(found: re.Match) -> str:
        code = ord(found[0])
        return form.format(code - _BYTES) if code >= _BYTES + 0x80 else f"\\u{code:04x}"

    return _SURROGATE.sub(escaped, text)


def printable(text: str) -> str:
    """Return the text as `readable` does, in one line and without invisible characters."""
    if text.isprintable():
        return text
    shown = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in readable(text))
    return "".join(shown)


def shorten(value: object, length: int = 200) -> str:
    """Return at most so many characters of a value, the last one … where some are left out."""
    text = str(value)
    return text if len(text) <= length else text[: length - 1] + "…"


def first_of(texts: Sequence[str], most: int = 100) -> list[str]:
    """Return the first texts, and behind them how many more there are."""
    more = len(texts) - most
    return [*texts[:most], f"(and {more:,} more)"] if more > 0 else [*texts]


def csv_text(rows: Iterable[Iterable[object]]) -> str:
    """Return the rows as the content of a CSV file."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def table(rows: Sequence[tuple[str, ...]], *, to_left: int = 1) -> list[str]:
    """Return the rows as lines, so many columns to the left and the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    aligned = [str.ljust] * to_left + [str.rjust] * (len(widths) - to_left)
    lines = ((f(text, n) for f, text, n in zip(aligned, row, widths, strict=True)) for row in rows)
    return ["  ".join(line).rstrip() for line in lines]
