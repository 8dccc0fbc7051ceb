"""Thing or company: how far the score of a label hangs on the label that comes with it most.

On images with both, the places that speak for the label and for its companion are found by masking
(`inference/masking.py`). Then each is masked as a whole, and so are places of the companion's shape
elsewhere. The share of a label's score that hangs on its companion is what the companion's place
costs, as a part of what its own place costs, where what any place costs is taken from both.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from mlcls_jax.bars import progress
from mlcls_jax.data.sources import load
from mlcls_jax.data.types import Source
from mlcls_jax.errors import DataError
from mlcls_jax.inference.drawing import draw_evidence, scaled
from mlcls_jax.inference.masking import SIDE, WINDOWS, copies, falls, masked
from mlcls_jax.inference.predictor import Predictor
from mlcls_jax.reports.mistakes import PICTURE_SIDE

MIN_IMAGES = 8  # with both labels, for a number
PICTURES = 6
MUCH = 0.25  # of a score: what counts as a loss
PLACE = SIDE * SIDE // 5  # cells that are masked as a label's place

_ENOUGH = 16  # images of a pair
_ELSEWHERE = 3  # places of an image
_CHUNK = 16  # images whose places are masked together
_BOOTSTRAPS = 500
_SURE = (0.025, 0.975)

Run = Callable[[np.ndarray], np.ndarray]  # uint8 images [n, H, W, 3] → scores [n, K]


class Pair(NamedTuple):
    """A label and its usual companion."""

    label: int
    companion: int
    rows: np.ndarray  # int64 [n], those with both


@dataclass(frozen=True)
class Company:
    """A pair, and what became of the label's score on images with both."""

    label: int
    companion: int
    together: int  # images with both
    masked: int  # of them those that were masked
    scores: dict[str, float]  # mean score of the label: plain, own, companion, elsewhere
    alone: float | None  # its mean score on images with it and without the companion
    # That hangs on the companion, and a 95 % interval of it; None: masking the label's own place
    # costs little, so that nobody can tell.
    share: tuple[float, float, float] | None

    @property
    def hangs(self) -> bool:
        """Return whether the score comes from the companion: without it, it is lower, too.

        Of two labels that are read off one place, this tells the thing from the company. Of a label
        that never is without its companion, nobody can tell.
        """
        if self.share is None or self.alone is None:
            return False
        return self.share[1] >= MUCH and self.alone < (1 - MUCH) * self.scores["plain"]


@dataclass(frozen=True)
class Companions:
    """The companies of the labels, those that hang on them most first."""

    images: int  # that were masked
    untold: int  # pairs for which they did not suffice
    found: list[Company]
    pictures: dict[int, list[Image.Image]] = field(default_factory=dict)  # by label

    def to_json(self, labels: Sequence[str]) -> dict[str, Any]:
        """Return what the result file has."""
        return {
            "images": self.images,
            "labels": {
                labels[one.label]: {
                    "companion": labels[one.companion],
                    "together": one.together,
                    "masked": one.masked,
                    "score": one.scores | {"without_companion": one.alone},
                    "share": one.share and one.share[0],
                    "interval": one.share and list(one.share[1:]),
                    "hangs": one.hangs,
                }
                for one in self.found
            },
        }


def usual_pairs(targets: np.ndarray) -> list[Pair]:
    """Return each label with the one that it comes with most beyond chance, closest pair first.

    Close is a high correlation of the two labels over the images. At least `MIN_IMAGES` have both.
    """
    there = (targets >= 1).astype(np.float32)
    both, share = there.T @ there, there.mean(0)  # [K, K], [K]
    spread = np.sqrt(np.maximum(share * (1 - share), 1e-12))
    closeness = (both / len(there) - np.outer(share, share)) / np.outer(spread, spread)
    closeness[both < MIN_IMAGES] = 0
    np.fill_diagonal(closeness, 0)
    best = closeness.argmax(1)
    order = np.argsort(-closeness.max(1), kind="stable")
    return [
        Pair(int(k), int(best[k]), np.flatnonzero((there[:, k] > 0) & (there[:, best[k]] > 0)))
        for k in order
        if closeness[k, best[k]] > 0
    ]


def choose(pairs: Sequence[Pair], count: int, seed: int = 0) -> list[int]:
    """Return at most `count` rows that have as many of the pairs as possible, `_ENOUGH` each."""
    rng, chosen = np.random.default_rng(seed), dict[int, None]()
    for pair in pairs:
        have = sum(row in chosen for row in pair.rows.tolist())
        new = [row for row in rng.permutation(pair.rows).tolist() if row not in chosen]
        wanted = new[: max(0, _ENOUGH - have)]
        if have + min(len(wanted), count - len(chosen)) >= MIN_IMAGES:
            chosen |= dict.fromkeys(wanted[: count - len(chosen)])
    return [*chosen]


def measure_companions(
    predictor: Predictor,
    source: Source,
    indices: np.ndarray,
    scores: np.ndarray,
    targets: np.ndarray,
    count: int,
) -> Companions:
    """Mask parts of images, `count` at most, and tell how far labels hang on their companions.

    Scores and targets are [N, K], `indices` [N] the places of their rows in the source. The
    predictor computes `WINDOWS` images at once, so that it is compiled once.
    """
    pairs = usual_pairs(targets)
    rows = choose(pairs, count)
    seen = _Seen(pairs)
    bar = progress(total=len(rows), desc="masking", unit=" images")
    for start in range(0, len(rows), _CHUNK):
        images = dict[int, np.ndarray]()
        for row in rows[start : start + _CHUNK]:
            bar.update()
            with suppress(DataError):  # it could be read a moment ago
                images[row] = predictor.prepare(load(source, int(indices[row]))[0])
        seen.look(predictor.run, images)
    bar.close()
    found = [
        _company(pair, np.array([*by_row.values()]), scores, targets)
        for pair in pairs
        if len(by_row := seen.fallen[pair.label]) >= MIN_IMAGES
    ]
    found.sort(key=lambda one: -one.share[0] if one.share else 1)
    pictures = {}
    for one in [one for one in found if one.share][:PICTURES]:
        by_row = seen.fallen[one.label]
        row = max(by_row, key=lambda row: by_row[row][0])
        pictures[one.label] = _draw(source, int(indices[row]), predictor, seen.maps[row], one)
    return Companions(len(seen.maps), len(pairs) - len(found), found, pictures)


class _Seen:
    """What masking has shown so far."""

    def __init__(self, pairs: Sequence[Pair]) -> None:
        self.of_row: dict[int, list[Pair]] = {}
        for pair in pairs:
            for row in pair.rows.tolist():
                self.of_row.setdefault(row, []).append(pair)
        # label → row → its score: plain, own place masked, companion's, elsewhere
        self.fallen: dict[int, dict[int, tuple[float, ...]]] = {pair.label: {} for pair in pairs}
        self.maps: dict[int, dict[int, np.ndarray]] = {}  # row → label → [SIDE, SIDE]
        self._rng = np.random.default_rng(0)

    def look(self, run: Run, images: Mapping[int, np.ndarray]) -> None:
        """Mask parts of the images of some rows, given in the network's size."""
        if not images:
            return
        plain = _in_full_batches(run, np.stack([*images.values()]))
        tests, hidden = list[tuple[int, int, float]](), []
        for (row, image), scores in zip(images.items(), plain, strict=True):
            labels = sorted({k for pair in self.of_row[row] for k in pair[:2]})
            fallen = falls(scores, run(copies(image)))
            self.maps[row] = dict(zip(labels, fallen[labels], strict=True))
            places = {k: _place(fallen) for k, fallen in self.maps[row].items()}
            for label, companion, _ in self.of_row[row]:
                moves = self._rng.integers(SIDE, size=(_ELSEWHERE, 2)).tolist()
                others = [np.roll(places[companion], move, (0, 1)) for move in moves]
                hidden.append(masked(image, np.stack([places[label], places[companion], *others])))
                tests.append((row, label, float(scores[label])))
        found = _in_full_batches(run, np.concatenate(hidden)).reshape(
            len(tests), -1, plain.shape[1]
        )
        for (row, label, score), scores in zip(tests, found, strict=True):
            own, companion, *others = scores[:, label].tolist()
            self.fallen[label][row] = score, own, companion, float(np.mean(others))


def _in_full_batches(run: Run, images: np.ndarray) -> np.ndarray:
    """Return the scores of images, computed by the program that computes maps."""
    padding = np.zeros((-len(images) % WINDOWS, *images.shape[1:]), images.dtype)
    return run(np.concatenate([images, padding]))[: len(images)]


def _place(fallen: np.ndarray) -> np.ndarray:
    """Return the cells, bool [SIDE, SIDE], that speak for a label most."""
    order = np.argsort(-fallen, axis=None, kind="stable")
    place = np.zeros(SIDE * SIDE, bool)
    place[order[:PLACE]] = True
    return place.reshape(SIDE, SIDE)


def _company(pair: Pair, fallen: np.ndarray, scores: np.ndarray, targets: np.ndarray) -> Company:
    """Return what scores `fallen` [n, 4], in the order of `_Seen.fallen`, say of a pair."""
    alone = (targets[:, pair.label] >= 1) & (targets[:, pair.companion] == 0)
    _, own, companion, elsewhere = fallen.T
    costs = np.stack([elsewhere - companion, elsewhere - own], 1)  # [n, 2]
    draws = np.random.default_rng(0).integers(len(costs), size=(_BOOTSTRAPS, len(costs)))
    drawn = costs[draws].mean(1)  # [B, 2]
    share = None
    if np.quantile(drawn[:, 1], _SURE[0]) > 0 and costs[:, 1].mean() >= MUCH * fallen[:, 0].mean():
        ratios = drawn[:, 0] / np.maximum(drawn[:, 1], 1e-9)
        found = [costs[:, 0].mean() / costs[:, 1].mean(), *np.quantile(ratios, _SURE)]
        value, low, high = np.clip(found, 0, 1).tolist()
        share = value, low, high
    return Company(
        pair.label,
        pair.companion,
        len(pair.rows),
        len(fallen),
        dict(zip(("plain", "own", "companion", "elsewhere"), fallen.mean(0).tolist(), strict=True)),
        float(scores[alone, pair.label].mean()) if alone.any() else None,
        share,
    )


def _draw(
    source: Source, index: int, predictor: Predictor, maps: dict[int, np.ndarray], one: Company
) -> list[Image.Image]:
    """Draw where the label and its companion are seen."""
    image = load(source, index)[0]
    picture = scaled(Image.fromarray(image), PICTURE_SIDE / max(image.shape[:2]))
    frame = predictor.bundle.frame
    both = (np.maximum(maps[k], 0) for k in (one.label, one.companion))
    return [draw_evidence(np.asarray(picture), map, frame) for map in both]
