"""The whole configuration: a mode, a seed and the sections."""

from dataclasses import dataclass, field
from typing import Literal

from mlcls_jax.config.field import option
from mlcls_jax.config.mode_sections import (
    CheckDataset,
    Evaluate,
    Export,
    Predict,
    Thresholds,
)
from mlcls_jax.config.training_sections import (
    Data,
    Distill,
    Log,
    Loss,
    Model,
    Optimizer,
    Parallel,
    Profile,
    Train,
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """A whole run."""

    mode: Literal[
        "train", "find_lr", "evaluate", "thresholds", "predict", "export", "check_dataset"
    ] = option("train", "what to do")
    seed: int = option(
        0, "fixes initial weights, dropout and the order of the data", min=0, max=2**31 - 1
    )
    model: Model = field(default_factory=Model)
    data: Data = field(default_factory=Data)
    train: Train = field(default_factory=Train)
    optimizer: Optimizer = field(default_factory=Optimizer)
    loss: Loss = field(default_factory=Loss)
    distill: Distill = field(default_factory=Distill)
    parallel: Parallel = field(default_factory=Parallel)
    profile: Profile = field(default_factory=Profile)
    evaluate: Evaluate = field(default_factory=Evaluate)
    thresholds: Thresholds = field(default_factory=Thresholds)
    predict: Predict = field(default_factory=Predict)
    export: Export = field(default_factory=Export)
    check_dataset: CheckDataset = field(default_factory=CheckDataset)
    log: Log = field(default_factory=Log)
