"""Pictures that a run leaves behind: predictions beside the truth, and images to try."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from mlcls_jax import files
from mlcls_jax.data.sources import load
from mlcls_jax.data.types import Source
from mlcls_jax.errors import DataError
from mlcls_jax.inference.bundle import read_bundle
from mlcls_jax.inference.drawing import draw_grid
from mlcls_jax.inference.predictor import Predictor
from mlcls_jax.readable import first_of
from mlcls_jax.reports.mistakes import Decisions
from mlcls_jax.workdir import PREDICTIONS

RIGHT, WRONG = (0, 110, 50), (190, 30, 30)
_EVERY_S = 30.0


def write_pictures(
    count: int, validation: Source, best_model: Path, workdir: Path
) -> dict[str, str]:
    """Write `predictions.png`: the first validation images, with labels right, wrong and missed.

    For a source without files of its own, also a folder `samples` with these images.

    Returns:
      Name → path of what was written.
    """
    examples = _readable(validation, count)
    if not examples:
        return {}
    predictor = Predictor(read_bundle(best_model), batch_size=len(examples))
    scores = predictor.scores([image for _, image, _ in examples])
    _draw(examples, predictor.bundle.decide(scores), validation, workdir)
    written = {"predictions": str(workdir / PREDICTIONS)}
    if not Path(examples[0][0]).exists():
        samples = workdir / "samples"
        samples.mkdir(exist_ok=True)
        for name, image, _ in examples:
            # Names of packed images and of TFDS may hold folders.
            with files.replacing(samples / f"{name.replace('/', '_')}.png") as temporary:
                Image.fromarray(image).save(temporary, format="PNG")
        written["samples"] = str(samples)
    return written


def current_pictures(
    count: int, validation: Source, threshold: float | None, workdir: Path
) -> Callable[[np.ndarray, np.ndarray], None]:
    """Return what writes `predictions.png` of scores and targets [N, K] of validation images.

    It does so every half minute at most. A `threshold` of None is for one label per image.
    """
    drawn = -math.inf

    def draw(scores: np.ndarray, targets: np.ndarray) -> None:
        nonlocal drawn
        if time.monotonic() - drawn < _EVERY_S:
            return
        drawn = time.monotonic()
        if examples := _readable(validation, count):  # which are the first rows
            limits = None if threshold is None else np.asarray(threshold)
            decisions = Decisions(scores, targets, limits)
            _draw(examples, decisions.reported(slice(len(examples))), validation, workdir)

    return draw


def _draw(
    examples: list[tuple[str, np.ndarray, np.ndarray]],
    decided: np.ndarray,  # bool [n, K]
    source: Source,
    workdir: Path,
) -> None:
    captions, colors = [], []
    for (_, _, target), predicted in zip(examples, decided, strict=True):
        judged = judge(predicted, target)
        captions.append(caption(source.labels, judged))
        colors.append(WRONG if (judged["wrong: "] | judged["missed: "]).any() else RIGHT)
    picture = draw_grid([image for _, image, _ in examples], captions, caption_colors=colors)
    with files.replacing(workdir / PREDICTIONS) as temporary:
        picture.save(temporary, format="PNG")


def _readable(source: Source, count: int) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Return name, image and target of the first `count` examples, unreadable ones left out."""
    found = []
    for index in range(len(source)):
        if len(found) == count:
            break
        try:
            found.append((source.name(index), *load(source, index)))
        except DataError:  # the pipeline has reported it already
            continue
    return found


def judge(predicted: np.ndarray, target: np.ndarray) -> dict[str, np.ndarray]:
    """Return what to say of an image's labels → bool [K], those of which it holds.

    `predicted` is bool [K]; `target` [K] has 1 present, 0 absent, below 0 not annotated.
    """
    is_known, truth = target >= 0, target > 0.5
    return {
        "": predicted & truth,
        "wrong: ": predicted & is_known & ~truth,
        "missed: ": truth & ~predicted,
        "not annotated: ": predicted & ~is_known,
    }


def caption(labels: Sequence[str], judged: Mapping[str, np.ndarray]) -> str:
    """Return the names of labels, by what `judge` found of them."""
    lines = [
        what + ", ".join(first_of([labels[int(k)] for k in np.flatnonzero(which)]))
        for what, which in judged.items()
        if which.any()
    ]
    return "\n".join(lines) or "none"
