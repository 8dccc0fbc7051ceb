"""Names of files for the results of inputs, which do not overwrite each other."""

import os
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path

from mlcls_jax.readable import readable

_LONGEST = 246  # bytes; with _res and a suffix of five, the 255 of most file systems

# Which input each name in a folder was taken for, both as digests.
_owners: dict[bytes, bytes] = {}


def for_files(text: str) -> str:
    """Return `text` as part of a path that any program can open: what is not UTF-8 becomes %NN."""
    return readable(text, "%{:02X}")


def own_name(folder: Path, wanted: Sequence[str], owner: bytes) -> str:
    """Return a name in `folder` that is `owner`'s for as long as the process lasts.

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
