"""Results of predictions as lines for people, programs and spreadsheets."""

import json
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Literal

from mlcls_jax.readable import csv_text

if TYPE_CHECKING:  # imports JAX
    from mlcls_jax.inference.results import Result

Format = Literal["json", "table", "jsonl", "csv"]
COLUMNS = ("image", "page", "label", "score", "error")


def print_results(results: Iterable["Result"], format: Format, *, width: int = 0) -> None:
    """Print each result as soon as it is there; before those in CSV a header.

    CSV has a row a label, and one for an image without labels; `width` is that of the names of
    images in a table.
    """
    if format == "csv":
        print(_csv([COLUMNS]))
    for result in results:
        fields = result.json["res"]
        if format == "json":
            result.print()
        elif format == "jsonl":
            is_utf8 = sys.stdout.encoding.lower() in ("utf-8", "utf8")
            print(json.dumps(fields, ensure_ascii=not is_utf8))
        elif format == "csv":
            print(_csv(_rows(fields)))
        else:
            print(f"{_name(fields):{width}}  {_labels(fields)}")


def _rows(fields: dict[str, Any]) -> Iterator[tuple[Any, ...]]:
    image = (fields["input_path"], fields["page_index"])
    for label, score in _found(fields):
        yield (*image, label, score, None)
    if not fields["label_names"]:
        yield (*image, None, None, fields.get("error"))


def _labels(fields: dict[str, Any]) -> str:
    if "error" in fields:
        return f"error: {fields['error']}"
    found = (f"{label} {score:.3f}" for label, score in _found(fields))
    return ", ".join(found) or "no label above the threshold"


def _found(fields: dict[str, Any]) -> Iterator[tuple[str, float]]:
    return zip(fields["label_names"], fields["scores"], strict=True)


def _name(fields: dict[str, Any]) -> str:
    page = "" if fields["page_index"] is None else f", page {fields['page_index']}"
    return f"{fields['input_path']}{page}"


def _csv(rows: Iterable[tuple[Any, ...]]) -> str:
    return csv_text(rows).removesuffix("\n")
