"""`mlcls pack DATASET OUTPUT`: an MLClsDataset as shards, for `data.source=packed`."""

import argparse
import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mlcls_jax import usage
from mlcls_jax.config import Data, from_arguments, option
from mlcls_jax.data.lists import TEST_LIST, find_root
from mlcls_jax.data.pack import SHARD_SIZE, pack, verify
from mlcls_jax.data.shards import Manifest
from mlcls_jax.data.sources import open_data, open_split
from mlcls_jax.data.types import Source
from mlcls_jax.paths import local


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Write an MLClsDataset as shards.

    Run again, it goes on where it was stopped.
    """

    train_list: str = option(Data.train_list, "in DATASET", path="local")
    val_list: str = option(Data.val_list, "in DATASET", path="local")
    label_file: str = option(Data.label_file, "in DATASET", path="local")
    short_side: int | None = option(
        None,
        "scale larger images down to this shorter side, as JPEG; None: all go in as they are",
        min=1,
    )
    shard_size: int = option(SHARD_SIZE, "images in a shard", min=1)
    on_error: Literal["raise", "skip"] = option(
        "raise", "list unreadable images and fail, or leave them out"
    )
    threads: int = option(8, "that read images", min=1)
    verify: bool = option(False, "compare the checksums of a packed data set")


def run(argv: list[str]) -> str:
    """Pack as the arguments say, or verify what was packed, and return a summary."""
    parser = usage.parser_of(
        Arguments,
        "pack dataset packed --short_side 512",
        "%(prog)s DATASET OUTPUT [options]\n       %(prog)s --verify OUTPUT",
    )
    folders_type = local("DATASET and OUTPUT")
    parser.add_argument("folders", nargs="+", type=folders_type, help=argparse.SUPPRESS)
    parsed = parser.parse_args(argv)
    args, folders = from_arguments(Arguments, parsed), parsed.folders
    if args.verify:
        if len(folders) != 1:
            parser.error("--verify takes one folder: that of the packed data set")
        output = Path(folders[0])
        return f"{_counts(verify(output))}: every checksum holds."
    if len(folders) != 2:
        parser.error("two folders are needed: DATASET and OUTPUT")
    data, output = folders[0], Path(folders[1])
    sources, root = open_sources(
        Data(
            dir=data,
            train_list=args.train_list,
            val_list=args.val_list,
            label_file=args.label_file,
            on_error=args.on_error,
        )
    )
    manifest, kept = pack(
        sources,
        output,
        root=root,
        short_side=args.short_side,
        shard_size=args.shard_size,
        on_error=args.on_error,
        threads=args.threads,
    )
    return _summary(manifest, kept, output)


def open_sources(data: Data) -> tuple[dict[str, Source], Path]:
    """Return the splits of an MLClsDataset, with the test list if there is one, and its folder."""
    root = find_root(Path(data.folder))
    train, validation = open_data(data)
    sources = {"train": train, "validation": validation}
    if (root / TEST_LIST).exists():
        sources["test"] = open_split(dataclasses.replace(data, val_list=TEST_LIST), "validation")
    return sources, root


def _summary(manifest: Manifest, kept: int, output: Path) -> str:
    shards = [shard for split in manifest.shards.values() for shard in split.values()]
    size = sum(shard.bytes for shard in shards) / 1e6
    left_out = sum(len(shard.left_out) for shard in shards)
    lines = [
        _counts(manifest),
        f"{len(shards)} shards, {size:,.1f} MB, in {output}"
        + (f"; {kept} of them were there before" if kept else ""),
    ]
    if left_out:
        lines.append(f"{left_out} unreadable images were left out: see {output / 'dataset.json'}")
    lines.append(f"Use it: --config.data.source=packed --config.data.dir={output}")
    return "\n".join(lines)


def _counts(manifest: Manifest) -> str:
    counts = (f"{manifest.images(split):,} {split}" for split in manifest.shards)
    return f"{', '.join(counts)} images with {len(manifest.labels)} labels"
