"""The step as two programs computes what it does as one."""

import re
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlcls_jax import parallel
from mlcls_jax.training.step import make_loss, make_train_step
from mlcls_jax.training.two_programs import Halves
from tests.training.test_step import LOSSES, MAKE, Colours, begin, some_batch

MESH = parallel.make_mesh(devices=jax.devices()[:1])


class HalfColours(NamedTuple):
    """`Colours` in bfloat16, as with model.dtype=bfloat16."""

    def apply(self, variables, images, *, train, key):
        logits, stats = Colours().apply(variables, images, train=train, key=key)
        return logits.astype(jnp.bfloat16), stats


def placed_state(*, ema: bool = False):
    return jax.device_put(begin(ema=ema), parallel.shardings(begin(ema=ema), MESH, {}))


def make(network, loss: str, **options):
    return make_train_step(network, make_loss(LOSSES[loss]), **{**MAKE.keywords, **options})


def halves_of(step, state) -> Halves:
    return Halves(step, MESH, parallel.shardings(state, MESH, {}))


@pytest.mark.parametrize(
    ("network", "loss", "options"),
    [
        (Colours(), "sum", {}),
        (Colours(), "mean", {"accumulate": 3}),
        (Colours(), "multilabel", {"sam_radius": 0.05, "nonfinite": "skip"}),
        *((HalfColours(), name, {}) for name in LOSSES),  # each is float32 all the same
    ],
)
def test_three_steps_equal_those_of_the_whole_step(network, loss, options):
    step = make(network, loss, **options)
    batch = some_batch()
    state, expected = placed_state(ema=True), placed_state(ema=True)
    halves, whole = halves_of(step, state), jax.jit(step)
    for _ in range(3):
        state, numbers = halves(state, batch)
        expected, told = whole(expected, batch)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), numbers, told)
    assert int(state.step) == 3
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6), state, expected
    )
    assert np.abs(state.params["kernel"] - begin().params["kernel"]).max() > 1e-3


def test_only_the_first_step_compiles_and_the_old_state_is_given_up(caplog):
    state, batch = placed_state(), some_batch()
    step = halves_of(make(Colours(), "mean"), state)
    with jax.log_compiles():
        new, _ = step(state, batch)
        assert {"jit(gradient)", "jit(update)"} <= set(re.findall(r"jit\(\w+\)", caplog.text))
        caplog.clear()
        step(new, batch)
        assert not caplog.text
    assert state.params["kernel"].is_deleted()
