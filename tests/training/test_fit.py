"""The loop over steps: what the host does while the devices work, and what it never waits for."""

import contextlib
import itertools
import signal
import threading
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlcls_jax import config as schema
from mlcls_jax import parallel
from mlcls_jax.errors import ConfigError, PreemptedError
from mlcls_jax.metrics import MAIN_METRIC
from mlcls_jax.models.network import Variables
from mlcls_jax.modes.train import fit
from mlcls_jax.training import run as run_module
from mlcls_jax.training.between_steps import _metrics
from mlcls_jax.training.checkpoints import Checkpoints
from mlcls_jax.training.progress import Progress
from mlcls_jax.training.run import Run, prepare, teacher_of
from mlcls_jax.training.state import TrainState, init_state
from mlcls_jax.training.step import compile_step
from mlcls_jax.training.stop import Stop
from tests.helpers import tiny_step
from tests.helpers.bundles import LABELS, write_small
from tests.helpers.small_run import MODEL, small

pytestmark = pytest.mark.usefixtures("toy")
STEPS, LOG_STEPS, NUMBERS = 12, 4, 4  # numbers of one step


class EvaluatedError(Exception):
    """The run has come to its evaluation."""


def count_copies(monkeypatch, told: list) -> None:
    """Add "copy" for every array that comes to the host; on CPUs no transfer guard sees that."""
    array_type = type(jax.numpy.zeros(()))
    value = vars(array_type)["_value"]

    def copied(array):
        told.append("copy")
        return value.fget(array)

    monkeypatch.setattr(array_type, "_value", property(copied))

    def converted(plain, content, *arguments, **options):
        if isinstance(content, jax.Array):
            told.append("copy")
        return plain(content, *arguments, **options)

    for name in ("asarray", "array"):  # these may read the memory of a CPU device without asking
        monkeypatch.setattr(np, name, partial(converted, getattr(np, name)))


def run_of_one_layer(workdir) -> tuple[Run, TrainState]:
    """Return a run whose real step is compiled in a moment, and its first state."""
    config = small(epochs=1, train={"log_steps": LOG_STEPS})
    config = replace(config, data=replace(config.data, epoch_size=8 * STEPS))
    run = prepare(config, workdir)
    variables = Variables({"kernel": jnp.zeros((3, 10))}, {"mean": jnp.zeros(10)})
    state = init_state(variables, optimizer=tiny_step.OPTIMIZER, ema=True)
    step = tiny_step.MAKE(loss=tiny_step.make_loss(config.loss))
    return replace(
        run, step=compile_step(step, run.mesh, parallel.shardings(state, run.mesh, {}))
    ), state


def events_of_a_run(workdir, monkeypatch, *, after=lambda number, numbers: None) -> list:
    """Return what happens on the main thread until the last step is sent, in order.

    `after` gets the number and numbers of every step as soon as it is sent.
    """
    (run, state), told, sent = run_of_one_layer(workdir), [], []
    put, wait = parallel._put_batch, jax.block_until_ready

    def step(state, batch, teacher):
        new, numbers = run.step(state, batch, teacher)
        sent.append(numbers)
        told.append(("step", len(sent)))
        if len(sent) == 1:  # compiled
            guard.enter_context(jax.transfer_guard("disallow"))
        after(len(sent), numbers)
        if len(sent) == STEPS:
            guard.close()
            told.append("end")
        return new, numbers

    def waited(numbers):
        if threading.current_thread() is threading.main_thread():
            told.append(("wait", 1 + next(i for i, one in enumerate(sent) if one is numbers)))
        return wait(numbers)

    def validation(*_, **__):
        told.append("validation")
        return map(evaluated, range(1))

    def evaluated(_):
        raise EvaluatedError

    monkeypatch.setattr(parallel, "_put_batch", lambda *a: told.append("put") or put(*a))
    monkeypatch.setattr(jax, "block_until_ready", waited)
    monkeypatch.setattr(run_module, "eval_batches", validation)
    count_copies(monkeypatch, told)
    with (
        contextlib.ExitStack() as guard,
        Stop(None, lambda: None) as stop,
        Checkpoints(workdir / "checkpoints", keep=1, metric=run.metric) as checkpoints,
        pytest.raises(EvaluatedError),
    ):
        fit(replace(run, step=step), state, Progress(), stop, checkpoints)
    return told[told.index(("step", 1)) - 4 : told.index("end")]


def copies_after_each_step(told: list) -> list[int]:
    places = [told.index(("step", n)) for n in range(1, STEPS + 1)] + [len(told)]
    return [told[a:b].count("copy") for a, b in itertools.pairwise(places)]


def test_the_host_prepares_what_comes_next_and_copies_numbers_once_a_log_interval(
    tmp_path, monkeypatch
):
    told = events_of_a_run(tmp_path, monkeypatch)
    # After step 8 come the numbers of steps 1 to 4; the rest after the last one, which is later.
    assert copies_after_each_step(told) == [0] * 7 + [LOG_STEPS * NUMBERS] + [0] * 4
    for n in range(2, STEPS - 2):  # the first step is waited for: it is compiled
        waited = told.index(("wait", n))
        assert told.index(("step", n + 1)) < waited
        assert told[:waited].count("put") >= n + 2
    assert told.index("validation") < told.index(("step", STEPS))


def test_a_number_that_is_read_at_every_step_would_show(tmp_path, monkeypatch):
    ways = float, lambda x: np.asarray(x), lambda x: x.item(), jax.device_get
    told = events_of_a_run(
        tmp_path, monkeypatch, after=lambda n, numbers: ways[n % 4](numbers["loss"])
    )
    assert min(copies_after_each_step(told)) == 1


def test_a_run_asked_to_end_in_an_evaluation_saves_the_step_and_evaluates_it_later(
    tmp_path, monkeypatch
):
    (run, state), stopped = run_of_one_layer(tmp_path), Stop(None, lambda: None)

    def validation(*_, **__):
        stopped._ask(signal.SIGTERM)
        yield {}

    monkeypatch.setattr(run_module, "eval_batches", validation)
    with Checkpoints(tmp_path / "checkpoints", keep=1, metric=run.metric) as checkpoints:
        with stopped as stop, pytest.raises(PreemptedError, match="^Stopped after step 12 of 12;"):
            fit(run, state, Progress(), stop, checkpoints)
        places = parallel.shardings(state, run.mesh, {})
        restored, record = checkpoints.restore(parallel.placed(state, places))
    assert int(restored.step) == STEPS and record["is_evaluation_due"]


def test_a_run_of_one_label_an_image_is_ranked_by_its_best_guess(tmp_path):
    single = small(model=replace(MODEL, task="single"), loss=schema.Loss(name="cross_entropy"))
    run = SimpleNamespace(config=single)
    metrics = _metrics(run, np.float32([[0, 2, 1], [3, 1, 2]]), np.float32([[0, 1, 0], [0, 0, 1]]))
    assert metrics[MAIN_METRIC["single"]] == 0.5


def test_a_teacher_is_read_from_its_bundle_and_must_fit(tmp_path):
    folder, mesh = write_small(tmp_path / "teacher", "PP-LCNet_x0_25"), parallel.make_mesh()
    config = small(distill=schema.Distill(teacher=str(folder), weight=0.7))
    distill, variables = teacher_of(config, LABELS, mesh)
    assert distill is not None
    assert variables is not None and variables.params["backbone"]
    with pytest.raises(ConfigError, match="label 0"):
        teacher_of(config, LABELS[::-1], mesh)
    other = replace(config, model=replace(MODEL, task="single"))
    with pytest.raises(ConfigError, match="was trained with model.task=multilabel, not single"):
        teacher_of(other, LABELS, mesh)
