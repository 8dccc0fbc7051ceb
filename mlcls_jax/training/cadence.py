"""The only place that counts steps: how many there are, and after which ones what happens."""

from dataclasses import dataclass

from mlcls_jax.config import Train


@dataclass(frozen=True)
class Plan:
    """When a run evaluates, saves and logs; steps count from 1, as in "after step 1"."""

    epochs: int
    steps_per_epoch: int
    eval_epochs: int
    save_epochs: int
    save_steps: int | None
    log_steps: int
    patience: int | None = None

    @classmethod
    def of(cls, train: Train, *, epoch_size: int) -> "Plan":
        """Return the plan for `epoch_size` images per epoch, whose last step may run over."""
        return cls(
            epochs=train.epochs,
            steps_per_epoch=-(-epoch_size // train.batch_size),
            eval_epochs=train.eval_epochs,
            save_epochs=train.save_epochs,
            save_steps=train.save_steps,
            log_steps=train.log_steps,
            patience=train.patience,
        )

    @property
    def total_steps(self) -> int:
        return self.epochs * self.steps_per_epoch

    def epoch(self, step: int) -> int:
        """Return the epoch, from 1, that `step` belongs to."""
        return (step - 1) // self.steps_per_epoch + 1

    def ends_epoch(self, step: int) -> bool:
        return step % self.steps_per_epoch == 0

    def evaluate_after(self, step: int) -> bool:
        return self._ends_nth_epoch(step, self.eval_epochs)

    def save_after(self, step: int) -> bool:
        inside = self.save_steps is not None and step % self.save_steps == 0
        return inside or self._ends_nth_epoch(step, self.save_epochs)

    def log_after(self, step: int) -> bool:
        return step % self.log_steps == 0 or self.ends_epoch(step)

    def gives_up_after(self, step: int, best_epoch: int | None) -> bool:
        """Return whether to end early: `patience` evaluations after `best_epoch` were no better."""
        if self.patience is None or best_epoch is None or step == self.total_steps:
            return False
        return step // self.steps_per_epoch - best_epoch >= self.patience * self.eval_epochs

    def _ends_nth_epoch(self, step: int, n: int) -> bool:
        if not self.ends_epoch(step):
            return False
        return step // self.steps_per_epoch % n == 0 or step == self.total_steps
