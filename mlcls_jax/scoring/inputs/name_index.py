"""The index of a job's names, which fixes their order; read by range and never held as a whole.

It holds a JSON string per line, since names may contain line breaks.
"""

import hashlib
import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mlcls_jax import files
from mlcls_jax.errors import WorkdirError
from mlcls_jax.scoring.inputs.kind import Columns, Item, Kind, Read, Survey

_STRIDE = 1024  # lines between two positions that are remembered


def indexed(
    recognises: Callable[[str], bool],
    names: Callable[[str, Columns], Iterator[str]],
    item: Callable[[str, Survey, str], Item],
    **options: Any,
) -> Kind:
    """Return the kind of an input whose images are found by name: `item` of (source, survey, name).

    `names` are those of a source, in their order; `options` are of the `Kind`.
    """

    def survey(source: str, output: Path, columns: Columns) -> tuple[int, str]:
        return write_index(names(source, columns), output)

    def open_names(source: str, begun: Survey, output: Path, columns: Columns) -> Read:
        read = open_index(begun, output)
        return lambda rows: (item(source, begun, name) for name in read(rows))

    return Kind(recognises, survey, open_names, has_index=True, **options)


def index_path(output: Path, digest: str) -> Path:
    """Return where the index with this checksum lies."""
    return output / f"_index-{digest[:16]}.jsonl"


def write_index(names: Iterator[str], output: Path) -> tuple[int, str]:
    """Write the index; return the number of names, and its checksum, which is also in its name."""
    digest, count = hashlib.sha256(), 0
    with files.beside(output / "index") as temporary:
        with temporary.open("wb") as file:
            for name in names:
                line = json.dumps(name).encode() + b"\n"
                digest.update(line)
                file.write(line)
                count += 1
        files.place(temporary, index_path(output, digest.hexdigest()))
    return count, digest.hexdigest()


def count_differences(old: Path, new: Path) -> tuple[int, int]:
    """Count the lines of the old index that the new one lacks, and the other way round.

    In one pass, as both are sorted in the same way; of lists that are not, it tells at least that
    they differ.
    """
    missing = added = 0
    with old.open("rb") as first, new.open("rb") as second:
        a, b = next(first, None), next(second, None)
        while a or b:
            if a == b:
                a, b = next(first, None), next(second, None)
            elif not b or (a and json.loads(a).split("/") < json.loads(b).split("/")):
                missing, a = missing + 1, next(first, None)
            else:
                added, b = added + 1, next(second, None)
    return missing, added


def open_index(begun: Survey, output: Path) -> Callable[[range], Iterator[str]]:
    """Return a function that reads the names at some positions.

    Raises:
      WorkdirError: the index is missing or damaged.
    """
    index = index_path(output, begun.sha256)
    hint = "Begin anew with another output folder."
    try:
        with index.open("rb") as file:
            positions, count, position = [], 0, 0
            for line in file:
                if count % _STRIDE == 0:
                    positions.append(position)
                count, position = count + 1, position + len(line)
    except OSError as error:
        raise WorkdirError(f"{index}: cannot be read: {error.strerror}", hint) from error
    if count != begun.images:
        told = f"{index}: damaged: {count:,} names, but the job has {begun.images:,}"
        raise WorkdirError(told, hint)

    def read(rows: range) -> Iterator[str]:
        with index.open("rb") as file:
            file.seek(positions[rows.start // _STRIDE])
            skip = rows.start % _STRIDE
            yield from map(json.loads, itertools.islice(file, skip, skip + len(rows)))

    return read
