"""Test-time augmentation: a picture is seen several times, and its logits are averaged."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mlcls_jax.config.tta import FLIP, scales_of, tta_faults
from mlcls_jax.data.frame import Frame
from mlcls_jax.errors import InputError
from mlcls_jax.inference.bundle import Bundle
from mlcls_jax.models.registry import stride

# Scores are float32, and 1 has no logit: nearer to it there is none to be told apart.
_MOST, _LEAST = 1 - 2.0**-24, 1e-30

Scores = Callable[[np.ndarray], np.ndarray]  # images [n, H, W, 3] → scores [n, K]


@dataclass(frozen=True)
class Views:
    """The views of a picture: it in every frame, and mirrored in each if that is asked for."""

    frames: tuple[Frame, ...]  # the bundle's own first
    is_mirrored: bool
    task: str

    @classmethod
    def of(cls, bundle: Bundle, tta: Sequence[str] = ()) -> "Views":
        """Return the views that `tta` names, besides the plain one.

        Args:
          bundle: the model.
          tta: `flip`; and `scale:FACTOR`, at which the network sees larger or smaller images of the
            same part: their sides are multiples of its stride.

        Raises:
          InputError: there is no such view, or a factor changes nothing.
        """
        if isinstance(tta, str):
            tta = (tta,)
        if faults := [*tta_faults("tta", tta)]:
            raise InputError("\n".join(faults))
        config, frames = bundle.model.network.config, [bundle.frame]
        step = stride(config.name)
        for factor in scales_of(tta):
            frame = bundle.frame.scaled(factor, step)
            if frame.size in [known.size for known in frames]:
                height, width = frame.size
                raise InputError(
                    f"tta has scale:{factor:g}: images of {height} x {width} are there already",
                    f"Sides are multiples of {step}: take another factor.",
                )
            frames.append(frame)
        return cls(tuple(frames), FLIP in tta, config.task)

    def prepare(self, picture: np.ndarray) -> tuple[np.ndarray, ...]:
        """Return the picture in every frame, not mirrored."""
        return tuple(frame(picture) for frame in self.frames)

    def scores(self, run: Scores, prepared: Sequence[tuple[np.ndarray, ...]]) -> np.ndarray:
        """Return the scores [n, K] of prepared pictures, those of all views averaged.

        `run` computes the scores of images [n, H, W, 3], of each frame in turn.
        """
        seen = []
        for images in map(np.stack, zip(*prepared, strict=True)):
            seen.append(run(images))
            if self.is_mirrored:
                seen.append(run(mirrored(images)))
        return seen[0] if len(seen) == 1 else averaged(np.stack(seen), self.task)


def mirrored(images: np.ndarray) -> np.ndarray:
    """Return images [n, H, W, 3] with left and right exchanged."""
    return np.ascontiguousarray(images[:, :, ::-1])


def averaged(scores: np.ndarray, task: str) -> np.ndarray:
    """Return scores float32 [n, K] whose logits are the means of those of scores [V, n, K].

    Logits, since so a temperature may be applied before or after, and thresholds chosen on averaged
    logits hold for averaged scores.
    """
    known = np.clip(scores.astype(np.float64), _LEAST, _MOST)
    if task == "single":
        weights = np.exp(np.log(known).mean(0))
        return (weights / weights.sum(-1, keepdims=True)).astype(np.float32)
    logits = (np.log(known) - np.log1p(-known)).mean(0)
    return (1 / (1 + np.exp(-logits))).astype(np.float32)
