"""Parquet files of images and labels, as the Hugging Face hub has them, written as files.

A column has encoded images, or structs of `bytes` and `path`; another the labels of each: a number
or a text, or a list of these. Numbers get the names that the hub's description of the columns has.
"""

import csv
import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from typing import Any

from mlcls_jax import lazy
from mlcls_jax.data.convert.reading import SPLIT_NAMES
from mlcls_jax.errors import DataError
from mlcls_jax.parsing import shorten
from mlcls_jax.remote import open_store, store_errors

HUB = "hf://datasets/"
LABELS = ("labels", "label", "tags", "categories", "classes")  # usual names of the column
_OFFLINE = "Where there is no network: fetch its Parquet files elsewhere, and name their folder."
_ROWS = 64  # decoded at once
_SUFFIXES = {b"\xff\xd8": ".jpg", b"\x89P": ".png", b"RI": ".webp", b"GI": ".gif", b"BM": ".bmp"}


def parquet_files(place: str) -> list[str]:
    """Return the Parquet files in a folder of a store, the hub for instance, and below it.

    Raises:
      DataError: there are none, or the place cannot be reached.
      UserError: the library that reaches it is missing.
    """
    with (
        store_errors(place, DataError, _OFFLINE),
        lazy.optional(f"{place} is read through a library", extra="hub"),
    ):
        store, path = open_store(place)
        found = sorted(store.glob(f"{path.rstrip('/')}/**/*.parquet"))
        if not found:
            raise DataError(
                f"{place}: there are no Parquet files",
                "The hub makes some of most data sets: add @refs/convert/parquet to the name.",
            )
        return [store.unstrip_protocol(name) for name in found]


def unpack(files: Sequence[str], into: Path) -> str:
    """Write the images to images/ of a folder, with train.csv, val.csv and label.txt; say what.

    What a file holds is told by its name, `validation-00000-of-00001.parquet` for instance; all is
    for training where no name begins so.

    Raises:
      DataError: a file is damaged, or has no columns of images and labels.
      UserError: pyarrow is missing.
    """
    with lazy.optional("Parquet files are read by pyarrow", extra="score"):
        import pyarrow.parquet as parquet
    (into / "images").mkdir(parents=True)
    names: list[str] = []
    counts: dict[str, int] = {}
    empty = 0
    lists: dict[str, Any] = {}
    with ExitStack() as stack:
        for name in files:
            split = _split(name)
            if split not in lists:
                file = (into / f"{split}.csv").open("w", encoding="utf-8", newline="")
                lists[split] = csv.writer(stack.enter_context(file))
                counts[split] = 0
            store, path = open_store(name)
            with store_errors(name, DataError), store.open(path, "rb") as opened:
                try:
                    table = parquet.ParquetFile(opened)
                    image, labels, names = _columns(table.schema_arrow, name)
                    for content, found in _rows(table, image, labels, names):
                        if not content:
                            empty += 1
                            continue
                        listed = f"images/{split}_{counts[split]:07}{_suffix(content)}"
                        (into / listed).write_bytes(content)
                        lists[split].writerow([listed, json.dumps(found, ensure_ascii=False)])
                        counts[split] += 1
                except ValueError as error:  # of pyarrow
                    raise DataError(f"{name}: is no Parquet file: {error}") from error
    if names:
        lines = "".join(f"{index} {name}\n" for index, name in enumerate(names))
        (into / "label.txt").write_text(lines, encoding="utf-8")
    left_out = f"; {empty:,} rows without one are left out" if empty else ""
    return f"{sum(counts.values()):,} images are written to {into / 'images'}{left_out}."


def _split(name: str) -> str:
    """Return what a file is for: train, val or test."""
    stem = PurePosixPath(name).stem.lower()
    return next((s for s, known in SPLIT_NAMES.items() if stem.startswith(known)), "train")


def _columns(schema: Any, name: str) -> tuple[str, str, list[str]]:
    """Return the columns of images and labels, and the names of numbered labels.

    Raises:
      DataError: there are no such columns, or several.
    """
    import pyarrow.types as types

    kinds = {field.name: field.type for field in schema}

    def is_image(kind: Any) -> bool:
        if types.is_struct(kind):
            return any(field.name == "bytes" for field in kind)
        return types.is_binary(kind) or types.is_large_binary(kind)

    def is_label(kind: Any) -> bool:
        is_list = types.is_list(kind) or types.is_large_list(kind)
        kind = kind.value_type if is_list else kind
        return types.is_integer(kind) or types.is_string(kind) or types.is_large_string(kind)

    images = [column for column, kind in kinds.items() if is_image(kind)]
    labels = [column for column in LABELS if column in kinds and is_label(kinds[column])]
    if len(images) != 1 or not labels:
        told = ", ".join(f"{column} ({kind})" for column, kind in kinds.items())
        raise DataError(
            f"{name}: no column of images and one of labels: {shorten(told)}",
            f"The labels' column is one of {', '.join(LABELS)}: numbers, texts, or lists of them.",
        )
    described = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    features = described.get("info", {}).get("features", {})
    return images[0], labels[0], _names(features.get(labels[0]))


def _names(feature: Any) -> list[str]:
    """Return the names in the hub's description of a column, or of what its lists hold."""
    if isinstance(feature, list):
        feature = {"feature": next(iter(feature), None)}
    if not isinstance(feature, dict):
        return []
    return [*map(str, feature["names"])] if "names" in feature else _names(feature.get("feature"))


def _rows(
    table: Any, image: str, labels: str, names: list[str]
) -> Iterator[tuple[bytes | None, list[str]]]:
    """Yield the content and the labels of each image."""
    for batch in table.iter_batches(batch_size=_ROWS, columns=[image, labels]):
        for row in batch.to_pylist():
            content, found = row[image], row[labels]
            if isinstance(content, dict):
                content = content["bytes"]
            found = found if isinstance(found, list) else [found]
            yield content, [_name(one, names) for one in found if one is not None]


def _name(label: int | str, names: list[str]) -> str:
    if isinstance(label, int) and 0 <= label < len(names):
        return names[label]
    return str(label)


def _suffix(content: bytes) -> str:
    return _SUFFIXES.get(content[:2], ".tiff")
