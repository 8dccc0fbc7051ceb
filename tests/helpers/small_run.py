"""A run that compiles in a moment: the backbone of tests on boards of digits.

Modules whose runs are of it use the fixture `toy`.
"""

from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from mlcls_jax import config as schema
from mlcls_jax.modes.train import train

MODEL = schema.Model(name="Toy", image_size=(32, 32))


def small(*, epochs: int = 2, optimizer: dict | None = None, **sections) -> schema.Config:
    """Two epochs of four steps of eight boards."""
    train_options = {"epochs": epochs, "batch_size": 8, "log_steps": 1} | sections.pop("train", {})
    rates = {"learning_rate": 1e-3, "schedule": "constant", "warmup_epochs": 0.0}
    return schema.Config(
        model=sections.pop("model", MODEL),
        data=schema.Data(source="digits", epoch_size=32, val_size=16),
        train=schema.Train(**train_options),
        optimizer=schema.Optimizer(**(rates | (optimizer or {}))),
        loss=sections.pop("loss", schema.Loss(name="multilabel")),
        evaluate=schema.Evaluate(batch_size=16),
        log=schema.Log(tensorboard=False, pictures=0),
        **sections,
    )


def run(config: schema.Config, workdir: Path) -> dict[str, Any]:
    """Train in a new workdir, or go on in one, and return the result as its file has it."""
    workdir.mkdir(exist_ok=True)
    result = train(config, workdir)
    assert result is not None
    return result.to_json()


def assert_same_weights(workdir: Path, other: Path) -> None:
    """Assert that the best models of two runs are equal bit for bit."""
    ours, theirs = (load_file(run / "best_model/weights.safetensors") for run in (workdir, other))
    for name, values in theirs.items():
        np.testing.assert_array_equal(ours[name], values)
