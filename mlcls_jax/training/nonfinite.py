"""The policy on numbers that are not finite: train.nonfinite and train.max_nonfinite."""

from dataclasses import dataclass
from enum import Enum, auto

from mlcls_jax.config import Train


class Verdict(Enum):
    """What to do about the numbers of a step."""

    KEEP = auto()
    LEAVE_OUT = auto()  # the step has changed nothing; training goes on
    GO_BACK = auto()  # to the last checkpoint, and on with half the learning rate
    STOP = auto()


@dataclass(frozen=True)
class Policy:
    """The verdicts for one run."""

    options: Train

    def judge(self, numbers: dict[str, float], *, earlier: int) -> Verdict:
        """Return what to do about a step with these numbers after `earlier` non-finite ones."""
        return Verdict.KEEP if numbers["finite"] else self.about_nonfinite(earlier + 1)

    def about_nonfinite(self, count: int) -> Verdict:
        """Return what to do when numbers are not finite for the `count`-th time."""
        if self.options.nonfinite == "stop" or count > self.options.max_nonfinite:
            return Verdict.STOP
        return Verdict.LEAVE_OUT if self.options.nonfinite == "skip" else Verdict.GO_BACK


def as_text(step: int, numbers: dict[str, float]) -> str:
    """Return what is known of a step whose numbers are not finite."""
    return (
        f"step {step}: the loss is {numbers['loss']} and the gradient's norm"
        f" {numbers['grad_norm']} (learning rate {numbers['learning_rate']:.3g})"
    )
