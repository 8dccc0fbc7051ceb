"""An exported file is only kept if its own runtime gives JAX's scores."""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from mlcls_jax.data.frame import Frame
from mlcls_jax.data.image_files import list_images
from mlcls_jax.data.images import read_image, resize
from mlcls_jax.errors import ExportError, NonFiniteError

log = logging.getLogger(__name__)

TOLERANCE = 1e-4  # of a score
# Networks that amplify rounding are further apart in float32. Then a runtime may be this many times
# as far from the scores in float64 as JAX itself is: on any image as on the worst, up to MOST, and
# on an image where JAX's distance allows more, that, if another image is left that allows less.
NOISE = 4
MOST = 1e-3
REFEREED_IMAGES = 8  # float64 is slow; those with the largest differences say enough
MOST_IMAGES = 64  # of a folder: more would tell nothing new

# Left, top, width, height: parts of scikit-learn's photographs, of 640 x 427 pixels.
_CROPS = ((0, 0, 640, 427), (40, 60, 240, 240), (330, 30, 280, 200), (180, 190, 200, 230))


def check_scores(
    wanted: Float[np.ndarray, "n K"],
    found: Float[np.ndarray, "n K"],
    *,
    what: str,
    exact: Callable[[np.ndarray], Float[np.ndarray, "m K"]] | None = None,
) -> float:
    """Return the largest difference of two runtimes' scores of the same images.

    `wanted` are JAX's. Where the difference is above 1e-4, `exact` is asked for the scores of the
    images at some positions in float64, to tell whether that is the noise of float32.

    Raises:
      NonFiniteError: scores are not numbers.
      ExportError: the difference is above 1e-4, and more than the noise of float32; or the shapes
        differ.
    """
    if wanted.shape != found.shape:
        raise ExportError(f"{what}: gives scores {found.shape} where JAX gives {wanted.shape}")
    if not (np.isfinite(wanted).all() and np.isfinite(found).all()):
        raise NonFiniteError(f"{what}: there are scores that are not numbers")
    differences = np.abs(wanted - found)
    largest = float(differences.max())
    if largest <= TOLERANCE:
        return largest
    worst, right, whose = np.argsort(differences.max(1))[-REFEREED_IMAGES:], wanted, "JAX"
    limits = np.full(len(worst), TOLERANCE)  # [m], per image
    if exact is not None:
        right, whose = wanted.astype(np.float64), "JAX in float64"
        right[worst] = exact(worst)
        ours = np.abs(wanted - right)[worst].max(1)
        limits[:] = min(max(NOISE * ours.max(), TOLERANCE), MOST)
        if NOISE * ours.min() <= MOST:
            limits = np.maximum(limits, NOISE * ours)
    far = np.abs(found - right)[worst]  # [m, K]
    if (far.max(1) <= limits).all():
        return largest
    at = int((far.max(1) - limits).argmax())
    image, label = worst[at], far[at].argmax()
    raise ExportError(
        f"{what}: its scores differ from those of {whose} by {far[at, label]:.2g}, more than"
        f" {limits[at]:.2g}: image {image}, label {label}: {found[image, label]:.6f}, {whose}"
        f" {right[image, label]:.6f}",
        "The file was not kept. Another release of the runtime may help.",
    )


def warn_if_alike(scores: Float[np.ndarray, "n K"]) -> None:
    """Warn where images have such similar scores that a wrong file would have them, too.

    That is so of a model that has hardly been trained, or to which these images are all nothing.
    """
    spread = float(np.ptp(scores, axis=0).max())
    if len(scores) > 1 and spread < 100 * TOLERANCE:
        log.warning(
            "The scores of the images that the files are checked on differ by %.1g at most, so that"
            " a wrong file could pass: images of your own, by --images FOLDER, tell more.",
            spread,
        )


def sample_images(size: tuple[int, int]) -> UInt8[np.ndarray, "8 H W 3"]:
    """Return eight parts of scikit-learn's two photographs, at `size` (height, width)."""
    from sklearn.datasets import load_sample_images

    photographs = load_sample_images().images  # two of uint8 [427, 640, 3]
    return np.stack(
        [
            resize(photograph[top : top + height, left : left + width], size)
            for photograph in photographs
            for left, top, width, height in _CROPS
        ]
    )


def read_images(path: str | Path | None, frame: Frame) -> UInt8[np.ndarray, "n H W 3"]:
    """Read an image, or up to 64 of a folder, spread over it; None: `sample_images`.

    Raises:
      InputError: there is none.
      DataError: one cannot be read.
    """
    if path is None:
        return sample_images(frame.size)
    paths = list_images(path)
    chosen = paths[:: -(-len(paths) // MOST_IMAGES)]
    return np.stack([frame(read_image(path)) for path in chosen])
