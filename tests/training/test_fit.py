"""The loop over steps: what the host does while the devices work, and what it never waits for."""

import contextlib
import itertools
import threading
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlcls_jax import parallel
from mlcls_jax.models.network import Variables
from mlcls_jax.training import run as run_module
from mlcls_jax.training.checkpoints import Checkpoints
from mlcls_jax.training.fit import fit
from mlcls_jax.training.progress import Progress
from mlcls_jax.training.run import Run, prepare
from mlcls_jax.training.state import TrainState, init_state
from mlcls_jax.training.step import compile_step
from mlcls_jax.training.stop import Stop
from tests.helpers import tiny_step
from tests.helpers.small_run import small

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
    waits = {event[1]: i for i, event in enumerate(told) if event[0] == "wait"}
    for n in range(2, STEPS - 2):  # the first step is waited for: it is compiled
        assert told.index(("step", n + 1)) < waits[n]
        assert told[: waits[n]].count("put") >= n + 2
    assert told.index("validation") < told.index(("step", STEPS))


def test_a_number_that_is_read_at_every_step_would_show(tmp_path, monkeypatch):
    ways = float, lambda x: np.asarray(x), lambda x: x.item(), jax.device_get
    told = events_of_a_run(
        tmp_path, monkeypatch, after=lambda n, numbers: ways[n % 4](numbers["loss"])
    )
    assert min(copies_after_each_step(told)) == 1
