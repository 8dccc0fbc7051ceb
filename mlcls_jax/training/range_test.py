"""A learning-rate range test (Smith, 2017): the rate rises step by step until the loss explodes."""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

STEPS = 100
LOWEST, HIGHEST = 1e-6, 10.0
WINDOW = 4  # steps on each side that a loss is averaged with: batches differ
DIVERGED = 4.0  # times the lowest loss
FALL = 0.02  # of the first loss, below which nothing is learnt


@dataclass(frozen=True)
class Curve:
    """Losses by rate, one entry a step, up to the last finite one."""

    rates: np.ndarray  # rising
    losses: np.ndarray

    @property
    def smooth(self) -> np.ndarray:
        """The losses, each averaged with those around it."""
        padded = np.pad(self.losses, WINDOW, mode="edge")
        width = 2 * WINDOW + 1
        return np.convolve(padded, np.full(width, 1 / width), mode="valid")

    @property
    def lowest(self) -> float | None:
        """The rate at which the loss is lowest; None if it hardly falls."""
        smooth = self.smooth
        best = int(smooth.argmin())
        if smooth[best] > (1 - FALL) * smooth[0]:
            return None
        return float(self.rates[best])

    @property
    def suggestion(self) -> float | None:
        """Midway, by factors, from where the loss falls fastest to `lowest`; None as there."""
        if self.lowest is None:
            return None
        slope = np.gradient(self.smooth, np.log(self.rates))
        before = self.rates <= self.lowest
        steepest = float(self.rates[np.where(before, slope, np.inf).argmin()])
        return math.sqrt(steepest * self.lowest)


def has_diverged(losses: list[float]) -> bool:
    """Return whether the last loss says that a higher rate is of no use."""
    if not math.isfinite(losses[-1]):
        return True
    recent = losses[-WINDOW:]  # one bad batch is none
    return len(recent) == WINDOW and min(recent) > DIVERGED * min(losses)


def rising_rate(step: ArrayLike) -> jax.Array:
    """Return the learning rate of a step, from `LOWEST` by equal factors to `HIGHEST`."""
    share = jnp.minimum(jnp.asarray(step) / (STEPS - 1), 1)
    return LOWEST * (HIGHEST / LOWEST) ** share
