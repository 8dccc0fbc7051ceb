"""Four steps equal the originals': loss, learning rate, gradients, parameters, EMA."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlcls_jax.config import Loss, Model, Optimizer, Train
from mlcls_jax.losses import asymmetric_loss
from mlcls_jax.models import Network
from mlcls_jax.models.network import Model as ModelHandle
from mlcls_jax.models.network import Variables, flatten
from mlcls_jax.models.weight_names import to_theirs
from mlcls_jax.models.weights import load
from mlcls_jax.recipes.hgnetv2 import AFFINES
from mlcls_jax.training.cadence import Plan
from mlcls_jax.training.loss import make_loss
from mlcls_jax.training.optimizer import make_optimizer, make_schedule
from mlcls_jax.training.state import init_state
from mlcls_jax.training.step import TrainStep
from tests.helpers.paddle_recipe import SEED, golden, weights

# lr_mult_list of the golden, stage by stage. Squeeze-excite is part of its stage.
MULTIPLIERS = tuple(
    f"^backbone/{stage}={factor}"
    for stage, factor in [
        ("conv1/", 0.0), ("blocks2_", 0.2), ("blocks3_", 0.4), ("blocks4_", 0.6), ("blocks5_", 0.8),
    ]
)  # fmt: skip
LCNET = "PP-LCNet_x0_25_ML"
CASES = {  # golden → model, optimizer.lr_multipliers
    "train_steps_lcnet_adamw": (LCNET, ()),
    "train_steps_lcnet_adamw_lrmult": (LCNET, MULTIPLIERS),
    "train_steps_hgnet_b0_adamw": ("PP-HGNetV2-B0_ML", AFFINES),
    "train_steps_lcnet_momentum": (LCNET, ()),
}


def drawn_batches(steps, batch, classes):
    """The golden's images (as NHWC) and targets."""
    rng = np.random.Generator(np.random.PCG64(SEED + 5))
    for _ in range(steps):
        images = rng.standard_normal((batch, 3, 64, 64)).astype(np.float32)
        targets = rng.random((batch, classes)) < 0.25
        yield images.transpose(0, 2, 3, 1), targets.astype(np.float32)


def drawn_model(name):
    """The golden's network with its drawn weights."""
    config = Model(name=name, num_classes=20, query_num=20, backbone_dropout=0.0)
    network = Network.of(config).on(jax.devices())
    shapes = {}
    for path, leaf in flatten(network.abstract).items():
        key, layout, _ = network.foreign_names["paddle"][path]
        if key is not None:
            shapes[key] = to_theirs(np.empty(leaf.shape), layout).shape
    model = ModelHandle(network, network.init(0))
    load(model, weights(json.dumps(list(shapes.items()))))
    return network, model


def run(case, dtype):
    """Four of our steps: losses, learning rates, the final state and the first gradients."""
    name, multipliers = CASES[case]
    facts = json.loads(str(golden(case)["cfg"]))
    rate = facts["opt"]["lr"]
    network, model = drawn_model(name)
    plan = Plan.of(
        Train(epochs=facts["epochs"], batch_size=facts["batch"]),
        epoch_size=facts["batch"] * facts["step_each_epoch"],
    )
    options = Optimizer(
        name=facts["opt"]["name"].lower(),
        learning_rate=rate["learning_rate"],
        weight_decay=facts["opt"].get("weight_decay") or facts["opt"]["regularizer"]["coeff"],
        schedule="cosine",
        warmup_epochs=rate["warmup_epoch"],
        warmup_start=rate.get("warmup_start_lr", 0.0),
        end_learning_rate=rate.get("eta_min", 0.0),
        lr_multipliers=multipliers,
    )
    schedule = make_schedule(options, plan)
    optimizer = make_optimizer(options, schedule, network)
    step = jax.jit(
        TrainStep(
            network,
            make_loss(Loss()),
            optimizer,
            schedule,
            Train(ema_decay=facts["ema"], ema_warmup=False),
            seed=0,
            dropout=False,
        )
    )
    variables = jax.tree.map(lambda a: jnp.asarray(a, dtype), model.variables)
    state = init_state(variables, optimizer=optimizer, ema=True)
    losses, rates = [], []
    for images, targets in drawn_batches(facts["steps"], facts["batch"], 20):
        batch = {
            "image": jnp.asarray(images, dtype),
            "target": jnp.asarray(targets, dtype),
            "mask": jnp.ones(facts["batch"], bool),
        }
        state, numbers = step(state, batch)
        losses.append(float(numbers["loss"]))
        rates.append(float(numbers["learning_rate"]))
    return network, state, losses, rates


def in_paddles_order(network, variables, names):
    """Our arrays by Paddle's names, in Paddle's layout."""
    arrays = {}
    for path, value in flatten(variables).items():
        key, layout, _ = network.foreign_names["paddle"][path]
        arrays[key] = to_theirs(np.asarray(value), layout)
    return [arrays[name] for name in names]


def sums(arrays):
    """[sum, sum of absolutes] of each, as the goldens store them."""
    return np.array([[a.sum(), np.abs(a).sum()] for a in arrays])


def assert_state_equals(expected, dtype, network, state, *, tolerance):
    """Sums of every tensor, and the stored ones whole, of raw and averaged weights."""
    names = json.loads(str(expected["names"]))
    for variables, kind in ((state.variables, ""), (state.ema, "ema")):
        arrays = in_paddles_order(network, variables, names)
        stored = expected[f"{kind or 'final'}_{dtype}"]
        # Sums of signed numbers nearly cancel: measure them against the sum of absolutes.
        error = np.abs(sums(arrays) - stored) / stored[:, 1:]
        assert error.max() < tolerance, names[int(error.max(1).argmax())]
        for name, array in zip(names, arrays, strict=True):
            key = f"{kind}full_{dtype}/{name}"
            if key in expected:
                error = np.abs(array - expected[key]).max() / np.abs(expected[key]).max()
                assert error < tolerance, key


@pytest.mark.slow
@pytest.mark.parametrize("case", [case for case in CASES if "momentum" not in case])
def test_four_steps_equal_the_original_in_float64(case):
    expected = golden(case)
    with jax.enable_x64(True):
        network, state, losses, rates = run(case, jnp.float64)
    np.testing.assert_allclose(rates, expected["lr_float64"], rtol=1e-12)
    np.testing.assert_allclose(losses, expected["loss_float64"], rtol=1e-7)
    assert_state_equals(expected, "float64", network, state, tolerance=1e-6)


@pytest.mark.slow
def test_four_momentum_steps_equal_the_original():
    # Recorded in float32 only, which differs from float64 by as much after four steps.
    expected = golden("train_steps_lcnet_momentum")
    network, state, losses, rates = run("train_steps_lcnet_momentum", jnp.float32)
    np.testing.assert_allclose(rates, expected["lr_float32"], rtol=1e-6)
    np.testing.assert_allclose(losses, expected["loss_float32"], rtol=3e-3)
    assert_state_equals(expected, "float32", network, state, tolerance=5e-3)


def test_first_gradients_equal_the_original_in_float64():
    case = "train_steps_lcnet_adamw"
    expected = golden(case)
    names = json.loads(str(expected["names"]))
    network, model = drawn_model(CASES[case][0])
    images, targets = next(drawn_batches(1, 4, 20))
    with jax.enable_x64(True):
        params, stats = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), model.variables)

        def objective(params):
            batch = jnp.asarray(images, jnp.float64)
            return asymmetric_loss(
                network.apply(Variables(params, stats), batch, train=True).logits, targets
            )

        grads = jax.jit(jax.grad(objective))(params)
        ours = sums(in_paddles_order(network, Variables(grads, stats), names))
    stored = expected["grad0_float64"]
    trained = np.isfinite(stored[:, 0])
    error = np.abs(ours - stored)[trained] / stored[trained, 1:].clip(1e-3)
    assert error.max() < 1e-6, np.array(names)[trained][int(error.max(1).argmax())]
    frozen = names.index("fc.query_pos_embed.weight")
    assert np.isnan(stored[frozen]).all()
    assert np.abs(ours[frozen]).max() == 0
