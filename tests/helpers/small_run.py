"""A run that compiles in a moment: the backbone of tests on boards of digits.

Modules whose runs are of it use the fixture `toy`.
"""

from mlcls_jax import config as schema

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
