"""Where in an image the score of a label comes from: parts are masked, and the scores compared.

It needs nothing but scores, and so fits every network and backend. A map has `SIDE` × `SIDE` cells.
Windows of up to 2 × 2 cells are painted over with the image's mean colour, one at a time; a cell is
worth what the label's log-odds fall, on the average, in the windows that have it.
"""

import numpy as np
from jaxtyping import Bool, Float, UInt8

SIDE = 7
WINDOWS = (SIDE + 1) ** 2  # images that a map takes

_TINY = 1e-7  # from scores of 0 and 1


def masked(
    image: UInt8[np.ndarray, "H W 3"], cells: Bool[np.ndarray, "n side side"]
) -> UInt8[np.ndarray, "n H W 3"]:
    """Return copies of the image, in each of which some cells have its mean colour."""
    height, width = image.shape[:2]
    rows, columns = (np.arange(size) * SIDE // size for size in (height, width))
    hidden = cells[:, rows][:, :, columns]  # [n, H, W]
    mean = np.rint(image.mean((0, 1))).astype(np.uint8)
    return np.where(hidden[..., None], mean, image)


def copies(
    image: UInt8[np.ndarray, "H W 3"], windows: slice = slice(None)
) -> UInt8[np.ndarray, "n H W 3"]:
    """Return a copy of the image for each of the `WINDOWS` windows, or some, which is masked."""
    return masked(image, _WINDOWS[windows])


def shares(
    scores: Float[np.ndarray, " K"], masked_scores: Float[np.ndarray, "WINDOWS K"]
) -> Float[np.ndarray, "K side side"]:
    """Return the share of each cell in what makes scores fall, as maps of attention have it.

    A map adds up to 1; it is 0 everywhere where no cell speaks for the label. `scores` are those of
    an image, `masked_scores` those of its `copies`.
    """
    found = np.maximum(falls(scores, masked_scores), 0)
    return (found / np.maximum(found.sum((1, 2), keepdims=True), _TINY)).astype(np.float32)


def falls(
    scores: Float[np.ndarray, " K"], masked_scores: Float[np.ndarray, "WINDOWS K"]
) -> Float[np.ndarray, "K side side"]:
    """Return by how much the log-odds of each label fall where a cell is masked; see `shares`."""
    fallen = _log_odds(scores) - _log_odds(masked_scores)  # [WINDOWS, K]
    return np.einsum("wk,wyx->kyx", fallen, _WINDOWS / 4)  # a cell is in four windows


def _log_odds(scores: np.ndarray) -> np.ndarray:
    bounded = np.clip(scores.astype(np.float64), _TINY, 1 - _TINY)
    return np.log(bounded / (1 - bounded))


def _windows() -> Bool[np.ndarray, "n side side"]:
    places = np.arange(SIDE)[None] - np.arange(SIDE + 1)[:, None]
    line = (places == 0) | (places == -1)  # [SIDE + 1, SIDE]
    return (line[:, None, :, None] & line[None, :, None]).reshape(WINDOWS, SIDE, SIDE)


_WINDOWS = _windows()
