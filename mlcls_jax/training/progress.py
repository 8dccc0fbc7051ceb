"""How far a run has come, as its checkpoints record it beside the state."""

from dataclasses import asdict, dataclass
from typing import Any, Self


@dataclass(frozen=True)
class Best:
    """The best evaluation of a run so far; its weights are in the bundle `best_model`."""

    score: float  # by the main metric
    weights: str  # "raw" or "ema"
    epoch: int
    step: int
    metrics: dict[str, float]

    def facts(self) -> dict[str, Any]:
        """Return what the bundle tells about its weights."""
        return {name: value for name, value in asdict(self).items() if name != "score"}


@dataclass(frozen=True)
class Progress:
    """The part of a run before a step."""

    best: Best | None = None
    seconds: float = 0.0
    is_evaluation_due: bool = False  # the run was stopped before it

    def to_json(self, metric: str) -> dict[str, Any]:
        """Return the record for a checkpoint; `metric` is the main one."""
        best = self.best and {metric: self.best.score, **self.best.facts()}
        return {
            "best": best,
            "seconds": self.seconds,
            "is_evaluation_due": self.is_evaluation_due,
        }

    @classmethod
    def from_json(cls, record: dict[str, Any], metric: str) -> Self:
        """Return the progress from a checkpoint's record, of earlier versions too."""
        best = record["best"]
        if best is not None:
            rest: dict[str, Any] = {"metrics": {}, **best}
            best = Best(rest.pop(metric), **rest)
        return cls(best, record["seconds"], record.get("is_evaluation_due", False))
