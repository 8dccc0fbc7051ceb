"""The step's options: parts, recomputed stages, SAM, bad numbers; against plain derivations."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mlcls_jax.config import Loss, Model, Train
from mlcls_jax.models import Network
from mlcls_jax.models.backbones import resnet, vit_variants
from mlcls_jax.models.network import Variables
from mlcls_jax.training.distill import Distillation
from mlcls_jax.training.loss import make_loss
from mlcls_jax.training.state import init_state
from mlcls_jax.training.step import TrainStep
from tests.helpers.commands import on_devices
from tests.helpers.tiny_step import (
    LOSSES,
    MAKE,
    OPTIMIZER,
    RATE,
    Colours,
    begin,
    kernel,
    some_batch,
    step_of,
)


@pytest.mark.parametrize("loss", LOSSES)
def test_parts_add_up_to_the_undivided_step(loss):
    batch = some_batch()
    whole, expected = step_of(loss)(begin(), batch)
    parts, numbers = step_of(loss, accumulate=3)(begin(), batch)
    assert np.abs(kernel(whole) - kernel(begin())).max() > 1e-3
    np.testing.assert_allclose(kernel(parts), kernel(whole), rtol=1e-5, atol=1e-6)
    for name in ("loss", "grad_norm", "learning_rate"):
        np.testing.assert_allclose(numbers[name], expected[name], rtol=1e-5)


def test_each_part_has_its_own_dropout_and_updates_the_statistics_in_turn():
    batch, state = some_batch(), begin()
    key = jax.random.fold_in(jax.random.key(5), 0)
    logits, stats = np.zeros((12, 5), np.float32), state.batch_stats
    for part in range(3):
        logits[part::3], stats, _ = Colours().apply(
            Variables(state.params, stats),
            batch["image"][part::3],
            train=True,
            key=jax.random.fold_in(key, part),
        )
    loss = make_loss(LOSSES["multilabel"])(logits, batch["target"], mask=batch["mask"])
    new, numbers = step_of(accumulate=3, dropout=True)(state, batch)
    np.testing.assert_allclose(numbers["loss"], loss, rtol=1e-6)
    np.testing.assert_allclose(new.batch_stats["mean"], stats["mean"], rtol=1e-5, atol=1e-7)


TWO_DEVICES = """
import re
from dataclasses import replace
import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from tests.helpers.tiny_step import MAKE, LOSSES, begin, kernel, some_batch, step_of
from mlcls_jax.training.loss import make_loss


mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))
everywhere, shared = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((), ("data",)))
options = replace(MAKE.keywords["options"], accumulate=3)
step = MAKE(loss=make_loss(LOSSES["mean"]), dropout=False, options=options)
step = jax.jit(step, in_shardings=(everywhere, shared), out_shardings=everywhere)
batch = some_batch()
text = step.lower(begin(), batch).compile().as_text()
moved = re.findall(r"= (\\S+) (?:all-gather|all-to-all|collective-permute)\\S*\\(", text)
assert "all-reduce" in text and not moved, moved
state, _ = step(begin(), batch)
alone, _ = step_of("mean", accumulate=3)(begin(), batch)
np.testing.assert_allclose(kernel(state), kernel(alone), rtol=1e-5)
"""


def test_parts_stay_where_they_are_on_two_devices():
    on_devices(2, TWO_DEVICES)


def test_sam_takes_the_gradient_uphill_and_the_statistics_from_where_it_stands():
    batch, state = some_batch(), begin()
    loss = make_loss(LOSSES["multilabel"])

    @jax.jit
    @jax.grad
    def gradient(params):
        outputs = Colours().apply(
            Variables(params, state.batch_stats), batch["image"], train=True, key=None
        )
        return loss(outputs.logits, batch["target"], mask=batch["mask"])

    first = gradient(state.params)["kernel"]
    uphill = {"kernel": state.params["kernel"] + 0.5 * first / jnp.linalg.norm(first)}
    second = gradient(uphill)["kernel"]
    assert np.abs(second - first).max() > 1e-3
    plain, expected = step_of()(state, batch)
    for parts in (1, 3):
        new, numbers = step_of(sam_radius=0.5, accumulate=parts)(state, batch)
        np.testing.assert_allclose(kernel(new), kernel(state) - RATE * second, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(numbers["loss"], expected["loss"], rtol=1e-5)
        if parts == 1:
            np.testing.assert_array_equal(new.batch_stats["mean"], plain.batch_stats["mean"])


def test_sam_mixes_and_asks_the_teacher_once():
    asked = []

    class Teacher(Distillation):
        def __init__(self): ...

        def objective(self, target_loss, *_):
            asked.append("teacher")
            return target_loss

        def compared(self, outputs):
            return outputs.logits

    def mix(batch, key):
        asked.append("mix")
        return batch

    options = MAKE.keywords | {"sam_radius": 0.5, "distill": Teacher(), "mix": mix}
    step = TrainStep(Colours(), make_loss(LOSSES["multilabel"]), **options)
    jax.eval_shape(step, begin(), some_batch(), Variables({}, {}))
    assert asked == ["mix", "teacher"]


def bad_batch() -> dict[str, np.ndarray]:
    batch = some_batch()
    batch["image"][2] = np.nan
    return batch


@pytest.mark.parametrize("policy", ["skip", "rollback"])
@pytest.mark.parametrize("options", [{}, {"sam_radius": 0.5, "accumulate": 3}], ids=["", "sam"])
def test_a_bad_step_changes_nothing_but_the_count(policy, options):
    step = step_of(nonfinite=policy, **options)
    state, numbers = step(begin(ema=True), some_batch())  # velocity and average are not 0
    assert numbers["finite"]
    new, numbers = step(state, bad_batch())
    assert not numbers["finite"] and numbers["finite"].dtype == bool
    jax.tree.map(np.testing.assert_array_equal, new, replace(state, step=state.step + 1))
    after, numbers = step(new, some_batch())
    assert numbers["finite"] and np.abs(kernel(after) - kernel(state)).max() > 1e-3


def test_without_a_policy_a_bad_step_is_told_and_taken():
    new, numbers = step_of()(begin(), bad_batch())
    assert not numbers["finite"] and np.isnan(kernel(new)).any()


def test_infinite_gradients_of_a_finite_loss_are_bad():
    def steep(logits, targets, *, mask):
        return jnp.sqrt(jnp.abs(logits - jax.lax.stop_gradient(logits))).sum()

    _, numbers = jax.jit(MAKE(loss=steep))(begin(), some_batch())
    assert numbers["loss"] == 0 and not numbers["finite"]


def test_policies_do_not_change_good_steps_and_rollback_scales_updates():
    plain, _ = step_of()(begin(), some_batch())
    for policy in ("skip", "rollback"):
        new, _ = step_of(nonfinite=policy)(begin(), some_batch())
        jax.tree.map(np.testing.assert_array_equal, new, plain)
    half = replace(begin(), rate_scale=jnp.float32(0.5))
    new, numbers = step_of(nonfinite="rollback")(half, some_batch())
    np.testing.assert_allclose(
        kernel(new) - kernel(half), (kernel(plain) - kernel(half)) / 2, rtol=1e-4, atol=1e-7
    )
    np.testing.assert_allclose(numbers["learning_rate"], RATE / 2)
    assert new.rate_scale == 0.5


SIZES = {"width": 16, "hidden": 64, "depth": 4, "num_heads": 2, "grid": 2}
TINY = {  # with batch statistics and without
    "conv": (
        resnet.VARIANTS,
        resnet.ResNetConfig(blocks=(2, 2), bottleneck=False, strides=(2, 1, 1)),
    ),
    "vit": (
        vit_variants.CLIP.variants,
        replace(vit_variants.CLIP.variants["CLIP_vit_base_patch16_224"], **SIZES),
    ),
}
IMAGES = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)


@pytest.fixture
def tiny(request, monkeypatch) -> Network:
    variants, config = TINY[request.param]
    monkeypatch.setitem(variants, "tiny", config)
    monkeypatch.setattr(resnet, "STEM_WIDTH", 8)
    monkeypatch.setattr(resnet, "WIDTHS", (32, 32))
    return Network.of(Model(name="tiny", num_classes=3, image_size=(32, 32)))


def trained(network, remat, params, stats, images):
    outputs = replace(network, remat=remat).apply(Variables(params, stats), images, train=True)
    return outputs.logits, outputs.batch_stats


@pytest.mark.parametrize("tiny", TINY, indirect=True)
def test_recomputed_stages_leave_little_for_the_gradient(tiny):
    def kept(remat):
        """Numbers that the forward pass keeps of the images."""

        def back(params, stats, images):
            run = partial(trained, tiny, remat, stats=stats, images=images)
            return jax.vjp(run, params, has_aux=True)[1]

        back = jax.eval_shape(back, *tiny.abstract, IMAGES)
        return sum(leaf.size for leaf in jax.tree.leaves(back) if leaf.shape[:1] == (5,))

    assert 0 < kept(True) < 0.4 * kept(False)


@pytest.mark.slow
@pytest.mark.parametrize("tiny", ["conv"], indirect=True)
def test_recomputed_stages_give_the_same_numbers(tiny):
    def gradient(remat):
        def value(*arguments):
            scores, stats = trained(tiny, remat, *arguments)
            return (scores**2).sum(), stats

        return jax.jit(jax.value_and_grad(value, has_aux=True))(*tiny.init(0), IMAGES)

    (loss, stats), grads = gradient(True)
    (expected_loss, expected_stats), expected = gradient(False)
    np.testing.assert_allclose(loss, expected_loss, rtol=1e-5)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5), stats, expected_stats)
    norm = optax.tree.norm(expected)
    assert norm > 1 and optax.tree.norm(jax.tree.map(jnp.subtract, grads, expected)) < 1e-4 * norm


@pytest.mark.parametrize("tiny", ["conv"], indirect=True)  # GELU recomputes itself always
def test_the_step_recomputes_when_asked(tiny):
    begin = partial(init_state, optimizer=OPTIMIZER, ema=False)
    batch = {"image": IMAGES, "target": np.zeros((5, 3), np.float32), "mask": np.ones(5, bool)}
    make = partial(MAKE.func, tiny, make_loss(Loss()), **MAKE.keywords)
    state = jax.eval_shape(begin, tiny.abstract)
    steps = [make(options=Train(remat=remat)) for remat in (False, True)]
    traces = [str(jax.make_jaxpr(step)(state, batch)) for step in steps]
    assert ["remat" in trace for trace in traces] == [False, True]
