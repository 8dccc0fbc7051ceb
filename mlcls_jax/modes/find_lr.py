"""mode=find_lr: a learning rate for a run, by a test of a hundred of its own steps."""

import logging
import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mlcls_jax import config as schema
from mlcls_jax import files, parallel, usage
from mlcls_jax.errors import NonFiniteError
from mlcls_jax.modes.result import remarks
from mlcls_jax.reports.rate_chart import draw_rates
from mlcls_jax.training.optimizer import scaled_rate
from mlcls_jax.training.range_test import STEPS, Curve, has_diverged, rising_rate
from mlcls_jax.training.run import prepare

log = logging.getLogger(__name__)

FOLDER = "find_lr"  # in the workdir: no file of a run is touched
KEY = "optimizer.learning_rate"
TOLD_EVERY = 20  # steps


@dataclass(frozen=True, kw_only=True)
class FindLrResult:
    """What the test found; rates are those of the option `optimizer.learning_rate`."""

    suggestion: float | None  # None: the loss hardly falls at any rate
    lowest_loss_at: float | None
    configured: float
    steps: int
    picture: str
    table: str

    def to_json(self) -> dict[str, Any]:
        """Return the content of `find_lr_result.json`."""
        return asdict(self)

    def summary(self, config: schema.Config, workdir: Path, command: str) -> list[str]:
        """Return the rate that is suggested, and the command that uses it."""
        lines = [f"  curve  {self.picture}", f"  table  {self.table}"]
        if self.suggestion is None:
            told = "the loss hardly falls at any rate: look at the data, the weights and the curve."
            return [*lines, *remarks(workdir / FOLDER, warnings=[told])]
        program = usage.program()
        flags = command.removeprefix(program).strip()
        return [
            f"Learning rate: {self.suggestion:.1e}, midway down the slope; the loss is"
            f" lowest at {self.lowest_loss_at:.1e}. The configuration has {self.configured:g}.",
            *lines,
            "Next:",
            f"  {program} train {flags} --config.{KEY}={self.suggestion:.1e}",
        ]


def find_lr(config: schema.Config, workdir: Path) -> FindLrResult | None:
    """Take a hundred steps from the start of the run, with a rate that rises until it is too much.

    Nothing but the rate differs from the run's own steps, and nothing of a run in the workdir is
    touched. Features are computed anew where the run would keep them.

    Returns:
      The outcome; None in all processes but the first.

    Raises:
      NonFiniteError: the very first loss is not finite.
      UserError: the configuration or the data is wrong.
    """
    folder = workdir / FOLDER
    log.info("Up to %d steps of %s at rising rates; see %s.", STEPS, config.model.name, folder)
    test = replace(
        config,
        data=replace(config.data, feature_views=0),
        train=replace(config.train, epochs=STEPS, ema_decay=0.0),  # as many steps at the least
    )
    run = prepare(test, folder, schedule=rising_rate)
    state, losses = run.first_state(), []
    rates = np.asarray([float(rising_rate(step)) for step in range(STEPS)])
    batches = parallel.put_ahead(run.train_batches(0), run.mesh)
    for step, batch in zip(range(STEPS), batches, strict=False):
        state, numbers = run.step(state, batch, run.teacher)
        losses.append(float(numbers["loss"]))
        if (step + 1) % TOLD_EVERY == 0:
            log.info(
                "Step %d of %d: rate %.1e, loss %.4g.", step + 1, STEPS, rates[step], losses[-1]
            )
        if has_diverged(losses):
            log.info("Step %d: the loss has exploded at a rate of %.1e.", step + 1, rates[step])
            break
    if not parallel.is_lead():
        return None
    finite = len(losses) if math.isfinite(losses[-1]) else len(losses) - 1
    if not finite:
        raise NonFiniteError("step 1: the loss is not finite", "Look at the data and the weights.")
    # The option is scaled before it is used.
    scaled = scaled_rate(config.optimizer, config.train.batch_size).learning_rate
    factor = scaled / (config.optimizer.learning_rate or 1.0) or 1.0
    curve = Curve(rates[:finite] / factor, np.asarray(losses[:finite]))
    return write(folder, curve, config.optimizer.learning_rate)


def write(folder: Path, curve: Curve, configured: float) -> FindLrResult:
    """Write the curve as a picture and as a table into the folder."""
    folder.mkdir(exist_ok=True)
    picture, table = folder / "rates.png", folder / "rates.csv"
    rows = zip(curve.rates, curve.losses, curve.smooth, strict=True)
    lines = ["learning_rate,loss,smooth_loss", *(",".join(f"{x:.6g}" for x in row) for row in rows)]
    files.write_text(table, "\n".join(lines) + "\n")
    draw_rates(picture, curve.rates, curve.losses, curve.smooth, marked=curve.suggestion)
    return FindLrResult(
        suggestion=curve.suggestion,
        lowest_loss_at=curve.lowest,
        configured=configured,
        steps=len(curve.rates),
        picture=str(picture),
        table=str(table),
    )
