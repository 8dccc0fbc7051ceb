"""When a run evaluates, saves, logs and gives up."""

from mlcls_jax.config import Train
from mlcls_jax.training.cadence import Plan


def test_patience_counts_evaluations_since_the_best_one():
    train = Train(epochs=20, batch_size=8, eval_epochs=2, patience=3)
    plan = Plan.of(train, epoch_size=32)  # four steps
    given_up = [step for step in range(1, 81) if plan.gives_up_after(step, best_epoch=4)]
    assert given_up == list(range(40, 80))  # after the evaluations of epochs 6, 8 and 10
    assert not any(plan.gives_up_after(step, None) for step in range(1, 81))
    patient = Plan.of(Train(epochs=20, batch_size=8), epoch_size=32)
    assert not any(patient.gives_up_after(step, 1) for step in range(1, 81))
