"""The names under which files have the weights stay as they were when files were last compared.

A round trip of weights tells nothing of names, and published files are not at hand in tests:
`tests/data/weight_names.csv` has a digest of each table, made when they equalled those of timm's
and PaddleClas' own networks. MLCLS_RENEW_GOLDENS=1 writes it anew.
"""

import hashlib
import os
from pathlib import Path

import pytest

from mlcls_jax.config import Model
from mlcls_jax.models import Network

DIGESTS = Path(__file__).parents[1] / "data" / "weight_names.csv"


@pytest.mark.slow
def test_weights_have_the_names_that_files_were_compared_with():
    expected = [tuple(line.split(",")) for line in DIGESTS.read_text().splitlines()]
    found = [row for name in dict.fromkeys(row[0] for row in expected) for row in digests(name)]
    if "MLCLS_RENEW_GOLDENS" in os.environ:
        DIGESTS.write_text("".join(",".join(row) + "\n" for row in found))
    assert found == expected


def digests(name: str) -> list[tuple[str, ...]]:
    network, rows = Network.of(Model(name=name, num_classes=3)), []
    for origin, table in sorted(network.foreign_names.items()):
        # Files of Paddle without names have the arrays in this order.
        places = table.items() if origin == "paddle" else sorted(table.items())
        told = "".join(f"{path} {place.keys} {place.layout}\n" for path, place in places)
        rows.append((name, origin, str(len(table)), hashlib.sha256(told.encode()).hexdigest()[:16]))
    return rows
