"""Fingerprints that tell whether a resumed run has its original data, wherever that is now."""

import hashlib
from collections.abc import Iterable
from itertools import islice, zip_longest
from typing import Any

from mlcls_jax.data.types import Source

SHOWN = 5  # differing labels


def digest(parts: Iterable[bytes | memoryview]) -> str:
    """SHA-256 of the parts one after the other, each ended by a zero byte."""
    total = hashlib.sha256()
    for part in parts:
        total.update(part)
        total.update(b"\0")
    return total.hexdigest()


def describe_data(train: Source, validation: Source) -> dict[str, Any]:
    """Return the labels and, per split, number of images and digests; ready for JSON."""
    splits = {"train": train, "validation": validation}
    return {"labels": list(train.labels)} | {
        name: {"images": len(source), **getattr(source, "fingerprint", dict)()}
        for name, source in splits.items()
    }


def data_differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Return the changes between two results of `describe_data`, one line each."""
    lines = []
    old, new = before.get("labels", []), now["labels"]
    if len(old) != len(new):
        lines.append(f"labels: were {len(old)}, now {len(new)}")
    pairs = ((i, a, b) for i, (a, b) in enumerate(zip_longest(old, new)) if a != b)
    lines += [f"label {i}: was {a}, now {b}" for i, a, b in islice(pairs, SHOWN)]
    if more := sum(1 for _ in pairs):
        lines.append(f"… and {more} more labels")
    for split in ("train", "validation"):
        old, new = before.get(split, {}), now[split]
        if old.get("images") != new["images"]:
            lines.append(f"{split}: were {old.get('images')} images, now {new['images']}")
        else:
            changed = [key for key in new if key in old and old[key] != new[key]]
            lines += [f"{split}: other {key} than before, or in another order" for key in changed]
    return lines
