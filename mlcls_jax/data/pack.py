"""Writing a data set as shards: a few large files, read by index and quickly copied."""

import hashlib
import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image
from tqdm import tqdm

from mlcls_jax import files
from mlcls_jax.bars import progress
from mlcls_jax.data.images import decode_image
from mlcls_jax.data.shards import (
    MANIFEST,
    Manifest,
    PackOptions,
    Shard,
    encode_record,
    fault,
    read_manifest,
)
from mlcls_jax.data.types import Source
from mlcls_jax.errors import DataError, raise_faults
from mlcls_jax.groups import NO_GROUPS
from mlcls_jax.lock import locked
from mlcls_jax.lookahead import map_ahead

SHARD_SIZE = 1024  # images: some 150 MB of photographs
JPEG_QUALITY = 95  # of images that are made smaller

# Each record on its own, and as it is: an encoded image hardly shrinks further.
_WRITER_OPTIONS = "group_size:1,uncompressed"


class PackResult(NamedTuple):
    """Result of `pack`."""

    manifest: Manifest
    kept: int  # shards that an earlier run had finished


class _Item(NamedTuple):
    """An image on its way into a shard."""

    name: str
    digest: bytes  # of name, target and image as the source gives them
    content: bytes | np.ndarray  # the source's image; once packed, the record
    target: np.ndarray  # [K]
    fault: str  # why there is no content


def pack(
    sources: Mapping[str, Source],
    output: Path,
    *,
    root: Path | None = None,
    short_side: int | None = None,
    shard_size: int = SHARD_SIZE,
    on_error: Literal["raise", "skip"] = "raise",
    threads: int = 8,
) -> PackResult:
    """Write the splits in `sources` as a packed data set, the folder `output`.

    Images go in byte for byte; with `short_side`, those whose shorter side is longer are scaled
    down to it (Pillow's Lanczos filter) and become upright JPEGs. Every image is decoded, to see
    that it can be. Run again, it goes on: shards that an earlier run finished are kept if their
    checksum holds and what they were made from is unchanged. The result is the same byte for byte.

    Args:
      sources: split → its images; readers look for "train" and "validation" first.
      root: names that lie in this folder are stored relative to it.
      shard_size: images in a shard.
      on_error: raise once all images were seen, or leave out those that cannot be read.

    Raises:
      DataError: images cannot be read, lists them; or `output` holds something else, or was begun
        with another data set or other options, and is left as it was.
      WorkdirError: another process packs into it.
    """
    manifest = _open_output(output, sources, {"short_side": short_side, "shard_size": shard_size})
    with locked(output):
        return _pack(manifest, sources, output, root, short_side, on_error, threads)


def _pack(
    manifest: Manifest,
    sources: Mapping[str, Source],
    output: Path,
    root: Path | None,
    short_side: int | None,
    on_error: Literal["raise", "skip"],
    threads: int,
) -> PackResult:
    kept, faults = 0, []
    total = sum(manifest.source_images.values())
    bar = progress(total=total, desc="packing", unit="image")
    with bar, ThreadPoolExecutor(threads) as pool:
        for split, name, indices in _plan(manifest):
            read = partial(_read, sources[split], root)
            make = partial(_make_record, sources[split], read, short_side)
            shards = manifest.shards[split]
            if old := shards.get(name):
                digests = (i.digest for i in map_ahead(pool, read, indices, ahead=4 * threads))
                is_wanted = (on_error == "skip" or not old.left_out) and not fault(output, old)
                if is_wanted and _joined(digests) == old.source_sha256:
                    kept += 1
                    bar.update(len(indices))
                    continue
                manifest.complete = False
                del shards[name]
                _save(manifest, output)
            temporary = output / f".{name}.tmp"
            items = map_ahead(pool, make, indices, ahead=4 * threads)
            shard = _write_shard(name, temporary, items, bar)
            if on_error == "raise" and shard.left_out:
                faults += shard.left_out
                temporary.unlink()
                continue
            files.place(temporary, output / name)
            shards[name] = shard
            _save(manifest, output)
    hint = "Repair them, or leave them out: --on_error=skip. What has been packed so far is kept."
    raise_faults(DataError, faults, hint)
    manifest.complete = True
    _save(manifest, output)
    return PackResult(manifest, kept)


def verify(folder: Path) -> Manifest:
    """Read every shard of a packed data set and compare its checksum.

    Raises:
      DataError: packing was not finished, or shards are missing or damaged; names each of them.
    """
    manifest = read_manifest(folder)
    shards = [shard for split in manifest.shards.values() for shard in split.values()]
    bar = progress(shards, desc="verifying", unit="shard")
    faults = [found for shard in bar if (found := fault(folder, shard))]
    if not manifest.complete:
        faults.insert(0, f"{folder / MANIFEST}: packing was not finished")
    if faults:
        raise DataError("\n".join(faults), "Run the `pack` command again: it keeps good shards.")
    return manifest


def _open_output(output: Path, sources: Mapping[str, Source], options: PackOptions) -> Manifest:
    """Return what there is of the data set in the folder, which is made if there is none."""
    first = next(iter(sources.values()))
    begun = Manifest(
        labels=first.labels,
        groups=getattr(first, "groups", NO_GROUPS),
        options=options,
        source_images={split: len(source) for split, source in sources.items()},
        shards={split: {} for split in sources},
    )
    if (output / MANIFEST).exists():
        there = read_manifest(output)
        differences = [
            f"{output / MANIFEST}: was begun with {part} {getattr(there, part)},"
            f" not {getattr(begun, part)}"
            for part in ("labels", "groups", "source_images", "options")
            if getattr(there, part) != getattr(begun, part)
        ]
        if differences:
            raise DataError("\n".join(differences), "Pack into another folder, or delete this one.")
        return there
    ours = f".{MANIFEST}."  # of a run that was stopped as it began
    if output.exists() and not (
        output.is_dir() and all(path.name.startswith(ours) for path in output.iterdir())
    ):
        raise DataError(f"{output}: is no packed data set, and not empty", "Name a new folder.")
    output.mkdir(parents=True, exist_ok=True)
    _save(begun, output)
    return begun


def _save(manifest: Manifest, output: Path) -> None:
    files.write_text(output / MANIFEST, manifest.to_json())


def _plan(manifest: Manifest) -> Iterator[tuple[str, str, range]]:
    """Split, file name and the indices of the images of each shard."""
    size = manifest.options["shard_size"]
    for split, images in manifest.source_images.items():
        count = -(-images // size)
        for number in range(count):
            indices = range(number * size, min((number + 1) * size, images))
            yield split, f"{split}-{number:05d}-of-{count:05d}.array_record", indices


def _read(source: Source, root: Path | None, index: int) -> _Item:
    name = source.name(index)
    if root is not None:
        name = name.removeprefix(f"{root}/")
    try:
        image, target = source[index]
    except DataError as error:
        digest = _digest(name.encode(), error.message.encode())
        return _Item(name, digest, b"", np.zeros(0), error.message)
    pixels = () if isinstance(image, bytes) else image.shape
    parts = (name.encode(), target.tobytes(), repr(pixels).encode(), bytes(image))
    return _Item(name, _digest(*parts), image, target, "")


def _make_record(
    source: Source, read: Callable[[int], _Item], short_side: int | None, index: int
) -> _Item:
    item = read(index)
    if item.fault:
        return item
    try:
        image = _encoded(item.content, short_side, place=source.place(index))
    except DataError as error:
        return item._replace(fault=error.message)
    return item._replace(content=encode_record(image, item.target, item.name))


def _encoded(image: bytes | np.ndarray, short_side: int | None, *, place: str) -> bytes:
    """Return the content of an image file, shrunk if its shorter side is above `short_side`."""
    pixels = decode_image(image, name=place) if isinstance(image, bytes) else image  # [H, W, 3]
    height, width = pixels.shape[:2]
    if short_side is not None and min(height, width) > short_side:
        factor = short_side / min(height, width)
        size = (round(width * factor), round(height * factor))
        smaller = Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS)
        return _file(smaller, "JPEG", quality=JPEG_QUALITY)
    return image if isinstance(image, bytes) else _file(Image.fromarray(image), "PNG")


def _file(image: Image.Image, kind: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _digest(*parts: bytes) -> bytes:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8))
        digest.update(part)
    return digest.digest()


def _joined(digests: Iterable[bytes]) -> str:
    return hashlib.sha256(b"".join(digests)).hexdigest()


def _write_shard(name: str, path: Path, items: Iterable[_Item], bar: tqdm) -> Shard:
    """Write the items that can be read to `path`; `name` is the file's final one."""
    from array_record.python.array_record_module import ArrayRecordWriter

    digests, left_out = [], []
    try:
        writer = ArrayRecordWriter(str(path), _WRITER_OPTIONS)
        for item in items:
            digests.append(item.digest)
            if item.fault:
                left_out.append(item.fault)
            else:
                writer.write(item.content)
            bar.update()
        writer.close()
    except RuntimeError as error:  # the disk is full, for instance
        path.unlink(missing_ok=True)  # nothing goes on from it, and it takes room
        hint = "Free some space, and run the same command again: it keeps the complete shards."
        raise DataError(f"{path}: cannot be written: {error}", hint) from error
    return Shard(
        file=name,
        images=len(digests) - len(left_out),
        bytes=path.stat().st_size,
        sha256=files.sha256(path),
        source_sha256=_joined(digests),
        left_out=left_out,
    )
