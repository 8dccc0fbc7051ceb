"""Names of files as text that any program can show: they need not be UTF-8, nor one line."""

import re

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
