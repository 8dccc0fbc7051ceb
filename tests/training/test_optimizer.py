"""Schedules equal the originals'; decay, freezing and multipliers reach the right parameters."""

import json
from dataclasses import replace
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from mlcls_jax.config import Model, Optimizer, Train
from mlcls_jax.errors import ConfigError
from mlcls_jax.models import Network
from mlcls_jax.models.network import Variables
from mlcls_jax.training.cadence import Plan
from mlcls_jax.training.optimizer import make_optimizer, make_schedule, scaled_rate
from tests.helpers.paddle_recipe import golden

SCHEDULES = golden("lr_schedules")


def plan_of(epochs, steps):
    return Plan.of(Train(epochs=epochs, batch_size=1), epoch_size=steps)


def rates(options, plan):
    return np.asarray(jax.vmap(make_schedule(options, plan))(jnp.arange(plan.total_steps)))


WARMUP = {"warmup_epoch": "warmup_epochs", "warmup_start_lr": "warmup_start"}
NAMES = WARMUP | {
    "learning_rate": "learning_rate", "max_learning_rate": "learning_rate", "end_lr":
    "end_learning_rate", "eta_min": "end_learning_rate", "end_learning_rate": "end_learning_rate",
    "by_epoch": "by_epoch", "divide_factor": "divide_factor", "phase_pct": "peak_fraction",
    "three_phase": "three_phase", "decay_epochs": "decay_epochs",
}  # fmt: skip
KINDS = {"Cosine": "cosine", "OneCycleLR": "onecycle", "Linear": "linear", "Piecewise": "step",
         "Step": "step"}  # fmt: skip


def options_of(facts):
    """Our options for a golden's."""
    options = {"warmup_epochs": 0, "warmup_start": 0.0, "end_learning_rate": 0.0}
    options |= {NAMES[key]: value for key, value in facts.items() if key in NAMES}
    if facts["name"] == "Piecewise":
        options |= {"learning_rate": facts["values"][0]}
    if facts["name"] == "Step":
        size = facts["step_size"]
        options["decay_epochs"] = tuple(range(size, facts["epochs"], size))
    if facts.get("anneal_strategy") == "linear":
        options["anneal"] = "linear"
    return Optimizer(schedule=KINDS[facts["name"]], **options)


@pytest.mark.parametrize("tag", sorted({key.partition("/")[0] for key in SCHEDULES} - {"meta"}))
def test_schedules_equal_the_originals(tag):
    facts = json.loads(str(SCHEDULES[f"{tag}/cfg"]))
    steps = facts["step_each_epoch"]
    with jax.enable_x64(True):
        ours = rates(options_of(facts), plan_of(facts["epochs"], steps))
    if facts.get("by_epoch"):
        ours = ours[::steps]
    np.testing.assert_allclose(ours, SCHEDULES[f"{tag}/lr"], rtol=1e-9, atol=1e-15)


def test_all_nine_schedules_are_covered():
    assert sum(key.endswith("/lr") for key in SCHEDULES) == 9


def test_float32_rates_are_near_enough():
    ours = rates(Optimizer(), plan_of(10, 7))
    np.testing.assert_allclose(ours, SCHEDULES["cosine_ml/lr"], rtol=1e-4, atol=1e-11)


def test_constant_rises_then_stays():
    options = Optimizer(schedule="constant", warmup_epochs=1, learning_rate=1.0, warmup_start=0.0)
    np.testing.assert_allclose(rates(options, plan_of(2, 4)), [0, 0.25, 0.5, 0.75, 1, 1, 1, 1])


@pytest.mark.parametrize("schedule", ["cosine", "linear", "step", "onecycle", "constant"])
@pytest.mark.parametrize("epochs, steps", [(1, 1), (1, 2), (3, 1)])
def test_the_shortest_runs_have_finite_rates(schedule, epochs, steps):
    assert np.isfinite(rates(Optimizer(schedule=schedule), plan_of(epochs, steps))).all()


def network_of(params, frozen=()):
    """As much of a network as an optimizer asks for."""
    return SimpleNamespace(
        abstract=Variables(params, {}),
        frozen=frozenset(frozen),
        depths={},
        trained=lambda tree: tree,
    )


def one_step(options, *, frozen=frozenset()):
    """Updates of a first step with unit gradients, without warm-up, by path."""
    params = {"a": {"kernel": jnp.full((2, 2), 3.0), "bias": jnp.full(2, 3.0)}}
    plan = plan_of(1, 10)
    optimizer = make_optimizer(options, make_schedule(options, plan), network_of(params, frozen))
    grads = jax.tree.map(jnp.ones_like, params)
    return optimizer.update(grads, optimizer.init(params), params)[0]["a"]


def test_only_parameters_of_rank_two_and_more_are_decayed():
    options = Optimizer(schedule="constant", warmup_epochs=0, learning_rate=0.1, weight_decay=0.5)
    updates = one_step(options)
    np.testing.assert_allclose(updates["bias"], -0.1, rtol=1e-5)
    np.testing.assert_allclose(updates["kernel"], -0.1 * (1 + 0.5 * 3.0), rtol=1e-5)


def test_momentum_adds_the_decay_to_the_gradient_and_keeps_its_velocity():
    options = Optimizer(name="momentum", schedule="constant", warmup_epochs=0, learning_rate=0.1,
                        weight_decay=0.5, momentum=0.9)  # fmt: skip
    params = {"a": {"kernel": jnp.full((2, 2), 3.0)}}
    plan = plan_of(1, 10)
    optimizer = make_optimizer(options, make_schedule(options, plan), network_of(params))
    grads, state = jax.tree.map(jnp.ones_like, params), optimizer.init(params)
    first, state = optimizer.update(grads, state, params)
    np.testing.assert_allclose(first["a"]["kernel"], -0.1 * 2.5, rtol=1e-6)
    second, _ = optimizer.update(grads, state, params)
    np.testing.assert_allclose(second["a"]["kernel"], -0.1 * (0.9 * 2.5 + 2.5), rtol=1e-6)


def test_lion_steps_by_signs_and_decays_beside():
    # Chen et al. (2023): update sign(b1 m + (1 - b1) g), then m becomes b2 m + (1 - b2) g.
    options = Optimizer(name="lion", schedule="constant", warmup_epochs=0, learning_rate=0.1,
                        weight_decay=0.5, beta1=0.6, beta2=0.9)  # fmt: skip
    params = {"a": {"kernel": jnp.full((1, 3), 3.0)}}
    plan = plan_of(1, 10)
    optimizer = make_optimizer(options, make_schedule(options, plan), network_of(params))
    state, momentum = optimizer.init(params), np.zeros((1, 3))
    for gradient in ([[1.0, -2.0, 5.0]], [[-1.0, -0.1, -0.1]], [[0.1, 3.0, -0.1]]):
        updates, state = optimizer.update({"a": {"kernel": jnp.array(gradient)}}, state, params)
        step = np.sign(0.6 * momentum + 0.4 * np.array(gradient))
        np.testing.assert_allclose(updates["a"]["kernel"], -0.1 * (step + 0.5 * 3.0), rtol=1e-6)
        momentum = 0.9 * momentum + 0.1 * np.array(gradient)


def test_frozen_parameters_stay():
    updates = one_step(Optimizer(warmup_epochs=0), frozen={"a/kernel"})
    assert not updates["kernel"].any()
    assert updates["bias"].all()


def test_multipliers_scale_rate_and_decay_of_matching_paths():
    base = {"schedule": "constant", "warmup_epochs": 0, "learning_rate": 0.1, "weight_decay": 0.5}
    plain = one_step(Optimizer(**base))
    scaled = one_step(Optimizer(**base, lr_multipliers=("kernel$=0.25",)))
    np.testing.assert_allclose(scaled["kernel"], 0.25 * plain["kernel"], rtol=1e-6)
    np.testing.assert_array_equal(scaled["bias"], plain["bias"])


def test_multipliers_may_match_frozen_parameters_too():
    updates = one_step(Optimizer(lr_multipliers=("^a/=0.5",)), frozen={"a/kernel"})
    assert not updates["kernel"].any()
    assert updates["bias"].all()


def test_a_multiplier_that_matches_nothing_is_refused():
    with pytest.raises(ConfigError, match="'nothing' matches no parameter"):
        one_step(Optimizer(lr_multipliers=("nothing=2",)))


LCNET_BLOCKS = {"blocks2": 1, "blocks3": 2, "blocks4": 2, "blocks5": 6, "blocks6": 2}
LCNET_ORDER = [f"{n}_{i}" for n, count in LCNET_BLOCKS.items() for i in range(count)]
DEPTHS = {  # model → depth of each part of the backbone, as exponent of the factor
    "PP-LCNet_x0_25_ML": {"conv1": 14, "last_conv": 0}
    | {path: 13 - i for i, path in enumerate(LCNET_ORDER)},
    "PP-HGNetV2-B0": {"stem": 6, "stage0": 5, "stage1": 4, "stage2/downsample": 3,
                      "stage2/block0": 3, "stage2/block1": 2, "stage3": 1, "last_conv": 0,
                      "lab": 0},
    "ResNet18": {"stem": 9} | {f"block{i}": 8 - i for i in range(8)},
    "CLIP_vit_base_patch32_224": {"patch_kernel": 13, "cls_token": 13, "pos_embed": 13,
                                  "ln_pre": 13, "norm": 0}
    | {f"block{i}": 12 - i for i in range(12)},
}  # fmt: skip


@pytest.mark.parametrize("name", DEPTHS)
def test_layer_decay_falls_from_the_head_to_the_stem(name):
    network = Network.of(Model(name=name, num_classes=3, image_size=(64, 64)))
    flat = traverse_util.flatten_dict(network.abstract.params, sep="/")
    # The factor depends on paths alone: let every parameter be one number.
    params = traverse_util.unflatten_dict(dict.fromkeys(flat, jnp.zeros(())), sep="/")
    options = Optimizer(name="momentum", schedule="constant", warmup_epochs=0, learning_rate=1.0,
                        layer_decay=0.5, lr_multipliers=("bias$=3",))  # fmt: skip
    network = replace(network, abstract=Variables(params, {}))
    optimizer = make_optimizer(options, lambda _: 1.0, network)
    ones = jax.tree.map(jnp.ones_like, params)
    updates = optimizer.update(ones, optimizer.init(params), params)[0]
    for path, update in traverse_util.flatten_dict(updates, sep="/").items():
        starts = {f"backbone/{part}/": depth for part, depth in DEPTHS[name].items()}
        factor = 0.5 ** next((d for start, d in starts.items() if f"{path}/".startswith(start)), 0)
        factor *= 3 if path.endswith("bias") else 1
        assert update == pytest.approx(0 if path in network.frozen else -factor), path


def test_the_peak_rate_follows_the_batch_size():
    options = Optimizer(learning_rate=0.1, base_batch_size=256, schedule="constant",
                        warmup_epochs=0)  # fmt: skip
    assert scaled_rate(options, 1024) == options
    peaks = [
        rates(scaled_rate(replace(options, rate_scaling=rule), 1024), plan_of(1, 2))[-1]
        for rule in ("none", "linear", "sqrt")
    ]
    np.testing.assert_allclose(peaks, [0.1, 0.4, 0.2], rtol=1e-6)


def test_gradients_are_clipped_by_their_global_norm():
    options = Optimizer(warmup_epochs=0, clip_norm=1e-3, epsilon=1.0, learning_rate=1.0)
    assert float(jnp.abs(one_step(options)["bias"]).max()) < 1e-3


def test_the_plan_counts_steps():
    train = Train(epochs=3, batch_size=4, eval_epochs=2, save_steps=2, log_steps=5)
    plan = Plan.of(train, epoch_size=10)
    assert (plan.steps_per_epoch, plan.total_steps) == (3, 9)
    assert [plan.epoch(step) for step in (1, 3, 4, 9)] == [1, 1, 2, 3]
    steps = range(1, 10)
    assert [step for step in steps if plan.evaluate_after(step)] == [6, 9]
    assert [step for step in steps if plan.save_after(step)] == [2, 3, 4, 6, 8, 9]
    assert [step for step in steps if plan.log_after(step)] == [3, 5, 6, 9]
