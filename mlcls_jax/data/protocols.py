"""Public data sets as papers use them, and whether a data set is one of them."""

from dataclasses import dataclass

from mlcls_jax import files
from mlcls_jax.config import Data
from mlcls_jax.data.findings import CheckReport


@dataclass(frozen=True)
class Protocol:
    """Which images and labels a published number is about."""

    labels: int
    images: dict[str, int]  # by split; empty: none that could be verified
    rules: str  # what decides who belongs to it


# Numbers of images and labels: COCO's two from the files of the ML-Decoder and of PaddleClas, those
# of VOC and OpenImages from their own pages. NUS-WIDE is divided in many ways.
PROTOCOLS = {
    "coco2014": Protocol(
        80,
        {"train": 82_081, "val": 40_137},
        "train2014 and val2014, images without a label left out; boxes around crowds count",
    ),
    "coco2017": Protocol(
        80,
        {"train": 118_287, "val": 5_000},
        "train2017 and val2017, images without a label stay; boxes around crowds count",
    ),
    "voc2007": Protocol(
        20,
        {"train": 5_011, "val": 4_952},
        "trainval to train on, test to validate; objects marked difficult do not count",
    ),
    "nuswide": Protocol(81, {}, "the 81 concepts; say which division of the images you used"),
    "openimages": Protocol(
        9_605,
        {"train": 9_011_219, "val": 125_436},
        "V6, labels that people verified, -1 for those that nobody did; test to validate",
    ),
}


def compare(report: CheckReport, data: Data, name: str) -> tuple[list[str], dict[str, str]]:
    """Return how a checked data set differs from a protocol, and the SHA-256 of its lists.

    The checksums are what a result should be published with: they say which images it is about.
    """
    protocol, found = PROTOCOLS[name], {k: part.images for k, part in report.splits.items()}
    told = []
    if len(report.labels) != protocol.labels:
        told.append(f"{len(report.labels):,} labels, but {name} has {protocol.labels:,}")
    for split, expected in protocol.images.items():
        if found.get(split, 0) != expected:
            told.append(f"{split}: {found.get(split, 0):,} images, but {name} has {expected:,}")
    lists = {"train": data.train_list, "val": data.val_list}
    hashes = {split: files.sha256(report.root / lists[split]) for split in found if split in lists}
    return told, hashes
