"""Parquet files of a range: the results, and the images that could not be read."""

import json
import os
import uuid
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mlcls_jax import __version__
from mlcls_jax.errors import UserError
from mlcls_jax.inference.results import Result
from mlcls_jax.scoring.job import Job


@dataclass
class Rows:
    """The results of a range, in order, while they come in."""

    columns: dict[str, list[Any]] = field(default_factory=lambda: defaultdict(list))
    errors: list[tuple[str, str]] = field(default_factory=list)  # names and messages

    def add(self, name: str, result: Result, *, all_scores: bool) -> None:
        """Add what is written of a result: the labels found, or the scores of all."""
        row = {"path": name, "page_index": result["page_index"]}
        if all_scores:
            row["scores"] = result.all_scores
        else:
            row |= {key: result[key] for key in ("class_ids", "scores", "label_names")}
        for key, value in row.items():
            self.columns[key].append(value)

    def add_error(self, name: str, message: str) -> None:
        """Add an image, or a page, that could not be read."""
        self.errors.append((name, message))


def write_range(job: Job, number: int, rows: Rows) -> None:
    """Write a range's files. The part file comes last, as it says that the range is done.

    Raises:
      UserError: a file cannot be written; none is then half-written.
    """
    if rows.errors:
        paths, errors = zip(*rows.errors, strict=True)
        schema = pa.schema([("path", pa.string()), ("error", pa.string())])
        _write(job.errors(number), {"path": paths, "error": errors}, _with_facts(schema, job))
    else:
        job.errors(number).unlink(missing_ok=True)  # of a try that was killed
    _write(job.part(number), rows.columns, _schema(job))


def count_rows(job: Job) -> tuple[int, int]:
    """Rows in the shard's part files, and images in its files of errors."""
    rows = sum(pq.read_metadata(job.part(n)).num_rows for n in job.ranges)
    files = (job.errors(n) for n in job.ranges)
    broken = sum(pq.read_metadata(file).num_rows for file in files if file.exists())
    return rows, broken


def remove_leftovers(job: Job) -> None:
    """Delete what killed processes left behind half-written."""
    for pattern in (f".part-{job.shard:05d}-*.tmp", f"._errors-{job.shard:05d}-*.tmp"):
        for path in job.output.glob(pattern):
            path.unlink(missing_ok=True)


def _schema(job: Job) -> Any:
    fields = [("path", pa.string()), ("page_index", pa.int32())]
    if job.all_scores:
        fields += [("scores", pa.list_(pa.float32(), len(job.model["labels"])))]
    else:
        fields += [
            ("class_ids", pa.list_(pa.int32())),
            ("scores", pa.list_(pa.float32())),
            ("label_names", pa.list_(pa.string())),
        ]
    return _with_facts(pa.schema(fields), job)


def _with_facts(schema: Any, job: Job) -> Any:
    facts = {**job.model, "version": __version__}
    return schema.with_metadata({"mlcls_jax": json.dumps(facts, ensure_ascii=False)})


def _write(path: Path, columns: dict[str, Any], schema: Any) -> None:
    table = pa.table({name: columns.get(name, []) for name in schema.names}, schema=schema)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("wb") as file:
            pq.write_table(table, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:  # the disk is full, for instance
        hint = "Make room or mend it: the same command goes on."
        raise UserError(f"{path}: cannot be written: {error.strerror or error}", hint) from error
    finally:
        temporary.unlink(missing_ok=True)
