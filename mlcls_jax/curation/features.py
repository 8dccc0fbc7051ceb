"""Embeddings of the images of a data set, computed once and kept by what the images contain.

The user's cache folder has a folder for each model and its view of images; in it are parts, each
with the digests of some images and their embeddings. So images that are listed anew, moved or
renamed are not computed again, and an image that has changed is.
"""

import hashlib
import logging
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mlcls_jax import __version__, files
from mlcls_jax.bars import progress
from mlcls_jax.data.sources import load
from mlcls_jax.data.types import Source
from mlcls_jax.errors import DataError, InputError
from mlcls_jax.inference.bundle import Bundle
from mlcls_jax.inference.predictor import Predictor
from mlcls_jax.lookahead import map_ahead
from mlcls_jax.models.network import flatten

log = logging.getLogger(__name__)

THREADS = 8
PART = 2048  # images of a part: what an interruption may lose

_DIGEST = 16  # bytes


@dataclass(frozen=True)
class Embedded:
    """The embeddings of those images of a source that can be read."""

    indices: np.ndarray  # int64 [N], their places in the source
    vectors: np.ndarray  # float32 [N, C]
    targets: np.ndarray  # float32 [N, K]
    broken: dict[int, str]  # place of one that cannot be read → message


def embed(predictor: Predictor, source: Source, count: int | None = None) -> Embedded:
    """Return the embeddings of the images of a source, from the cache as far as it has them.

    Images that cannot be read are left out, with a warning. `count` is of the first images; None:
    all of them.

    Raises:
      DataError: none can be read.
    """
    folder = files.cache_folder("embeddings") / _key(predictor.bundle)
    count = len(source) if count is None else min(count, len(source))
    broken: dict[int, str] = {}
    digests: dict[int, bytes] = {}
    targets: dict[int, np.ndarray] = {}
    for index, digest, target in _read(source, count, broken):
        digests[index], targets[index] = digest, target
    known = _kept(folder)
    first = {digest: index for index, digest in digests.items() if digest not in known}
    waiting = list(first.values())
    if waiting:
        log.info(
            "Computing embeddings of %s images; those of %s are kept from before.",
            f"{len(waiting):,}", f"{len(digests) - len(waiting):,}",
        )  # fmt: skip
    with progress(total=len(waiting), desc="embeddings", unit=" images") as bar:
        for start in range(0, len(waiting), PART):
            some = waiting[start : start + PART]
            found = {digests[i]: v for i, v in _computed(predictor, source, some, broken)}
            _keep(folder, found)
            known |= found
            bar.update(len(some))
    for message in broken.values():
        log.warning("left out: %s", message)
    kept = [index for index in digests if digests[index] in known]
    if not kept:
        raise DataError("none of the images can be read", next(iter(broken.values()), None))
    return Embedded(
        np.array(kept),
        np.stack([known[digests[index]] for index in kept]),
        np.stack([targets[index] for index in kept]),
        broken,
    )


def _key(bundle: Bundle) -> str:
    """Return what names the model and how it sees images."""
    total = hashlib.sha256(f"{__version__} {bundle.frame} {bundle.weights_sha256}".encode())
    if not bundle.weights_sha256:  # of a weight file
        for path, array in sorted(flatten(bundle.model.variables).items()):
            total.update(path.encode())
            total.update(np.asarray(array).tobytes())
    return f"{bundle.model.network.config.name}-{total.hexdigest()[:16]}"


def _read(
    source: Source, count: int, broken: dict[int, str]
) -> Iterator[tuple[int, bytes, np.ndarray]]:
    """Yield place, digest and target of the images that can be read."""

    def read(index: int) -> tuple[bytes, np.ndarray] | str:
        try:
            image, target = source[index]
        except DataError as error:
            return error.message
        total = hashlib.blake2b(digest_size=_DIGEST)
        if isinstance(image, np.ndarray):
            total.update(repr(image.shape).encode())
            image = image.tobytes()
        total.update(image)
        return total.digest(), target

    with ThreadPoolExecutor(THREADS) as pool:
        found = map_ahead(pool, read, range(count), 4 * THREADS)
        bar = progress(found, total=count, desc="reading", unit=" images")
        for index, result in enumerate(bar):
            if isinstance(result, str):
                broken[index] = result
            else:
                yield index, *result


def _computed(
    predictor: Predictor, source: Source, indices: Sequence[int], broken: dict[int, str]
) -> list[tuple[int, np.ndarray]]:
    """Return the embeddings of those of these images that can be decoded."""

    def pixels(index: int) -> np.ndarray | str:
        try:
            return load(source, index)[0]
        except DataError as error:
            return error.message

    with ThreadPoolExecutor(THREADS) as pool:
        images = zip(indices, map_ahead(pool, pixels, indices, 4 * THREADS), strict=True)
        read: list[int] = []

        def decoded() -> Iterator[np.ndarray]:
            for index, image in images:
                if isinstance(image, str):
                    broken[index] = image
                else:
                    read.append(index)
                    yield image

        try:
            vectors = predictor.embed(decoded())
        except InputError:
            if read:
                raise
            return []  # none of them could be decoded
    return list(zip(read, vectors, strict=True))


def _kept(folder: Path) -> dict[bytes, np.ndarray]:
    known: dict[bytes, np.ndarray] = {}
    for path in folder.glob("*.npz"):
        part = files.read_arrays(path, "digests", "vectors")
        if part is not None:
            known |= zip((row.tobytes() for row in part["digests"]), part["vectors"], strict=True)
    return known


def _keep(folder: Path, found: dict[bytes, np.ndarray]) -> None:
    if not found:
        return
    folder.mkdir(parents=True, exist_ok=True)
    digests = np.frombuffer(b"".join(found), np.uint8).reshape(-1, _DIGEST)
    with (
        files.replacing(folder / f"{uuid.uuid4().hex}.npz") as temporary,
        temporary.open("wb") as f,
    ):
        np.savez(f, digests=digests, vectors=np.stack(list(found.values())))
