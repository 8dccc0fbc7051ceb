"""A bundle as a file or folder for another runtime, checked by that runtime before it is kept."""

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from mlcls_jax import files, lazy
from mlcls_jax.config import EXPORT_FORMATS
from mlcls_jax.errors import InputError
from mlcls_jax.inference.bundle import EXPORTED, Bundle, copy_bundle, model_folder, read_bundle
from mlcls_jax.inference.exports.format import Format
from mlcls_jax.inference.exports.verify import check_scores, read_images, warn_if_alike
from mlcls_jax.inference.precision import in_dtype

log = logging.getLogger(__name__)


class Exported(NamedTuple):
    """A file or folder that was written and checked."""

    path: Path
    bytes: int
    largest_difference: float  # of a score, from JAX


def export(
    model: str | Path,
    output: Path,
    formats: Sequence[str],
    images: str | Path | None = None,
) -> dict[str, Exported]:
    """Write the bundle and the files of `formats` to the folder `output`.

    Files of an earlier export are replaced, one by one; others are left alone. When a format fails,
    the formats before it are there, and the later ones are as they were.

    Args:
      model: a bundle, a run, or an address on the hub.
      output: made if need be.
      formats: some of `EXPORT_FORMATS`.
      images: an image or a folder of images, which the scores are compared on; None: parts of two
        photographs.

    Raises:
      InputError: there is no such format, or no image.
      WeightsError: the bundle cannot be read.
      UserError: a runtime is not installed, or its scores are not those of JAX.
    """
    if unknown := [name for name in formats if name not in EXPORT_FORMATS]:
        known = ", ".join(EXPORT_FORMATS)
        raise InputError(f"{', '.join(unknown)}: there is no such format", f"There are: {known}.")
    log.info("Writing %s as bundle, %s to %s …", model, ", ".join(formats), output)
    folder = model_folder(model)
    bundle = read_bundle(folder)
    shown = read_images(images, bundle.frame)  # uint8 [n, H, W, 3]
    wanted = reference_scores(bundle, shown)
    warn_if_alike(wanted)
    copy_bundle(bundle, folder, output / EXPORTED)
    exported = {}
    for name in formats:
        kind = find_format(name)
        path = output / kind.place.format(model=bundle.model.network.config.name)
        difference = write_checked(kind, bundle, path, shown, wanted)
        if kind.describe:
            files.write_json(path.with_name(f"{path.name}.json"), kind.describe(path))
        size = sum(one.stat().st_size for one in (path, *path.rglob("*")) if one.is_file())
        exported[name] = Exported(path, size, difference)
        log.debug(
            "%s: %.1f MB; scores as JAX's but for %.1g, on %d images.",
            *(path, size / 1e6, difference, len(shown)),
        )
    return exported


def find_format(name: str) -> Format:
    """Return the format of this name: `FORMAT` of the module that is named like it."""
    return lazy.load(f"{__name__}.{name}.FORMAT")


def write_checked(
    kind: Format, bundle: Bundle, path: Path, images: np.ndarray, wanted: np.ndarray
) -> float:
    """Write `path`, unless the scores of its runtime are not the `wanted` ones; see `check_scores`.

    Returns the largest difference.
    """
    differences = []

    def fill(temporary: Path) -> None:
        kind.write(in_dtype(bundle, "float32"), temporary)
        found = kind.load(temporary)(images)
        exact = partial(exact_scores, bundle, images)
        differences.append(check_scores(wanted, found, what=str(path), exact=exact))

    if kind.is_folder:
        files.replace_folder(path, fill)
    else:
        with files.replacing(path) as temporary:
            fill(temporary)
    return differences[0]


def reference_scores(bundle: Bundle, images: np.ndarray) -> np.ndarray:
    """Return JAX's scores [n, K] of uint8 images [n, H, W, 3], which every runtime must give."""
    bundle = in_dtype(bundle, "float32").on(jax.local_devices()[:1])
    with jax.default_matmul_precision("float32"):
        return np.asarray(jax.jit(bundle.scores)(bundle.model.variables, images))


def exact_scores(bundle: Bundle, images: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Return scores [m, K], computed in float64, of some of the images [n, H, W, 3]."""
    with jax.enable_x64(True):
        bundle = in_dtype(bundle, "float64").on(jax.local_devices()[:1])
        variables = jax.tree.map(
            lambda array: np.asarray(array, np.float64), bundle.model.variables
        )
        return np.asarray(jax.jit(bundle.scores)(variables, images[positions]))
