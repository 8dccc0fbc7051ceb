"""Parquet files of a range: the results, and the images that could not be read."""

import hashlib
import io
import json
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mlcls_jax import __version__, files
from mlcls_jax.errors import UserError
from mlcls_jax.inference.results import Result
from mlcls_jax.scoring.job import Job


@dataclass
class Rows:
    """The results of a range, in order, while they come in."""

    columns: dict[str, list[Any]] = field(default_factory=lambda: defaultdict(list))
    # Names of images and pages that could not be read, and why.
    errors: list[tuple[str, str]] = field(default_factory=list)

    def add(self, name: str, result: Result, *, all_scores: bool) -> None:
        """Add what is written of a result: its labels or the scores of all, and its embedding."""
        row = {"path": name, "page_index": result["page_index"]}
        if all_scores:
            row["scores"] = result.all_scores
        else:
            row |= {key: result[key] for key in ("class_ids", "scores", "label_names")}
        if result.embedding is not None:
            row["embedding"] = result.embedding
        for key, value in row.items():
            self.columns[key].append(value)


def write_range(job: Job, number: int, rows: Rows) -> None:
    """Write a range's files. The part file comes last, as it says that the range is done.

    Raises:
      UserError: a file cannot be written; none is then half-written.
    """
    written = {}
    if rows.errors:
        paths, errors = zip(*rows.errors, strict=True)
        schema = pa.schema([("path", pa.string()), ("error", pa.string())])
        columns = {"path": paths, "error": errors}
        written[job.errors(number)] = _encoded(columns, _with_facts(schema, job))
    else:
        job.errors(number).unlink(missing_ok=True)  # of a try that was killed
    written[job.part(number)] = _encoded(rows.columns, _schema(job))
    lines = [f"{hashlib.sha256(data).hexdigest()}  {path.name}\n" for path, data in written.items()]
    with ExitStack() as stack:
        # All are on the disk before the first gets its name: the disk may be full.
        names = [job.checksums(number), *written]
        temporaries = [stack.enter_context(files.beside(path)) for path in names]
        contents = ["".join(lines).encode(), *written.values()]
        for path, temporary, data in zip(names, temporaries, contents, strict=True):
            with _telling(path):
                temporary.write_bytes(data)
        for path, temporary in zip(names, temporaries, strict=True):
            with _telling(path):
                files.place(temporary, path)


def is_whole(job: Job, number: int) -> bool:
    """Return whether the files of a range are there, and as they were written.

    Those of earlier versions have no checksums: they are whole if they can be read.
    """
    there = [path for path in (job.part(number), job.errors(number)) if path.exists()]
    if job.part(number) not in there:
        return False
    try:
        wanted = job.checksums(number).read_text(encoding="ascii")
    except FileNotFoundError:
        try:
            for path in there:
                # Its annotations are guessed from defaults.
                pq.read_table(path, partitioning=None)  # pyright: ignore[reportArgumentType]
        except (OSError, pa.ArrowException):
            return False
        return True
    except ValueError:
        return False
    found = {f"{files.sha256(path)}  {path.name}" for path in there}
    return found == set(wanted.splitlines())


def count_rows(job: Job) -> tuple[int, int]:
    """Count the rows in the shard's part files, and the images in its files of errors."""
    rows = sum(pq.read_metadata(job.part(n)).num_rows for n in job.ranges)
    errors = (job.errors(n) for n in job.ranges)
    broken = sum(pq.read_metadata(path).num_rows for path in errors if path.exists())
    return rows, broken


def remove_leftovers(job: Job) -> None:
    """Delete what killed processes left behind half-written."""
    for kind in ("part", "_errors", "_sha256"):
        for path in job.output.glob(f".{kind}-{job.request.shard:05d}-*.tmp"):
            path.unlink(missing_ok=True)


def _schema(job: Job) -> Any:
    fields = [("path", pa.string()), ("page_index", pa.int32())]
    if job.request.all_scores:
        fields += [("scores", pa.list_(pa.float32(), len(job.model["labels"])))]
    else:
        fields += [
            ("class_ids", pa.list_(pa.int32())),
            ("scores", pa.list_(pa.float32())),
            ("label_names", pa.list_(pa.string())),
        ]
    if job.request.embeddings:
        fields += [("embedding", pa.list_(pa.float32()))]
    return _with_facts(pa.schema(fields), job)


def _with_facts(schema: Any, job: Job) -> Any:
    facts = {**job.model, "version": __version__}
    return schema.with_metadata({"mlcls_jax": json.dumps(facts, ensure_ascii=False)})


def _encoded(columns: dict[str, Any], schema: Any) -> bytes:
    table = pa.table({name: columns.get(name, []) for name in schema.names}, schema=schema)
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


@contextmanager
def _telling(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:  # the disk is full, for instance
        hint = "Free some space or repair it: the same command resumes."
        raise UserError(f"{path}: cannot be written: {error.strerror or error}", hint) from error
