"""What inputs are called: in text that is UTF-8, and in files that do not overwrite each other."""

import os
import re
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path

_LONGEST = 246  # bytes; with _res and a suffix of five, the 255 of most file systems
_SURROGATE = re.compile("[\ud800-\udfff]")
_BYTES = 0xDC00  # a byte that is not UTF-8 stands in Python's file names as this and its value

# Which input each name in a folder was taken for, both as digests.
_owners: dict[bytes, bytes] = {}


def readable(text: str) -> str:
    """`text` as UTF-8 can write it: bytes of file names that are not UTF-8 become \\xNN."""
    return _escape(text, "\\x{:02x}")


def for_files(text: str) -> str:
    """`text` as part of a path that any program can open: bytes that are not UTF-8 become %NN."""
    return _escape(text, "%{:02X}")


def _escape(text: str, form: str) -> str:
    def escaped(found: re.Match) -> str:
        code = ord(found[0])
        return form.format(code - _BYTES) if code >= _BYTES + 0x80 else f"\\u{code:04x}"

    return _SURROGATE.sub(escaped, text)


def own_name(folder: Path, wanted: Sequence[str], owner: bytes) -> str:
    """A name in `folder` that is `owner`'s for as long as the process lasts.

    It is the first of `wanted` that is short enough and not another's; where there is none, the
    last one, cut, with a digest of `owner` behind it.
    """
    owner = _digest(owner)
    for name in map(for_files, wanted):
        place = _digest(os.path.abspath(folder / name).encode(errors="surrogatepass"))
        if len(name.encode()) <= _LONGEST and _owners.setdefault(place, owner) == owner:
            return name
    end = f"_{owner.hex()}"
    return name.encode()[: _LONGEST - len(end)].decode(errors="ignore") + end


def _digest(data: bytes) -> bytes:
    return blake2b(data, digest_size=8).digest()
