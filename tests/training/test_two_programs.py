"""The step as two programs computes what it does as one."""

import re
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlcls_jax import parallel
from mlcls_jax.training.loss import make_loss
from mlcls_jax.training.step import TrainStep, TwoPrograms, compile_step
from tests.helpers.tiny_step import LOSSES, MAKE, Colours, begin, some_batch

MESH = parallel.make_mesh(devices=jax.devices()[:1])


class HalfColours(Colours):
    """`Colours` in bfloat16, as with model.dtype=bfloat16."""

    def apply(self, variables, images, *, train, key):
        outputs = super().apply(variables, images, train=train, key=key)
        return outputs._replace(logits=outputs.logits.astype(jnp.bfloat16))


def placed_state(*, ema: bool = False):
    return jax.device_put(begin(ema=ema), parallel.shardings(begin(ema=ema), MESH, {}))


def make(network, loss: str, *, sam_radius=0.0, **train) -> TrainStep:
    options = replace(MAKE.keywords["options"], **train)
    keywords = MAKE.keywords | {"options": options, "sam_radius": sam_radius}
    return TrainStep(network, make_loss(LOSSES[loss]), **keywords)


def two_programs(step, state) -> TwoPrograms:
    compiled = compile_step(step, MESH, parallel.shardings(state, MESH, {}))
    assert isinstance(compiled, TwoPrograms)
    return compiled


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
    two, whole = two_programs(step, state), jax.jit(step)
    for _ in range(3):
        state, numbers = two(state, batch)
        expected, told = whole(expected, batch)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), numbers, told)
    assert int(state.step) == 3
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6), state, expected
    )
    assert np.abs(state.params["kernel"] - begin().params["kernel"]).max() > 1e-3


def test_only_the_first_step_compiles_and_the_old_state_is_given_up(caplog):
    state, batch = placed_state(), some_batch()
    step = two_programs(make(Colours(), "mean"), state)
    with jax.log_compiles():
        new, _ = step(state, batch)
        assert {"jit(gradient)", "jit(update)"} <= set(re.findall(r"jit\(\w+\)", caplog.text))
        caplog.clear()
        step(new, batch)
        assert not caplog.text
    assert state.params["kernel"].is_deleted()


def test_every_size_of_images_compiles_once_and_the_update_never_again(caplog):
    state, batch = placed_state(), some_batch()
    large = batch | {"image": jnp.concatenate([batch["image"]] * 2, axis=1)}
    step = two_programs(make(Colours(), "mean"), state)
    state, _ = step(state, batch)
    with jax.log_compiles():
        state, _ = step(state, large)
        assert "jit(gradient)" in caplog.text
        assert "jit(update)" not in caplog.text
        caplog.clear()
        for again in (batch, large):
            state, _ = step(state, again)
        assert not caplog.text
